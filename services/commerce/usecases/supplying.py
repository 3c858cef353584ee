"""Suppliers and their orders: asked by the fulfilment worker, answered by the supplier, or timed out by the sweeper.

What a supplier does not ship goes to the next source of the SKU where the brand's policy says so and there is one, else
it is refunded, in the transaction of the answer: a paid order that can't be fulfilled is never a silent state.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import structlog

from services.commerce.domain import orders as order_rules
from services.commerce.domain import refunds as refund_rules
from services.commerce.domain import sourcing
from services.commerce.domain import suppliers as rules
from services.commerce.domain.events import SupplierOrderChanged, SupplierOrderRequested
from services.commerce.domain.orders import Order, OrderEvent
from services.commerce.domain.refunds import UnitsToRefund
from services.commerce.domain.refusals import UnknownSupplierOrder
from services.commerce.domain.sourcing import OnUnfilled, Source
from services.commerce.domain.splits import SplitEntry, moved_entries
from services.commerce.domain.suppliers import (
    DEFAULT_ACCEPT_WITHIN_S,
    DEFAULT_DELIVER_WITHIN_S,
    DEFAULT_SHIP_WITHIN_S,
    Supplier,
    SupplierEvent,
    SupplierOrder,
    SupplierOrderState,
)
from services.commerce.store import orders, settlement, suppliers
from services.commerce.store import sourcing as sourcing_store
from services.commerce.usecases import booking, refunding
from services.commerce.usecases.shop import Shop
from services.runtime.call import Call
from services.runtime.database import Connection
from services.runtime.errors import Invalid, NotAllowed
from services.runtime.idempotency import Once
from services.runtime.ids import RefundId, SupplierId, SupplierOrderId, new_id

_log = structlog.get_logger(__name__)

_Locked = tuple[Order, tuple[SupplierOrder, ...], SupplierOrder]
Answer = Callable[[SupplierOrder, Collection[str]], tuple[SupplierOrder, Mapping[str, int]]]
"""The supplier order after the answer, and the units per line id that it does not ship; some lines are re-routed."""


async def put(shop: Shop, call: Call, supplier: Supplier, once: Once[Supplier]) -> bytes:
    """Makes or changes a supplier; times of 0 take the defaults."""
    known = replace(
        supplier,
        accept_within_s=supplier.accept_within_s or DEFAULT_ACCEPT_WITHIN_S,
        deliver_within_s=supplier.deliver_within_s or DEFAULT_DELIVER_WITHIN_S,
        ship_within_s=supplier.ship_within_s or DEFAULT_SHIP_WITHIN_S,
    )

    async def work(connection: Connection) -> Supplier:
        await suppliers.put(connection, call.tenant_id, known)
        return known

    return await once.run(shop.database, work)


async def page(
    shop: Shop, call: Call, *, supplier_id: SupplierId, state: int, after: str, limit: int
) -> tuple[SupplierOrder, ...]:
    """A supplier's orders, oldest first; state 0 is every one. Raises NotAllowed for another supplier's."""
    call.actor.check_supplier(supplier_id, field="supplier_id")

    async def read(connection: Connection) -> tuple[SupplierOrder, ...]:
        return await suppliers.page(
            connection, call.tenant_id, supplier_id=supplier_id, state=state, after=after, limit=limit
        )

    return await shop.database.read(call.tenant_id, read, timeout_s=call.remaining_s())


async def accept(
    shop: Shop,
    call: Call,
    supplier_order_id: SupplierOrderId,
    units: Mapping[str, int],
    once: Once[SupplierOrder],
) -> bytes:
    """The supplier's answer, per line; what is not accepted goes to the next source, or back to the customer's money.

    Raises UnknownSupplierOrder (also for another supplier's), SupplierOrderNotOpen, UnknownLine, MoreThanAsked.
    """

    async def work(connection: Connection) -> SupplierOrder:
        return await _answered(
            connection,
            shop,
            call,
            supplier_order_id,
            lambda order, rerouted: rules.accept(order, units, now=call.now, rerouted=rerouted),
            reason="not accepted",
        )

    return await once.run(shop.database, work)


async def reject(
    shop: Shop, call: Call, supplier_order_id: SupplierOrderId, *, reason: str, once: Once[SupplierOrder]
) -> bytes:
    """The supplier ships nothing; its units go to the next source, or back to the customer's money.

    Raises UnknownSupplierOrder (also for another supplier's), SupplierOrderNotOpen.
    """

    async def work(connection: Connection) -> SupplierOrder:
        return await _answered(
            connection,
            shop,
            call,
            supplier_order_id,
            lambda order, rerouted: rules.refuse(order, SupplierEvent.REJECT, now=call.now, rerouted=rerouted),
            reason=reason or "rejected",
        )

    return await once.run(shop.database, work)


async def ship(
    shop: Shop,
    call: Call,
    supplier_order_id: SupplierOrderId,
    units: Mapping[str, int],
    *,
    carrier: str,
    tracking_number: str,
    once: Once[SupplierOrder],
) -> bytes:
    """Records a parcel; no units: everything that is accepted and not shipped.

    Raises UnknownSupplierOrder (also for another supplier's), SupplierOrderNotAccepted, UnknownLine, TooManyUnits.
    """

    async def work(connection: Connection) -> SupplierOrder:
        _, _, asked = await _locked(connection, call, supplier_order_id)
        after = rules.ship(asked, units, now=call.now, carrier=carrier, tracking_number=tracking_number)
        await suppliers.write(connection, call.tenant_id, after)
        await suppliers.ship(connection, call.tenant_id, after, after.parcels[-1])
        await shop.outbox.append(connection, call, SupplierOrderChanged(supplier_order=after, occurred_at=call.now))
        return after

    return await once.run(shop.database, work)


async def deliver(
    shop: Shop,
    call: Call,
    supplier_order_id: SupplierOrderId,
    parcel_no: int,
    *,
    delivered_at: datetime | None,
    once: Once[SupplierOrder],
) -> bytes:
    """Records that a parcel arrived; what was told before stays as it is.

    Raises UnknownSupplierOrder (also for another supplier's), UnknownParcel, Invalid for a time before the parcel was
    shipped or after now.
    """
    at = delivered_at or call.now

    async def work(connection: Connection) -> SupplierOrder:
        locked = await _locked(connection, call, supplier_order_id)
        sent = next((each for each in locked[2].parcels if each.parcel_no == parcel_no), None)
        if sent is not None and not sent.shipped_at <= at <= call.now:
            raise Invalid("a parcel arrives after it was shipped, and not after now", field="delivered_at")
        return await _delivered(connection, shop, call, locked, [parcel_no], at=at)

    return await once.run(shop.database, work)


async def presume_delivered(shop: Shop, call: Call, supplier_order_id: SupplierOrderId) -> bool:
    """Takes all parcels of a shipped order as delivered once its time is over; False if somebody was first."""

    async def work(connection: Connection) -> bool:
        locked = await _locked(connection, call, supplier_order_id)
        shipped = locked[2]
        due = shipped.deliver_by is not None and shipped.deliver_by <= call.now
        if shipped.state is not SupplierOrderState.SHIPPED or not due:
            return False
        numbers = [parcel.parcel_no for parcel in rules.undelivered(shipped)]
        await _delivered(connection, shop, call, locked, numbers, at=call.now)
        return True

    return await shop.database.run(call.tenant_id, work)


async def _delivered(
    connection: Connection,
    shop: Shop,
    call: Call,
    locked: _Locked,
    parcel_nos: Sequence[int],
    *,
    at: datetime,
) -> SupplierOrder:
    order, theirs, shipped = locked
    after = rules.deliver(shipped, parcel_nos, at=at)
    if after is None:
        return shipped
    arrived = [parcel for parcel in rules.undelivered(shipped) if parcel.parcel_no in parcel_nos]
    await suppliers.write(connection, call.tenant_id, after)
    await suppliers.deliver(connection, call.tenant_id, after, arrived, delivered_at=at, told_by=call.actor.id)
    current = [after if each.supplier_order_id == after.supplier_order_id else each for each in theirs]
    done = refunding.handed_over(order, current)
    if done.state is not order.state:
        await orders.set_state(connection, call.tenant_id, replace(done, version=order.version + 1))
    await shop.outbox.append(connection, call, SupplierOrderChanged(supplier_order=after, occurred_at=call.now))
    return after


async def request(connection: Connection, shop: Shop, call: Call, supplier_order_id: SupplierOrderId) -> None:
    """Hands a paid supplier order to its supplier, who must answer in business time; a second time changes nothing.

    It runs in the transaction that moves the worker's cursor.
    """
    order, _, pending = await _locked(connection, call, supplier_order_id)
    if pending.state is not SupplierOrderState.PENDING:
        return  # refunded before the worker came
    known = await suppliers.find_suppliers(connection, call.tenant_id, [pending.supplier_id])
    supplier = known.get(pending.supplier_id)
    asked = rules.request(
        pending,
        now=call.now,
        accept_within_s=DEFAULT_ACCEPT_WITHIN_S if supplier is None else supplier.accept_within_s,
        deliver_within_s=DEFAULT_DELIVER_WITHIN_S if supplier is None else supplier.deliver_within_s,
        ship_within_s=DEFAULT_SHIP_WITHIN_S if supplier is None else supplier.ship_within_s,
    )
    await suppliers.write(connection, call.tenant_id, asked)
    state = order_rules.advance(order.state, OrderEvent.ASK_SUPPLIER, order_id=order.order_id)
    if state is not order.state:
        moved = replace(order, state=state, version=order.version + 1)
        await orders.set_state(connection, call.tenant_id, moved)
    await shop.outbox.append(connection, call, SupplierOrderChanged(supplier_order=asked, occurred_at=call.now))


async def time_out(shop: Shop, call: Call, supplier_order_id: SupplierOrderId) -> bool:
    """Re-routes or refunds a request that was not answered in time; False if the supplier answered meanwhile."""

    async def work(connection: Connection) -> bool:
        _, _, asked = await _locked(connection, call, supplier_order_id)
        late = asked.accept_by is not None and asked.accept_by <= call.now
        if asked.state is not SupplierOrderState.REQUESTED or not late:
            return False
        await _answered(
            connection,
            shop,
            call,
            supplier_order_id,
            lambda order, rerouted: rules.refuse(order, SupplierEvent.TIME_OUT, now=call.now, rerouted=rerouted),
            reason="not answered in time",
        )
        return True

    timed_out = await shop.database.run(call.tenant_id, work)
    if timed_out:
        _log.warning("a supplier did not answer", supplier_order_id=supplier_order_id)
    return timed_out


async def _answered(
    connection: Connection,
    shop: Shop,
    call: Call,
    supplier_order_id: SupplierOrderId,
    answer: Answer,
    *,
    reason: str,
) -> SupplierOrder:
    order, theirs, asked = await _locked(connection, call, supplier_order_id)
    _, refused = answer(asked, ())
    if refused:
        order = order_rules.closing_after(order, call.now)
    routes = await _routes(connection, call, asked, refused, theirs) if refused else {}
    after, refused = answer(asked, routes)
    instead = _instead_of(asked, refused, routes)
    current = (*(after if each.supplier_order_id == supplier_order_id else each for each in theirs), *instead)
    lost = {line_id: quantity for line_id, quantity in refused.items() if line_id not in routes}
    if lost:
        made, refunded = refund_rules.refund(
            order,
            [UnitsToRefund(line_id=line_id, quantity=quantity) for line_id, quantity in lost.items()],
            refund_id=RefundId(new_id()),
            reason=f"supplier {asked.supplier_id}: {reason}",
            occurred_at=call.now,
        )
        refunded = refunding.handed_over(refunded, current)
        await refunding.post(
            connection, shop, call, made, order=order, after=refunded, theirs=(theirs, current), reason=reason
        )
    else:
        if refused:
            await orders.set_state(connection, call.tenant_id, order)
        await suppliers.write(connection, call.tenant_id, after, reason=reason if refused else "")
        await shop.outbox.append(connection, call, SupplierOrderChanged(supplier_order=after, occurred_at=call.now))
    if instead:
        await _ask_instead(connection, shop, call, order, instead, theirs=(theirs, current))
    return after


async def _routes(
    connection: Connection,
    call: Call,
    asked: SupplierOrder,
    refused: Mapping[str, int],
    theirs: Sequence[SupplierOrder],
) -> dict[str, Source]:
    """The next source of each refused line that has one, if the brand wants it asked."""
    if await sourcing_store.policy(connection, call.tenant_id) is OnUnfilled.REFUND:
        return {}
    skus = [line.sku for line in asked.lines if line.line_id in refused]
    found = await sourcing_store.sources(connection, call.tenant_id, skus)
    return sourcing.next_sources(asked, refused, found, theirs=theirs)


def _instead_of(
    asked: SupplierOrder, refused: Mapping[str, int], routes: Mapping[str, Source]
) -> tuple[SupplierOrder, ...]:
    return tuple(
        SupplierOrder(
            supplier_order_id=SupplierOrderId(new_id()),
            order_id=asked.order_id,
            supplier_id=supplier_id,
            state=SupplierOrderState.PENDING,
            version=1,
            lines=lines,
            replaces=asked.supplier_order_id,
        )
        for supplier_id, lines in sourcing.lines_by_source(asked, refused, routes).items()
    )


async def _ask_instead(
    connection: Connection,
    shop: Shop,
    call: Call,
    order: Order,
    instead: Sequence[SupplierOrder],
    *,
    theirs: tuple[Sequence[SupplierOrder], Sequence[SupplierOrder]],
) -> None:
    """Writes the next sources' supplier orders, and gives them the share of the units that they are asked for."""
    await suppliers.insert(connection, call.tenant_id, order.order_id, instead)
    sale = await settlement.of_sale(connection, call.tenant_id, order.order_id)
    entries: list[SplitEntry] = []
    for line_no in sorted({line.line_no for each in instead for line in each.lines}):
        line = order.lines[line_no]
        before, after = (rules.holdings(each, line_no) for each in theirs)
        entries += moved_entries(
            sale, line, before=(line.refunded_quantity, before), after=(line.refunded_quantity, after)
        )
    await settlement.post(
        connection,
        call.tenant_id,
        order.order_id,
        entries,
        line_ids=[line.line_id for line in order.lines],
        occurred_at=call.now,
        refund_no=await settlement.next_move(connection, call.tenant_id, order.order_id),
    )
    asked = [SupplierOrderRequested(supplier_order=each, occurred_at=call.now) for each in instead]
    await shop.outbox.append(connection, call, *asked)


async def _locked(connection: Connection, call: Call, supplier_order_id: SupplierOrderId) -> _Locked:
    """The customer's order, its supplier orders and the one that is meant, locked in this order."""
    found = await suppliers.find(connection, call.tenant_id, supplier_order_id)
    if found is None:
        raise UnknownSupplierOrder(supplier_order_id)
    try:
        call.actor.check_supplier(found.supplier_id)
    except NotAllowed as other:
        # that it exists is not the caller's to know
        raise UnknownSupplierOrder(supplier_order_id) from other
    stored = await booking.locked(connection, call.tenant_id, found.order_id)
    theirs = await suppliers.lock_of_order(connection, call.tenant_id, found.order_id)
    asked = next(each for each in theirs if each.supplier_order_id == supplier_order_id)
    return stored.order, theirs, asked
