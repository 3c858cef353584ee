"""State machines as data: the full product of every state and event."""

import itertools
from datetime import timedelta

import pytest

from services.commerce.domain import orders, saga, suppliers
from services.commerce.domain.orders import OrderEvent, OrderState
from services.commerce.domain.refusals import (
    OrderNotCancellable,
    OrderNotPaid,
    OrderNotPayable,
    SupplierOrderNotAccepted,
    SupplierOrderNotOpen,
    UnknownParcel,
)
from services.commerce.domain.saga import RESOLVED, StepEvent, StepState
from services.commerce.domain.suppliers import SupplierEvent, SupplierLine, SupplierOrder, SupplierOrderState
from services.runtime.ids import OrderId, Sku, SupplierId, SupplierOrderId
from tests.unit.commerce.sales import NOON

ASKED_BY_CALLERS = {
    OrderEvent.PAY: OrderNotPayable,
    OrderEvent.CANCEL: OrderNotCancellable,
    OrderEvent.REFUND: OrderNotPaid,
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(OrderState, OrderEvent)))
def test_orders(state: OrderState, event: OrderEvent) -> None:
    after = orders.TRANSITIONS.get((state, event))
    if after is not None:
        assert orders.advance(state, event, order_id="o") is after
        return
    with pytest.raises(ASKED_BY_CALLERS.get(event, AssertionError)):
        orders.advance(state, event, order_id="o")


def test_a_paid_order_never_becomes_unpaid() -> None:
    for (state, _), after in orders.TRANSITIONS.items():
        assert state not in orders.PAID_STATES or after in orders.PAID_STATES
    assert not [state for state, _ in orders.TRANSITIONS if state is OrderState.CANCELLED]


@pytest.mark.parametrize(("state", "event"), list(itertools.product(SupplierOrderState, SupplierEvent)))
def test_supplier_orders(state: SupplierOrderState, event: SupplierEvent) -> None:
    after = suppliers.TRANSITIONS.get((state, event))
    if after is not None:
        assert suppliers.advance(state, event, supplier_order_id="s") is after
        return
    refusals = (SupplierOrderNotOpen, SupplierOrderNotAccepted, AssertionError)
    with pytest.raises(refusals):
        suppliers.advance(state, event, supplier_order_id="s")


@pytest.mark.parametrize(("state", "event"), list(itertools.product(StepState, StepEvent)))
def test_steps(state: StepState, event: StepEvent) -> None:
    after = saga.TRANSITIONS.get((state, event))
    if after is None:
        with pytest.raises(AssertionError):
            saga.advance(state, event)
    else:
        assert saga.advance(state, event) is after


def test_every_step_can_be_resolved() -> None:
    for state in StepState:
        reached = {state}
        for _ in StepState:
            reached |= {after for (before, _), after in saga.TRANSITIONS.items() if before in reached}
        assert reached & RESOLVED
    assert not {state for state, _ in saga.TRANSITIONS} & RESOLVED


def test_a_worker_tries_for_ever_but_not_all_the_time() -> None:
    assert [saga.retry_after_s(attempts) for attempts in (0, 1, 2, 5, 50)] == [2, 4, 8, 60, 60]


# --- supplier orders ---


def asked(*quantities: int) -> SupplierOrder:
    lines = tuple(
        SupplierLine(line_no=at, line_id=str(at), sku=Sku("ROSE"), quantity=quantity)
        for at, quantity in enumerate(quantities)
    )
    pending = SupplierOrder(
        supplier_order_id=SupplierOrderId("s"),
        order_id=OrderId("o"),
        supplier_id=SupplierId("florist"),
        state=SupplierOrderState.PENDING,
        version=1,
        lines=lines,
    )
    return suppliers.request(pending, now=NOON, accept_within_s=3600)


@pytest.mark.parametrize(
    ("units", "state", "refused"),
    [
        pytest.param({}, SupplierOrderState.ACCEPTED, {}, id="everything"),
        pytest.param({"0": 3, "1": 2}, SupplierOrderState.ACCEPTED, {}, id="everything by name"),
        pytest.param({"0": 3}, SupplierOrderState.PARTLY_ACCEPTED, {"1": 2}, id="a line not named"),
        pytest.param({"0": 1, "1": 2}, SupplierOrderState.PARTLY_ACCEPTED, {"0": 2}, id="a part of a line"),
        pytest.param({"0": 0, "1": 0}, SupplierOrderState.REJECTED, {"0": 3, "1": 2}, id="nothing is a rejection"),
    ],
)
def test_answers(units: dict[str, int], state: SupplierOrderState, refused: dict[str, int]) -> None:
    answered, back = suppliers.accept(asked(3, 2), units, now=NOON)
    assert (answered.state, back) == (state, refused)
    assert all(line.accepted_quantity + line.refunded_quantity == line.quantity for line in answered.lines)


