"""Writes orders: placed, paid, given up. Each function runs inside its caller's one transaction.

Rows are locked in one order by everybody: the order, its supplier orders, its saga, and its stock in SKU order, last,
since a SKU that sells well is what others wait for.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from services.commerce.domain import orders as domain
from services.commerce.domain import stock as stock_rules
from services.commerce.domain.events import Event, OrderCancelled, OrderPaid, SupplierOrderRequested
from services.commerce.domain.freezing import allocate_tenders
from services.commerce.domain.orders import Order, OrderEvent, OrderState, Payment
from services.commerce.domain.refusals import OrderNotPayable, UnknownOrder
from services.commerce.domain.saga import RESOLVED, Step, StepEvent, StepState
from services.commerce.domain.saga import advance as advance_step
from services.commerce.domain.splits import sale_entries
from services.commerce.domain.suppliers import SupplierOrder, SupplierOrderState, lines_by_supplier
from services.commerce.store import orders, settlement, steps, stock, suppliers
from services.commerce.store.orders import Attempt, Stored
from services.commerce.usecases.shop import Shop
from services.runtime.call import Call
from services.runtime.database import Connection
from services.runtime.errors import Conflict, DomainError
from services.runtime.holds import HoldState
from services.runtime.idempotency import refusal_to_json
from services.runtime.ids import OrderId, SupplierOrderId, new_id


def paid_with(order: Order, payments: Sequence[Payment]) -> Order:
    """The order with its payments, the points in front, allocated to its lines; they sum to what is due."""
    all_payments, lines = allocate_tenders(order.lines, payments)
    return replace(order, payments=all_payments, lines=lines)


async def place(
    connection: Connection, call: Call, order: Order, *, attempt: Attempt, saga: Sequence[Step], placed_at: datetime
) -> None:
    """Writes an order that waits for payment, its saga, and its reservation; all or nothing.

    `placed_at` is machine time, and when the saga's holds say they were asked for, at every attempt.
    Raises OutOfStock, and SaleRace if another call made the sale at this moment.
    """
    assert order.state is OrderState.PENDING_PAYMENT
    assert order.expires_at is not None
    assert all(step.issued_at == placed_at for step in saga), "a later attempt would ask for another hold"
    await orders.insert(connection, call.tenant_id, order, attempt, now=placed_at)
    await steps.insert(connection, call.tenant_id, order.order_id, saga)
    demand = stock_rules.demand_of(order.lines)
    if not demand:
        return
    levels = await stock.lock(connection, call.tenant_id, order.store_id, list(demand))
    movement = stock_rules.reserve(levels, demand)
    await stock.write(connection, call.tenant_id, order.store_id, movement, _cause(order))
    await stock.hold(
        connection,
        call.tenant_id,
        order.order_id,
        store_id=order.store_id,
        demand=demand,
        expires_at=order.expires_at,
    )


async def sell_at_once(connection: Connection, shop: Shop, call: Call, order: Order, *, attempt: Attempt) -> None:
    """Writes an order that is placed and paid in one go, since nothing had to be held for it.

    Raises OutOfStock, and SaleRace if another call made the sale at this moment.
    """
    await orders.insert(connection, call.tenant_id, order, attempt, now=shop.now())
    await after_payment(connection, shop, call, order)
    demand = stock_rules.demand_of(order.lines)
    if demand:
        levels = await stock.lock(connection, call.tenant_id, order.store_id, list(demand))
        movement = stock_rules.take(levels, demand)
        await stock.write(connection, call.tenant_id, order.store_id, movement, _cause(order))


async def pay(
    connection: Connection, shop: Shop, call: Call, stored: Stored, payments: Sequence[Payment], *, held: bool
) -> Order:
    """Pays a locked order: the pivot. Its reservation is taken and its captures are due from here on.

    `held` tells that the caller has just made the holds that the saga asked for. Raises OrderNotPayable, also past the
    order's time, and Conflict while another call is still making its holds.
    """
    order = stored.order
    state = domain.advance(order.state, OrderEvent.PAY, order_id=order.order_id)
    if order.expires_at is not None and order.expires_at <= shop.now():
        raise OrderNotPayable(
            f"order {order.order_id} was to be paid until {order.expires_at.isoformat()}; place it again",
            subject=f"order/{order.order_id}",
        )
    saga = await steps.of_order(connection, call.tenant_id, order.order_id)
    moves = []
    for step in saga:
        state_now = step.state
        if state_now is StepState.ASKED:
            if not held:
                raise Conflict("the order's holds are still being made; try again")
            state_now = advance_step(state_now, StepEvent.HOLD_MADE)
        moves.append((step.kind, step.state, advance_step(state_now, StepEvent.PAID)))
    paid = replace(paid_with(order, payments), state=state, version=order.version + 1, expires_at=None)
    await orders.pay(connection, call.tenant_id, paid, now=shop.now())
    await steps.move(connection, call.tenant_id, order.order_id, moves)
    await after_payment(connection, shop, call, paid)
    await _resolve_reservation(connection, call, paid, HoldState.CAPTURED)
    return paid


async def give_up(
    connection: Connection, shop: Shop, call: Call, stored: Stored, *, reason: str, refusal: DomainError
) -> Order:
    """Cancels a locked order that waits for payment: its goods go back and its voids are due.

    `refusal` is what a later retry of the placing request is told. Raises OrderNotCancellable.
    """
    order = stored.order
    state = domain.advance(order.state, OrderEvent.CANCEL, order_id=order.order_id)
    cancelled = replace(order, state=state, version=order.version + 1, expires_at=None)
    await orders.cancel(connection, call.tenant_id, cancelled, refusal=refusal_to_json(refusal))
    saga = await steps.of_order(connection, call.tenant_id, order.order_id)
    moves = [
        (step.kind, step.state, advance_step(step.state, StepEvent.GIVEN_UP))
        for step in saga
        if step.state not in RESOLVED
    ]
    await steps.move(connection, call.tenant_id, order.order_id, moves)
    await shop.outbox.append(connection, call, OrderCancelled(order=cancelled, reason=reason, occurred_at=call.now))
    await _resolve_reservation(connection, call, cancelled, HoldState.VOIDED)
    return cancelled


async def after_payment(connection: Connection, shop: Shop, call: Call, order: Order) -> None:
    """What follows from a payment in the same transaction: the split, the supplier orders, the events."""
    events: list[Event] = [OrderPaid(order=order)]
    supplied = lines_by_supplier(order.lines)
    if supplied:
        wanted = [(line.supplier_id, line.rule_version) for line in order.lines if line.supplier_id]
        rules = await settlement.rules(connection, call.tenant_id, wanted)
        await settlement.post(
            connection,
            call.tenant_id,
            order.order_id,
            sale_entries(order, rules),
            line_ids=[line.line_id for line in order.lines],
            occurred_at=order.occurred_at,
        )
        requests = [
            SupplierOrder(
                supplier_order_id=SupplierOrderId(new_id()),
                order_id=order.order_id,
                supplier_id=supplier_id,
                state=SupplierOrderState.PENDING,
                version=1,
                lines=lines,
            )
            for supplier_id, lines in supplied.items()
        ]
        await suppliers.insert(connection, call.tenant_id, order.order_id, requests)
        events += [
            SupplierOrderRequested(supplier_order=request, occurred_at=order.occurred_at) for request in requests
        ]
    await shop.outbox.append(connection, call, *events)


async def locked(connection: Connection, tenant_id: str, order_id: OrderId) -> Stored:
    """The order, locked. Raises UnknownOrder."""
    stored = await orders.lock(connection, tenant_id, order_id)
    if stored is None:
        raise UnknownOrder(order_id)
    return stored


async def _resolve_reservation(connection: Connection, call: Call, order: Order, state: HoldState) -> None:
    hold = await stock.find_hold(connection, call.tenant_id, order.order_id)
    if hold is None:
        return
    await stock.resolve_hold(connection, call.tenant_id, order.order_id, state)
    levels = await stock.lock(connection, call.tenant_id, hold.store_id, list(hold.demand))
    change = stock_rules.take_reserved if state is HoldState.CAPTURED else stock_rules.release
    await stock.write(connection, call.tenant_id, hold.store_id, change(levels, hold.demand), _cause(order))


def _cause(order: Order) -> stock.Cause:
    return stock.Cause(order_id=order.order_id, occurred_at=order.occurred_at)


def is_waiting_past(order: Order, *, now: datetime) -> bool:
    """Whether the order's time to be paid is over."""
    return order.state is OrderState.PENDING_PAYMENT and order.expires_at is not None and order.expires_at <= now
