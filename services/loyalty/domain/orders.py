"""An order as it was accrued, and the exact inverse of it, line by line and unit by unit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from services.loyalty.domain.accrual import Line, share_of_units


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidOrder:
    """A payment as commerce tells it. `hold_id` was captured for it; `offline_burnt_points` no hold covers yet."""

    order_id: str
    member_id: str
    point_currency: str
    store_id: str
    channel: str
    occurred_at: datetime
    lines: tuple[Line, ...]
    burnt_points: int
    hold_id: str
    offline_burnt_points: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundedUnits:
    """Units of a line that came back, and the points that go back for them."""

    line_id: str
    quantity: int
    returned_points: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """A refund as commerce tells it."""

    order_id: str
    refund_id: str
    member_id: str
    point_currency: str
    occurred_at: datetime
    lines: tuple[RefundedUnits, ...]
    whole_order: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AccruedOrder:
    """What is kept of an order. Tuples are in line order; `line_points` has one tuple a rule, beside `earning_ids`.

    `undrawn_points` is the part of the burnt that an off-line sale told of and the member did not have, where the
    programme forbids debt. `shortfall_points` reports it, with what refunds could not take back.
    """

    order_id: str
    member_id: str
    point_currency: str
    store_id: str
    occurred_at: datetime
    sold_on: date
    programme_version: int
    line_ids: tuple[str, ...]
    quantities: tuple[int, ...]
    refunded_quantities: tuple[int, ...]
    line_bases: tuple[int, ...]
    earning_ids: tuple[str, ...]
    line_points: tuple[tuple[int, ...], ...]
    burnt_points: int
    hold_id: str
    refunded_base_minor: int = 0
    returned_points: int = 0
    shortfall_points: int = 0
    undrawn_points: int = 0
    wholly_refunded: bool = False
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Inverse:
    """What a refund undoes: points to give back, points to take back of each earning, and what leaves the counters."""

    order: AccruedOrder
    given_points: int
    taken: tuple[tuple[str, int], ...]
    base_minor: int
    leaves_count: bool

    @property
    def taken_points(self) -> int:
        """Points to take back over all earnings."""
        return sum(points for _, points in self.taken)


def invert(order: AccruedOrder, lines: Sequence[RefundedUnits], *, whole_order: bool) -> Inverse:
    """The exact inverse of the units, which return first-sold first, and the order as it is afterwards.

    An order that was refunded line by line ends as if it had never been.
    """
    refunded = list(order.refunded_quantities)
    taken = [0] * len(order.earning_ids)
    base_minor = 0
    given = 0
    for units in lines:
        i = order.line_ids.index(units.line_id)
        quantity, before = order.quantities[i], refunded[i]
        more = min(units.quantity, quantity - before)
        base_minor += share_of_units(order.line_bases[i], quantity=quantity, before=before, units=more)
        for j, points in enumerate(order.line_points):
            taken[j] += share_of_units(points[i], quantity=quantity, before=before, units=more)
        refunded[i] = before + more
        given += units.returned_points
    # commerce tells the points of each unit; what it would give beyond the burnt is not ours to give
    told = min(given, order.burnt_points - order.returned_points) if order.hold_id else 0
    # what was drawn last goes back first, and after the last lot came what was never drawn: it goes back to nobody
    given = max(0, order.returned_points + told - order.undrawn_points)
    given -= max(0, order.returned_points - order.undrawn_points)
    nothing_left = whole_order or refunded == list(order.quantities)
    after = replace(
        order,
        refunded_quantities=tuple(refunded),
        refunded_base_minor=order.refunded_base_minor + base_minor,
        returned_points=order.returned_points + told,
        wholly_refunded=order.wholly_refunded or nothing_left,
        version=order.version + 1,
    )
    return Inverse(
        order=after,
        given_points=given,
        taken=tuple((earning, points) for earning, points in zip(order.earning_ids, taken, strict=True) if points),
        base_minor=base_minor,
        leaves_count=nothing_left and not order.wholly_refunded,
    )