def test_an_answer_comes_in_time() -> None:
    order = asked(1)
    assert order.accept_by == NOON + timedelta(hours=1)
    with pytest.raises(SupplierOrderNotOpen):
        suppliers.accept(order, {}, now=NOON + timedelta(hours=1))
    late, refused = suppliers.refuse(order, SupplierEvent.TIME_OUT, now=NOON + timedelta(hours=1))
    assert (late.state, refused) == (SupplierOrderState.TIMED_OUT, {"0": 1})


def test_parcels_ship_what_is_left() -> None:
    accepted, _ = suppliers.accept(asked(3, 2), {}, now=NOON)
    first = suppliers.ship(accepted, {"0": 2}, now=NOON)
    assert (first.state, first.parcels[-1].units) == (SupplierOrderState.ACCEPTED, ((0, 2),))
    reduced = suppliers.give_back(first, {0: 5})
    assert reduced is not None
    assert reduced.lines[0].refunded_quantity == 1
    rest = suppliers.ship(reduced, {}, now=NOON + timedelta(days=1))
    assert (rest.state, rest.parcels[-1].units) == (SupplierOrderState.SHIPPED, ((1, 2),))
    assert rest.deliver_by == NOON + timedelta(days=11)
    assert suppliers.give_back(rest, {0: 1}) is None


# --- deliveries ---


def shipped(*parcels: dict[str, int]) -> SupplierOrder:
    order, _ = suppliers.accept(asked(3, 2), {}, now=NOON)
    for units in parcels:
        order = suppliers.ship(order, units, now=NOON)
    return order


@pytest.mark.parametrize(
    ("order", "arriving", "states"),
    [
        pytest.param(shipped({}), (0,), ("DELIVERED",), id="one parcel"),
        pytest.param(shipped({"0": 3}, {}), (0, 1), ("SHIPPED", "DELIVERED"), id="parcel by parcel"),
        pytest.param(shipped({"0": 3}, {}), (1, 0), ("SHIPPED", "DELIVERED"), id="in any order"),
        pytest.param(shipped({"0": 3}), (0,), ("ACCEPTED",), id="before the rest is shipped"),
    ],
)
def test_parcels_arrive(order: SupplierOrder, arriving: tuple[int, ...], states: tuple[str, ...]) -> None:
    for place, state in zip(arriving, states, strict=True):
        number = order.parcels[place].parcel_no
        after = suppliers.deliver(order, [number], at=NOON + timedelta(hours=1))
        assert after is not None
        assert (after.state.name, after.version) == (state, order.version + 1)
        # whoever tells first tells when
        assert suppliers.deliver(after, [number], at=NOON + timedelta(hours=2)) is None
        order = after
    assert {parcel.delivered_at for parcel in order.parcels} <= {None, NOON + timedelta(hours=1)}


def test_an_unknown_parcel_does_not_arrive() -> None:
    with pytest.raises(UnknownParcel):
        suppliers.deliver(shipped({}), [99], at=NOON)


def test_the_rest_is_refunded_after_all_parcels_arrived() -> None:
    order = shipped({"0": 3})
    arrived = suppliers.deliver(order, [order.parcels[0].parcel_no], at=NOON)
    assert arrived is not None
    done = suppliers.give_back(arrived, {1: 2})
    assert done is not None
    assert done.state is SupplierOrderState.DELIVERED
    waiting = suppliers.give_back(order, {1: 2})
    assert waiting is not None
    assert waiting.state is SupplierOrderState.SHIPPED


def test_every_supplier_order_can_be_settled() -> None:
    for state in SupplierOrderState:
        reached = {state}
        for _ in SupplierOrderState:
            reached |= {after for (before, _), after in suppliers.TRANSITIONS.items() if before in reached}
        assert reached & suppliers.SETTLED_STATES
    assert not {state for state, _ in suppliers.TRANSITIONS} & suppliers.SETTLED_STATES
