"""What loyalty tells the others."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PointsPosted:
    """An order's payment or refund was posted; `version` is the order's."""

    member_id: str
    point_currency: str
    order_id: str
    earned_points: int
    taken_back_points: int
    given_back_points: int
    shortfall_points: int
    version: int
    occurred_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TierChanged:
    """A member's tier changed; `version` is the standing's."""

    member_id: str
    point_currency: str
    from_tier_id: str
    to_tier_id: str
    changed_at: datetime
    version: int


LoyaltyEvent = PointsPosted | TierChanged
