"""What commerce asks of the other services, in its own words. Tests give fakes; `convert.peers` calls the services.

Every method raises what the peer refused, and Unavailable or TimedOut where the outcome is unknown: the same call may
then be repeated with the same ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.commerce.domain.freezing import PointsValue
from services.commerce.domain.orders import Discount
from services.commerce.domain.saga import BudgetUse, CouponUse, Step
from services.commerce.domain.stores import Store
from services.runtime.call import Call
from services.runtime.ids import MemberId, Sku, StoreId

Candidate = tuple[int, str, int, str]
"""Source, id, amount off in minor units, reason of rejection (empty: applied)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identifier:
    """What names a member in one channel; `type` is identity's number."""

    type: int
    issuer: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteLine:
    """A line to be discounted."""

    line_id: str
    sku: Sku
    category: str
    quantity: int
    price_quantity: int
    shelf_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteBasket:
    """A basket for campaign's engine."""

    member_id: MemberId
    store_id: str
    channel: str
    occurred_at: datetime
    currency_code: str
    lines: tuple[QuoteLine, ...]
    coupon_codes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """Each line's shares of discounts, in the order of the basket's lines; what to hold; every candidate explained."""

    shares: tuple[tuple[tuple[Discount, int], ...], ...]
    candidates: tuple[Candidate, ...]
    coupons: tuple[CouponUse, ...]
    budgets: tuple[BudgetUse, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EarningLine:
    """A line as far as points go."""

    line_id: str
    sku: Sku
    category: str
    quantity: int
    accrual_base_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Programme:
    """What commerce needs to know of a points programme."""

    value: PointsValue
    return_window_days: int


class Members(Protocol):
    """identity's members."""

    async def resolve(self, call: Call, identifier: Identifier) -> MemberId:
        """The surviving member. Raises Missing (MEMBER_NOT_FOUND)."""
        ...

    async def survivor(self, call: Call, member_id: MemberId) -> MemberId:
        """The member that an id leads to. Raises Missing (MEMBER_NOT_FOUND)."""
        ...


class Stores(Protocol):
    """identity's stores."""

    async def find(self, call: Call, store_id: StoreId) -> Store | None:
        """The store as it is now, within a bounded time; None if the brand has none of this id."""
        ...


class Offers(Protocol):
    """campaign."""

    async def quote(self, call: Call, basket: QuoteBasket) -> Quote:
        """The best allowed total; nothing is stored."""
        ...

    async def hold(self, call: Call, step: Step, *, occurred_at: datetime) -> None:
        """Holds the step's coupons and budgets, all or none; a repeated call answers the same."""
        ...

    async def capture(self, call: Call, step: Step) -> None:
        """Spends the step's hold."""
        ...

    async def void(self, call: Call, step: Step) -> None:
        """Gives the step's hold back, also one that never came."""
        ...


class Points(Protocol):
    """loyalty."""

    async def programme(self, call: Call, point_currency: str) -> Programme | None:
        """The programme in force, as it was at most some seconds ago; None if there is none."""
        ...

    async def earned(
        self,
        call: Call,
        *,
        member_id: MemberId,
        point_currency: str,
        lines: Sequence[EarningLine],
        occurred_at: datetime,
        store_id: str,
    ) -> int:
        """Points that the order would earn."""
        ...

    async def available(self, call: Call, *, member_id: MemberId, point_currency: str) -> int:
        """Points that the member can spend now."""
        ...

    async def hold(self, call: Call, step: Step) -> None:
        """Holds the step's points; a repeated call answers the same. Raises Refused (INSUFFICIENT_POINTS)."""
        ...

    async def capture(self, call: Call, step: Step) -> None:
        """Spends the step's hold."""
        ...

    async def void(self, call: Call, step: Step) -> None:
        """Gives the step's hold back, also one that never came."""
        ...


class Followers(Protocol):
    """The consumers of commerce's events in other services."""

    async def behind(self, call: Call, *, partition: int, seq: int) -> tuple[str, ...]:
        """Which queues, e.g. "loyalty/accrual", have not yet taken the log's row `seq` of the partition."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """All of them."""

    members: Members
    stores: Stores
    offers: Offers
    points: Points
    followers: Followers
