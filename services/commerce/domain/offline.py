"""Off-line sales are facts: what differs from the books becomes an exception, never a refusal."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from services.commerce.domain.freezing import PricedLine
from services.commerce.domain.orders import Discount, DiscountSource, PriceSource
from services.commerce.domain.refusals import ExceptionResolved
from services.runtime.errors import Invalid
from services.runtime.ids import OrderId

TILL_DISCOUNT = Discount(source=DiscountSource.TILL, source_id="offline")
"""What a till took off and no rule explains; the brand pays it, out of the store's exception budget."""


class Difference(StrEnum):
    """Why an exception was made; part of the contract."""

    PRICE_DIFFERS = "PRICE_DIFFERS"
    STOCK_SHORTFALL = "STOCK_SHORTFALL"
    COUPON_EXCESS = "COUPON_EXCESS"
    POINTS_SHORTFALL = "POINTS_SHORTFALL"
    MEMBER_UNKNOWN = "MEMBER_UNKNOWN"
    PRODUCT_UNKNOWN = "PRODUCT_UNKNOWN"
    STORE_UNKNOWN = "STORE_UNKNOWN"
    HOLD_LOST = "HOLD_LOST"
    NOT_SHIPPED = "NOT_SHIPPED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What a person found out or did about an exception; `resolved_at` is machine time."""

    note: str
    resolved_by: str
    resolved_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SaleException:
    """A difference between a sale and the books: the till's figure less the books'. `posted_at` is machine time.

    `resolution` None: nobody has dealt with it yet.
    """

    exception_id: str
    reason: Difference
    order_id: OrderId
    line_id: str
    difference: int
    detail: str
    posted_at: datetime
    resolution: Resolution | None = None


def resolve(exception: SaleException, resolution: Resolution) -> SaleException:
    """The exception, dealt with. Raises ExceptionResolved if somebody was first."""
    if exception.resolution is not None:
        raise ExceptionResolved(exception.exception_id, resolved_by=exception.resolution.resolved_by)
    return replace(exception, resolution=resolution)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A difference before it has an id: reason, line, figure, words."""

    reason: Difference
    line_id: str
    difference: int
    detail: str


def check_charges(charged_minor: Sequence[int], lines: Sequence[PricedLine]) -> None:
    """Raises Invalid unless there is one charge a line, at most the till's own shelf price."""
    if len(charged_minor) != len(lines):
        raise Invalid(f"{len(charged_minor)} charges for {len(lines)} lines", field="charged_minor")
    for at, (charged, line) in enumerate(zip(charged_minor, lines, strict=True)):
        if line.price_source is PriceSource.POS and charged > line.shelf_minor:
            raise Invalid("charged more than the till's own shelf price", field=f"charged_minor[{at}]")


def as_charged(line: PricedLine, charged_minor: int) -> tuple[PricedLine, Found | None]:
    """The line as it was sold, and how that differs from what the books would have asked.

    What the till took off is explained by the quoted discounts, in the order of evaluation and each as a whole, as far
    as it reaches; the rest is the till's own.
    """
    if charged_minor == line.net_minor:
        return line, None
    found = Found(
        reason=Difference.PRICE_DIFFERS,
        line_id=line.line_id,
        difference=charged_minor - line.net_minor,
        detail=f"charged {charged_minor}, priced {line.net_minor}",
    )
    # a list price below the charge is not what the customer saw on the shelf
    shelf_minor = max(line.shelf_minor, charged_minor)
    left_minor = shelf_minor - charged_minor
    shares: list[tuple[Discount, int]] = []
    for discount, share_minor in line.shares:
        if share_minor <= left_minor:
            shares.append((discount, share_minor))
            left_minor -= share_minor
    if left_minor:
        shares.append((TILL_DISCOUNT, left_minor))
    return replace(line, shelf_minor=shelf_minor, shares=tuple(shares)), found


def without_coupons(line: PricedLine, coupon_ids: frozenset[str]) -> PricedLine:
    """The line with the shares of these coupons as the till's own: their use could not be claimed."""
    moved_minor = sum(share for discount, share in line.shares if discount.coupon_id in coupon_ids)
    if not moved_minor:
        return line
    kept = [(discount, share) for discount, share in line.shares if discount.coupon_id not in coupon_ids]
    own_minor = moved_minor + sum(share for discount, share in kept if discount == TILL_DISCOUNT)
    others = [(discount, share) for discount, share in kept if discount != TILL_DISCOUNT]
    return replace(line, shares=(*others, (TILL_DISCOUNT, own_minor)))
