"""Suppliers and their orders: asked by the fulfilment worker, answered by the supplier, or timed out by the sweeper.

What a supplier does not ship is refunded in the transaction of its answer: a paid order that can't be fulfilled is
never a silent state.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import structlog

from services.commerce.domain import orders as order_rules
from services.commerce.domain import refunds as refund_rules
from services.commerce.domain import suppliers as rules
from services.commerce.domain.events import SupplierOrderChanged
from services.commerce.domain.orders import Order, OrderEvent
from services.commerce.domain.refunds import UnitsToRefund
from services.commerce.domain.refusals import UnknownSupplierOrder
from services.commerce.domain.suppliers import (
    DEFAULT_ACCEPT_WITHIN_S,
    DEFAULT_DELIVER_WITHIN_S,
    Supplier,
    SupplierEvent,
    SupplierOrder,
    SupplierOrderState,
)
from services.commerce.store import orders, suppliers
from services.commerce.usecases import booking, refunding
from services.commerce.usecases.shop import Shop
from services.runtime.call import Call
from services.runtime.database import Connection
from services.runtime.errors import Invalid, NotAllowed
from services.runtime.idempotency import Once
from services.runtime.ids import RefundId, SupplierId, SupplierOrderId, new_id

_log = structlog.get_logger(__name__)

_Locked = tuple[Order, tuple[SupplierOrder, ...], SupplierOrder]
Answer = Callable[[SupplierOrder], tuple[SupplierOrder, Mapping[str, int]]]
"""The supplier order after the answer, and the units per line id that are to be refunded."""


async def put(shop: Shop, call: Call, supplier: Supplier, once: Once[Supplier]) -> bytes:
    """Makes or changes a supplier; times of 0 take the defaults."""
    known = replace(
        supplier,
        accept_within_s=supplier.accept_within_s or DEFAULT_ACCEPT_WITHIN_S,
        deliver_within_s=supplier.deliver_within_s or DEFAULT_DELIVER_WITHIN_S,
    )

    async def work(connection: Connection) -> Supplier:
        await suppliers.put(connection, call.tenant_id, known)
        return known

    return await once.run(shop.database, work)


async def page(
    shop: Shop, call: Call, *, supplier_id: SupplierId, state: int, after: str, limit: int
) -> tuple[SupplierOrder, ...]:
    """A supplier's orders, oldest first; state 0 is every one. Raises NotAllowed for another supplier's."""
    call.actor.check_supplier(supplier_id)

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
    """The supplier's answer, per line; what is not accepted is refunded to the customer.

    Raises UnknownSupplierOrder (also for another supplier's), SupplierOrderNotOpen, UnknownLine, MoreThanAsked.
    """

    async def work(connection: Connection) -> SupplierOrder:
        return await _answered(
            connection,
            shop,
            call,
            supplier_order_id,
            lambda order: rules.accept(order, units, now=call.now),
            reason="not accepted",
        )

    return await once.run(shop.database, work)


async def reject(
    shop: Shop, call: Call, supplier_order_id: SupplierOrderId, *, reason: str, once: Once[SupplierOrder]
) -> bytes:
    """The supplier ships nothing; its units are refunded to the customer.

    Raises UnknownSupplierOrder (also for another supplier's), SupplierOrderNotOpen.
    """

    async def work(connection: Connection) -> SupplierOrder:
        return await _answered(
            connection,
            shop,
            call,
            supplier_order_id,
            lambda order: rules.refuse(order, SupplierEvent.REJECT, now=call.now),
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
    )
    await suppliers.write(connection, call.tenant_id, asked)
    state = order_rules.advance(order.state, OrderEvent.ASK_SUPPLIER, order_id=order.order_id)
    if state is not order.state:
        moved = replace(order, state=state, version=order.version + 1)
        await orders.set_state(connection, call.tenant_id, moved)
    await shop.outbox.append(connection, call, SupplierOrderChanged(supplier_order=asked, occurred_at=call.now))


async def time_out(shop: Shop, call: Call, supplier_order_id: SupplierOrderId) -> bool:
    """Refunds a request that was not answered in time; False if the supplier answered meanwhile."""

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
            lambda order: rules.refuse(order, SupplierEvent.TIME_OUT, now=call.now),
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
    after, refused = answer(asked)
    current = [after if each.supplier_order_id == supplier_order_id else each for each in theirs]
    if not refused:
        await suppliers.write(connection, call.tenant_id, after)
        await shop.outbox.append(connection, call, SupplierOrderChanged(supplier_order=after, occurred_at=call.now))
        return after
    made, refunded = refund_rules.refund(
        order,
        [UnitsToRefund(line_id=line_id, quantity=quantity) for line_id, quantity in refused.items()],
        refund_id=RefundId(new_id()),
        reason=f"supplier {asked.supplier_id}: {reason}",
        occurred_at=call.now,
    )
    refunded = refunding.handed_over(refunded, current)
    await refunding.post(connection, shop, call, made, order=order, after=refunded, changed=[after], reason=reason)
    return after


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
