"""What campaign tells the other services."""

from dataclasses import dataclass
from datetime import datetime

from services.runtime.ids import CouponId, TemplateId


@dataclass(frozen=True, slots=True, kw_only=True)
class CouponUsed:
    """A coupon was used by a paid order. `version` is the coupon's."""

    coupon_id: CouponId
    template_id: TemplateId
    member_id: str
    order_id: str
    amount_minor: int
    occurred_at: datetime
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CouponReturned:
    """A used coupon came back because its order was wholly refunded."""

    coupon_id: CouponId
    template_id: TemplateId
    member_id: str
    order_id: str
    occurred_at: datetime
    version: int


Event = CouponUsed | CouponReturned
