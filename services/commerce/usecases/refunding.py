"""Refunds: the exact inverse of the sale, in one transaction with everything that follows from it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from services.commerce.domain import orders as order_rules
from services.commerce.domain import refunds as refund_rules
from services.commerce.domain import stock as stock_rules
from services.commerce.domain import suppliers as supplier_rules
from services.commerce.domain.events import Event, LineRefunded, SupplierOrderChanged
from services.commerce.domain.moments import MAX_AHEAD
from services.commerce.domain.orders import Order, OrderEvent, OrderState
from services.commerce.domain.refunds import Refund, UnitsToRefund
from services.commerce.domain.splits import refund_entries
from services.commerce.domain.suppliers import SETTLED_STATES, SupplierOrder
from services.commerce.store import refunds, settlement, stock, suppliers
from services.commerce.usecases import booking
from services.commerce.usecases.placing import check_own_store
from services.commerce.usecases.shop import Shop
from services.runtime.call import Call
from services.runtime.database import Connection
from services.runtime.errors import Invalid
from services.runtime.idempotency import Once
from services.runtime.ids import OrderId, RefundId, Sku, new_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Refunded:
    """The refund, and the order after it."""

    refund: Refund
    order: Order


@dataclass(frozen=True, slots=True, kw_only=True)
class Refunding:
    """What a caller wants refunded."""

    order_id: OrderId
    lines: tuple[UnitsToRefund, ...]
    reason: str
    occurred_at: datetime | None


async def refund(shop: Shop, call: Call, asked: Refunding, once: Once[Refunded]) -> bytes:
    """Refunds units of lines; the encoded refund, the same for a repeated request.

    Raises UnknownOrder (also for another store's), OrderNotPaid, UnknownLine, UnitsAlreadyRefunded, Invalid for a line
    that stands twice, or for a time before the sale's or more than a day ahead.
    """
    if len({line.line_id for line in asked.lines}) < len(asked.lines):
        raise Invalid("a line stands twice", field="lines")

    async def work(connection: Connection) -> Refunded:
        stored = await booking.locked(connection, call.tenant_id, asked.order_id)
        check_own_store(call, stored.order)
        order = stored.order
        theirs: tuple[SupplierOrder, ...] = ()
        if any(line.supplier_id for line in order.lines):
            theirs = await suppliers.lock_of_order(connection, call.tenant_id, order.order_id)
        made, after = refund_rules.refund(
            order,
            asked.lines,
            refund_id=RefundId(new_id()),
            reason=asked.reason,
            occurred_at=_happened(call, asked.occurred_at, order),
        )
        current = supplier_rules.give_back_all(theirs, {line.line_no: line.quantity for line in made.lines})
        after = handed_over(after, current)
        await post(connection, shop, call, made, order=order, after=after, theirs=(theirs, current))
        return Refunded(refund=made, order=after)

    return await once.run(shop.database, work)


def _happened(call: Call, asked_at: datetime | None, order: Order) -> datetime:
    """When the refund happened. Raises Invalid for a time before the sale's, or more than a day ahead."""
    if asked_at is None:
        # a till whose clock is ahead may have sold a little later than now
        return max(order.occurred_at, call.now)
    if asked_at < order.occurred_at:
        raise Invalid("before the sale that it refunds", field="occurred_at")
    if asked_at > call.now + MAX_AHEAD:
        raise Invalid("more than a day ahead of the business time", field="occurred_at")
    return asked_at


async def post(
    connection: Connection,
    shop: Shop,
    call: Call,
    made: Refund,
    *,
    order: Order,
    after: Order,
    theirs: tuple[Sequence[SupplierOrder], Sequence[SupplierOrder]],
    reason: str = "",
) -> None:
    """Writes a refund of a locked order: tenders, split reversal, supplier orders, events, and goods that come back.

    `theirs` are the supplier orders before and after it; what is new among the latter is the caller's to write.
    """
    await refunds.write(connection, call.tenant_id, made, after)
    if any(order.lines[line.line_no].supplier_id for line in made.lines):
        sale = await settlement.of_sale(connection, call.tenant_id, order.order_id)
        entries = [
            entry
            for line in made.lines
            for entry in refund_entries(
                sale,
                order.lines[line.line_no],
                line,
                before=supplier_rules.holdings(theirs[0], line.line_no),
                after=supplier_rules.holdings(theirs[1], line.line_no),
            )
        ]
        await settlement.post(
            connection,
            call.tenant_id,
            order.order_id,
            entries,
            line_ids=[line.line_id for line in order.lines],
            occurred_at=made.occurred_at,
            refund_no=made.refund_no,
            refund_id=made.refund_id,
        )
    events: list[Event] = [LineRefunded(order=after, refund=made)]
    known = {each.supplier_order_id: each for each in theirs[0]}
    for supplier_order in theirs[1]:
        before = known.get(supplier_order.supplier_order_id)
        if before is None or before == supplier_order:
            continue
        await suppliers.write(connection, call.tenant_id, supplier_order, reason=reason)
        if supplier_order.version != before.version:
            events.append(SupplierOrderChanged(supplier_order=supplier_order, occurred_at=made.occurred_at))
    await shop.outbox.append(connection, call, *events)
    await _bring_back(connection, call, made, order)


def handed_over(order: Order, supplier_orders: Sequence[SupplierOrder]) -> Order:
    """The order, fulfilled if no supplier has anything left to do for it: nothing to answer, to ship or under way."""
    waiting = order.state in {OrderState.PAID, OrderState.FULFILLING}
    if not waiting or not supplier_orders or any(each.state not in SETTLED_STATES for each in supplier_orders):
        return order
    return replace(order, state=order_rules.advance(order.state, OrderEvent.HAND_OVER, order_id=order.order_id))


async def _bring_back(connection: Connection, call: Call, made: Refund, order: Order) -> None:
    returned: dict[Sku, int] = {}
    for line in made.lines:
        if line.restock:
            sku = order.lines[line.line_no].sku
            returned[sku] = returned.get(sku, 0) + line.quantity
    if not returned:
        return
    returned = dict(sorted(returned.items()))
    levels = await stock.lock(connection, call.tenant_id, order.store_id, list(returned), make=True)
    cause = stock.Cause(
        order_id=order.order_id, refund_id=made.refund_id, reason=made.reason, occurred_at=made.occurred_at
    )
    await stock.write(connection, call.tenant_id, order.store_id, stock_rules.bring_back(levels, returned), cause)
