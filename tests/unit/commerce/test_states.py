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
    assert {state for state, _ in saga.TRANSITIONS} & RESOLVED == {StepState.REFUSED}


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
    first, sent = suppliers.ship(accepted, {"0": 2})
    assert (first.state, sent) == (SupplierOrderState.ACCEPTED, ((0, 2),))
    reduced = suppliers.give_back(first, {0: 5})
    assert reduced is not None
    assert reduced.lines[0].refunded_quantity == 1
    rest, sent = suppliers.ship(reduced, {})
    assert (rest.state, sent) == (SupplierOrderState.SHIPPED, ((1, 2),))
    assert suppliers.give_back(rest, {0: 1}) is None
