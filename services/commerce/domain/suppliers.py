"""Supplier orders: what was asked for, accepted, shipped, and what the customer got back instead."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Final

from services.commerce.domain.orders import Line
from services.commerce.domain.refusals import (
    MoreThanAsked,
    SupplierOrderNotAccepted,
    SupplierOrderNotOpen,
    TooManyUnits,
    UnknownLine,
    UnknownParcel,
)
from services.runtime.errors import Refused
from services.runtime.ids import OrderId, Sku, SupplierId, SupplierOrderId

DEFAULT_ACCEPT_WITHIN_S: Final = 86_400
NOTHING_REPLACED: Final = SupplierOrderId("")
DEFAULT_SHIP_WITHIN_S: Final = 7 * 86_400
"""What was accepted and is not shipped by then is for a person to see: neither silence nor a refund behind its back."""
DEFAULT_DELIVER_WITHIN_S: Final = 10 * 86_400
"""A parcel that nobody says was delivered, or complained about, counts as delivered then; as the marketplaces do."""


class SupplierOrderState(IntEnum):
    """The numbers stand in the database and in the contract."""

    PENDING = 1
    REQUESTED = 2
    ACCEPTED = 3
    PARTLY_ACCEPTED = 4
    REJECTED = 5
    TIMED_OUT = 6
    SHIPPED = 7
    DELIVERED = 8
    CANCELLED = 9


class SupplierEvent(StrEnum):
    """What happens to a supplier order."""

    REQUEST = "request"
    ACCEPT = "accept"
    ACCEPT_PART = "accept part"
    REJECT = "reject"
    TIME_OUT = "time out"
    SHIP_PART = "ship part"
    SHIP_REST = "ship rest"
    DELIVER_PART = "deliver part"
    DELIVER_REST = "deliver rest"
    REFUND_REST = "refund rest"


OPEN_STATES: Final = frozenset(
    {
        SupplierOrderState.PENDING,
        SupplierOrderState.REQUESTED,
        SupplierOrderState.ACCEPTED,
        SupplierOrderState.PARTLY_ACCEPTED,
    }
)
SETTLED_STATES: Final = frozenset(
    {
        SupplierOrderState.REJECTED,
        SupplierOrderState.TIMED_OUT,
        SupplierOrderState.DELIVERED,
        SupplierOrderState.CANCELLED,
    }
)
"""The supplier has nothing left to do: no unit is to be answered, shipped or delivered."""
_S = SupplierOrderState
_E = SupplierEvent

TRANSITIONS: Mapping[tuple[SupplierOrderState, SupplierEvent], SupplierOrderState] = {
    (_S.PENDING, _E.REQUEST): _S.REQUESTED,
    (_S.PENDING, _E.REFUND_REST): _S.CANCELLED,
    (_S.REQUESTED, _E.ACCEPT): _S.ACCEPTED,
    (_S.REQUESTED, _E.ACCEPT_PART): _S.PARTLY_ACCEPTED,
    (_S.REQUESTED, _E.REJECT): _S.REJECTED,
    (_S.REQUESTED, _E.TIME_OUT): _S.TIMED_OUT,
    (_S.REQUESTED, _E.REFUND_REST): _S.CANCELLED,
    (_S.ACCEPTED, _E.SHIP_PART): _S.ACCEPTED,
    (_S.ACCEPTED, _E.SHIP_REST): _S.SHIPPED,
    (_S.ACCEPTED, _E.REFUND_REST): _S.CANCELLED,
    (_S.PARTLY_ACCEPTED, _E.SHIP_PART): _S.PARTLY_ACCEPTED,
    (_S.PARTLY_ACCEPTED, _E.SHIP_REST): _S.SHIPPED,
    (_S.PARTLY_ACCEPTED, _E.REFUND_REST): _S.CANCELLED,
    # a parcel may arrive while others are still to be shipped
    (_S.ACCEPTED, _E.DELIVER_PART): _S.ACCEPTED,
    (_S.PARTLY_ACCEPTED, _E.DELIVER_PART): _S.PARTLY_ACCEPTED,
    (_S.SHIPPED, _E.DELIVER_PART): _S.SHIPPED,
    (_S.SHIPPED, _E.DELIVER_REST): _S.DELIVERED,
}

_REFUSALS: Mapping[SupplierEvent, type[Refused]] = {
    _E.ACCEPT: SupplierOrderNotOpen,
    _E.ACCEPT_PART: SupplierOrderNotOpen,
    _E.REJECT: SupplierOrderNotOpen,
    _E.SHIP_PART: SupplierOrderNotAccepted,
    _E.SHIP_REST: SupplierOrderNotAccepted,
}


def advance(state: SupplierOrderState, event: SupplierEvent, *, supplier_order_id: str) -> SupplierOrderState:
    """The state after the event. Raises SupplierOrderNotOpen or SupplierOrderNotAccepted for a supplier's call."""
    after = TRANSITIONS.get((state, event))
    if after is not None:
        return after
    refusal = _REFUSALS.get(event)
    assert refusal is not None, f"{event} of supplier order {supplier_order_id} in {state.name}"
    raise refusal(
        f"supplier order {supplier_order_id} is {state.name.lower()}", subject=f"supplier_order/{supplier_order_id}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Supplier:
    """A supplier. A request must be answered within `accept_within_s` of business time.

    What was accepted must be shipped within `ship_within_s`, or people are told.

    What is shipped counts as delivered `deliver_within_s` after the last parcel, whether or not anybody says so.
    """

    supplier_id: SupplierId
    display_name: str
    accept_within_s: int = DEFAULT_ACCEPT_WITHIN_S
    deliver_within_s: int = DEFAULT_DELIVER_WITHIN_S
    ship_within_s: int = DEFAULT_SHIP_WITHIN_S


@dataclass(frozen=True, slots=True, kw_only=True)
class SupplierLine:
    """Units of one line. `refunded_quantity` counts units that the customer got back instead of a parcel.

    `rerouted_quantity` are units that another supplier was asked for instead, `returned_quantity` shipped ones that
    came back. `cost_minor` is what a next source asks per `price_quantity` units; 0: the product's own supplier.
    """

    line_no: int
    line_id: str
    sku: Sku
    quantity: int
    accepted_quantity: int = 0
    shipped_quantity: int = 0
    refunded_quantity: int = 0
    rerouted_quantity: int = 0
    returned_quantity: int = 0
    cost_minor: int = 0

    @property
    def open_quantity(self) -> int:
        """Units that are neither shipped, refunded nor re-routed."""
        return self.quantity - self.shipped_quantity - self.refunded_quantity - self.rerouted_quantity

    @property
    def held_quantity(self) -> int:
        """Units that the customer has, or will have, from this supplier: what it is paid for."""
        return self.open_quantity + self.shipped_quantity - self.returned_quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """What a supplier sent: units by line number. Times are business time; `delivered_at` None: under way."""

    parcel_no: int
    units: tuple[tuple[int, int], ...]
    carrier: str
    tracking_number: str
    shipped_at: datetime
    delivered_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SupplierOrder:
    """A supplier's part of an order; `accept_by`, `requested_at`, `ship_by` and `deliver_by` are business time.

    `ship_within_s` and `deliver_within_s` are the supplier's when it was asked; `ship_by` runs from its acceptance, and
    `deliver_by` from the last parcel. `replaces` is
    the supplier order whose units these were; empty: the first that was asked.
    """

    supplier_order_id: SupplierOrderId
    order_id: OrderId
    supplier_id: SupplierId
    state: SupplierOrderState
    version: int
    lines: tuple[SupplierLine, ...]
    requested_at: datetime | None = None
    accept_by: datetime | None = None
    deliver_within_s: int = DEFAULT_DELIVER_WITHIN_S
    deliver_by: datetime | None = None
    ship_within_s: int = DEFAULT_SHIP_WITHIN_S
    ship_by: datetime | None = None
    parcels: tuple[Parcel, ...] = ()
    replaces: SupplierOrderId = NOTHING_REPLACED


def lines_by_supplier(lines: Sequence[Line]) -> dict[SupplierId, tuple[SupplierLine, ...]]:
    """What each supplier must ship of an order."""
    by_supplier: dict[SupplierId, tuple[SupplierLine, ...]] = {}
    for line in lines:
        if line.supplier_id:
            asked = SupplierLine(line_no=line.line_no, line_id=line.line_id, sku=line.sku, quantity=line.quantity)
            by_supplier[line.supplier_id] = (*by_supplier.get(line.supplier_id, ()), asked)
    return by_supplier


def request(
    order: SupplierOrder,
    *,
    now: datetime,
    accept_within_s: int,
    deliver_within_s: int = DEFAULT_DELIVER_WITHIN_S,
    ship_within_s: int = DEFAULT_SHIP_WITHIN_S,
) -> SupplierOrder:
    """Handed to the supplier, who must answer in time."""
    return replace(
        order,
        state=advance(order.state, _E.REQUEST, supplier_order_id=order.supplier_order_id),
        version=order.version + 1,
        requested_at=now,
        accept_by=now + timedelta(seconds=accept_within_s),
        deliver_within_s=deliver_within_s,
        ship_within_s=ship_within_s,
    )


def accept(
    order: SupplierOrder, units: Mapping[str, int], *, now: datetime, rerouted: Collection[str] = ()
) -> tuple[SupplierOrder, dict[str, int]]:
    """The order after the supplier's answer, and the units per line id that it does not ship.

    Those of the lines in `rerouted` go to another source, the others back to the customer's money. `units` per line id;
    empty: everything. A line that is not named is not accepted, and nothing at all is a rejection.
    Raises SupplierOrderNotOpen (also past `accept_by`), UnknownLine, MoreThanAsked.
    """
    _check_in_time(order, now=now)
    _check_lines(order, units)
    taken = {line.line_id: units.get(line.line_id, 0) if units else line.open_quantity for line in order.lines}
    for line in order.lines:
        if taken[line.line_id] > line.open_quantity:
            raise MoreThanAsked(line.line_id, most=line.open_quantity)
    refused = {
        line.line_id: line.open_quantity - taken[line.line_id]
        for line in order.lines
        if line.open_quantity > taken[line.line_id]
    }
    event = _E.REJECT if not any(taken.values()) else _E.ACCEPT_PART if refused else _E.ACCEPT
    state = advance(order.state, event, supplier_order_id=order.supplier_order_id)
    lines = tuple(
        replace(_without(line, refused, rerouted), accepted_quantity=taken[line.line_id]) for line in order.lines
    )
    answered = replace(order, state=state, version=order.version + 1, lines=lines)
    if event is not _E.REJECT:
        answered = replace(answered, ship_by=now + timedelta(seconds=order.ship_within_s))
    return answered, refused


def refuse(
    order: SupplierOrder, event: SupplierEvent, *, now: datetime, rerouted: Collection[str] = ()
) -> tuple[SupplierOrder, dict[str, int]]:
    """The order after a rejection or time-out, and its units per line id: refunded or, in `rerouted`, re-routed."""
    assert event in {_E.REJECT, _E.TIME_OUT}
    if event is _E.REJECT:
        _check_in_time(order, now=now)
    state = advance(order.state, event, supplier_order_id=order.supplier_order_id)
    refused = {line.line_id: line.open_quantity for line in order.lines if line.open_quantity}
    lines = tuple(_without(line, refused, rerouted) for line in order.lines)
    return replace(order, state=state, version=order.version + 1, lines=lines), refused


def _without(line: SupplierLine, refused: Mapping[str, int], rerouted: Collection[str]) -> SupplierLine:
    units = refused.get(line.line_id, 0)
    if line.line_id in rerouted:
        return replace(line, rerouted_quantity=line.rerouted_quantity + units)
    return replace(line, refunded_quantity=line.refunded_quantity + units)


def open_units(order: SupplierOrder) -> int:
    """Units that are still to be answered or shipped."""
    return sum(line.open_quantity for line in order.lines)


def chain_of(order: SupplierOrder, theirs: Sequence[SupplierOrder]) -> tuple[SupplierOrder, ...]:
    """The order and all that it replaces, the first that was asked in front."""
    by_id = {each.supplier_order_id: each for each in theirs}
    chain = [order]
    while chain[-1].replaces:
        chain.append(by_id[chain[-1].replaces])
        assert len(chain) <= len(by_id), "a supplier order replaces itself"
    return tuple(reversed(chain))


def in_order_asked(theirs: Sequence[SupplierOrder]) -> tuple[SupplierOrder, ...]:
    """Each after what it replaces; the order among the others is that of their ids."""
    return tuple(sorted(theirs, key=lambda each: (len(chain_of(each, theirs)), each.supplier_order_id)))


def holdings(theirs: Sequence[SupplierOrder], line_no: int) -> tuple[tuple[SupplierId, int], ...]:
    """Who holds how many units of a line, in the order in which they were asked; they sum to what is not refunded."""
    return tuple(
        (order.supplier_id, line.held_quantity)
        for order in in_order_asked(theirs)
        for line in order.lines
        if line.line_no == line_no
    )


def give_back_all(theirs: Sequence[SupplierOrder], units: Mapping[int, int]) -> tuple[SupplierOrder, ...]:
    """An order's supplier orders after the customer was refunded units by line number.

    What is not shipped yet goes first, from who was asked last; then shipped units are returns, from who was asked
    first. A return changes what the supplier is paid for, and neither its state nor its version.
    """
    left = dict(units)
    asked = in_order_asked(theirs)
    after = {order.supplier_order_id: order for order in asked}
    for order in reversed(asked):
        reduced = give_back(order, left)
        if reduced is not None:
            for line, was in zip(reduced.lines, order.lines, strict=True):
                left[line.line_no] = left.get(line.line_no, 0) - line.refunded_quantity + was.refunded_quantity
            after[order.supplier_order_id] = reduced
    for order in asked:
        current = after[order.supplier_order_id]
        lines = []
        for line in current.lines:
            back = min(left.get(line.line_no, 0), line.shipped_quantity - line.returned_quantity)
            left[line.line_no] = left.get(line.line_no, 0) - back
            lines.append(replace(line, returned_quantity=line.returned_quantity + back))
        after[order.supplier_order_id] = replace(current, lines=tuple(lines))
    return tuple(after[order.supplier_order_id] for order in theirs)


def ship(
    order: SupplierOrder, units: Mapping[str, int], *, now: datetime, carrier: str = "", tracking_number: str = ""
) -> SupplierOrder:
    """The order after a parcel, its last; no units named: everything that is open. `now` is business time.

    The parcel's number is the order's version after it. Raises SupplierOrderNotAccepted, UnknownLine, TooManyUnits.
    """
    advance(order.state, _E.SHIP_PART, supplier_order_id=order.supplier_order_id)
    _check_lines(order, units)
    parcel = {line.line_no: units.get(line.line_id, 0) if units else line.open_quantity for line in order.lines}
    for line in order.lines:
        if parcel[line.line_no] > line.open_quantity:
            raise TooManyUnits(
                f"{line.open_quantity} units of line {line.line_id!r} are accepted and not shipped",
                subject=f"line/{line.line_id}",
                metadata={"line_id": line.line_id},
            )
    if not any(parcel.values()):
        raise TooManyUnits("the parcel is empty", subject=f"supplier_order/{order.supplier_order_id}")
    lines = tuple(replace(line, shipped_quantity=line.shipped_quantity + parcel[line.line_no]) for line in order.lines)
    sent = Parcel(
        parcel_no=order.version + 1,
        units=tuple((line_no, quantity) for line_no, quantity in parcel.items() if quantity),
        carrier=carrier,
        tracking_number=tracking_number,
        shipped_at=now,
    )
    shipped = replace(
        order,
        version=order.version + 1,
        lines=lines,
        parcels=(*order.parcels, sent),
        deliver_by=now + timedelta(seconds=order.deliver_within_s),
    )
    return replace(shipped, state=_state_after_shipping(shipped))


def deliver(order: SupplierOrder, parcel_nos: Collection[int], *, at: datetime) -> SupplierOrder | None:
    """The order after these parcels arrived; None if all of them had: whoever says so first, says when.

    Raises UnknownParcel.
    """
    known = {parcel.parcel_no for parcel in order.parcels}
    for parcel_no in parcel_nos:
        if parcel_no not in known:
            raise UnknownParcel(parcel_no)
    parcels = tuple(
        replace(parcel, delivered_at=at) if parcel.parcel_no in parcel_nos and parcel.delivered_at is None else parcel
        for parcel in order.parcels
    )
    if parcels == order.parcels:
        return None
    return _arrived(replace(order, version=order.version + 1, parcels=parcels))


def undelivered(order: SupplierOrder) -> tuple[Parcel, ...]:
    """The parcels that are under way."""
    return tuple(parcel for parcel in order.parcels if parcel.delivered_at is None)


def give_back(order: SupplierOrder, units: Mapping[int, int]) -> SupplierOrder | None:
    """The order after the customer was refunded units by line number; None if it is as before.

    Units that are shipped already come back as a return and change nothing here.
    """
    if order.state not in OPEN_STATES:
        return None
    lines = tuple(
        replace(line, refunded_quantity=line.refunded_quantity + min(line.open_quantity, units.get(line.line_no, 0)))
        for line in order.lines
    )
    if lines == order.lines:
        return None
    reduced = replace(order, version=order.version + 1, lines=lines)
    if any(line.open_quantity for line in lines):
        return reduced
    shipped = any(line.shipped_quantity for line in lines)
    event = _E.SHIP_REST if shipped else _E.REFUND_REST
    done = replace(reduced, state=advance(order.state, event, supplier_order_id=order.supplier_order_id))
    # the last units to be shipped were refunded, and every parcel may have arrived before
    return done if undelivered(done) or not shipped else _arrived(done)


def _arrived(order: SupplierOrder) -> SupplierOrder:
    """The state after an arrival: delivered once all is shipped and nothing is under way."""
    rest = order.state is _S.SHIPPED and not undelivered(order)
    event = _E.DELIVER_REST if rest else _E.DELIVER_PART
    return replace(order, state=advance(order.state, event, supplier_order_id=order.supplier_order_id))


def _state_after_shipping(order: SupplierOrder) -> SupplierOrderState:
    event = _E.SHIP_PART if any(line.open_quantity for line in order.lines) else _E.SHIP_REST
    return advance(order.state, event, supplier_order_id=order.supplier_order_id)


def _check_in_time(order: SupplierOrder, *, now: datetime) -> None:
    # past its time it is timed out, whether or not the sweeper has come by
    if order.state is _S.REQUESTED and order.accept_by is not None and order.accept_by <= now:
        raise SupplierOrderNotOpen(
            f"supplier order {order.supplier_order_id} was to be answered until {order.accept_by.isoformat()}",
            subject=f"supplier_order/{order.supplier_order_id}",
        )


def _check_lines(order: SupplierOrder, units: Mapping[str, int]) -> None:
    known = {line.line_id for line in order.lines}
    for at, line_id in enumerate(units):
        if line_id not in known:
            raise UnknownLine(line_id, field=f"lines[{at}].line_id")
