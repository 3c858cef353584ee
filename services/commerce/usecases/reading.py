"""Orders, refunds and exceptions as they stand; and waiting for those who follow by event."""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from services.commerce.domain.offline import SaleException
from services.commerce.domain.orders import Order, OrderState
from services.commerce.domain.refunds import Refund
from services.commerce.domain.refusals import UnknownOrder
from services.commerce.store import order_lists, orders, suppliers, sweeps
from services.commerce.store.order_lists import Mark
from services.commerce.usecases.placing import check_own_store
from services.commerce.usecases.shop import Shop
from services.runtime.call import Call
from services.runtime.database import Connection
from services.runtime.ids import OrderId
from services.runtime.outbox import partition_of

FULFILMENT: Final = "commerce/fulfilment"
RELAY: Final = "commerce/relay"
PAYMENT: Final = "commerce/payment"
POLL_S: Final = 0.02
LONGEST_POLL_S: Final = 0.2
REPLY_WITHIN_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderWithRefunds:
    """An order and its refunds, oldest first."""

    order: Order
    refunds: tuple[Refund, ...]


async def order(shop: Shop, call: Call, order_id: OrderId) -> OrderWithRefunds:
    """An order with its refunds. Raises UnknownOrder, also for another store's."""

    async def read(connection: Connection) -> OrderWithRefunds:
        found = await _own(connection, call, order_id)
        return OrderWithRefunds(order=found, refunds=await order_lists.refunds(connection, call.tenant_id, found))

    return await shop.database.read(call.tenant_id, read, timeout_s=call.remaining_s())


async def page(
    shop: Shop, call: Call, *, store_id: str, member_id: str, after: Mark | None, limit: int
) -> tuple[Order, ...]:
    """Orders, newest first, of a store, of a member (its aliases' too), of both, or of all.

    Raises NotAllowed where an actor that is bound to a store does not name it.
    """
    call.actor.check_store(store_id, field="store_id")

    async def read(connection: Connection) -> tuple[Order, ...]:
        marks = await order_lists.page(
            connection, call.tenant_id, store_id=store_id, member_id=member_id, after=after, limit=limit
        )
        found = await orders.find(connection, call.tenant_id, [mark.order_id for mark in marks])
        return tuple(found[mark.order_id].order for mark in marks)

    return await shop.database.read(call.tenant_id, read, timeout_s=call.remaining_s())


async def exceptions(
    shop: Shop, call: Call, *, store_id: str, resolved: bool, before: str, limit: int
) -> tuple[SaleException, ...]:
    """Open or resolved exceptions, newest first.

    Raises NotAllowed where an actor that is bound to a store does not name it.
    """
    call.actor.check_store(store_id, field="store_id")

    async def read(connection: Connection) -> tuple[SaleException, ...]:
        return await order_lists.exceptions(
            connection, call.tenant_id, store_id=store_id, resolved=resolved, before=before, limit=limit
        )

    return await shop.database.read(call.tenant_id, read, timeout_s=call.remaining_s())


async def wait_for(shop: Shop, call: Call, order_id: OrderId, *, timeout_s: float, partitions: int) -> tuple[str, ...]:
    """What is still open when everything is done or the time is up, e.g. "loyalty/accrual"; empty: all is done.

    An event of the order has a number in the log once the relay's horizon has passed the transaction that wrote it;
    who follows has done its part once its cursor has passed that number. Raises UnknownOrder.
    """
    until = time.monotonic() + min(timeout_s, max(0.0, call.remaining_s() - REPLY_WITHIN_S))
    pause_s = POLL_S
    seq: int | None = None

    async def read(connection: Connection) -> tuple[Order, int | None, int]:
        found = await _own(connection, call, order_id)
        partition = partition_of(found.member_id or found.order_id, partitions)
        number = await sweeps.numbered_up_to(connection, call.tenant_id, order_id, partition=partition)
        return found, number, await suppliers.not_requested(connection, call.tenant_id, order_id)

    while True:
        found, number, not_requested = await shop.database.read(call.tenant_id, read, timeout_s=call.remaining_s())
        open_parts = [FULFILMENT] if not_requested else []
        if found.state is OrderState.PENDING_PAYMENT:
            return (PAYMENT,)
        # the first number that is far enough: later ones of a busy partition would never be reached
        seq = number if seq is None else seq
        if seq is None:
            open_parts.append(RELAY)
        else:
            partition = partition_of(found.member_id or found.order_id, partitions)
            open_parts += await shop.peers.followers.behind(call, partition=partition, seq=seq)
        if not open_parts or time.monotonic() + pause_s > until:
            return tuple(open_parts)
        await asyncio.sleep(pause_s)
        pause_s = min(LONGEST_POLL_S, pause_s * 1.5)


async def _own(connection: Connection, call: Call, order_id: OrderId) -> Order:
    found = await orders.find(connection, call.tenant_id, [order_id])
    if order_id not in found:
        raise UnknownOrder(order_id)
    check_own_store(call, found[order_id].order)
    return found[order_id].order
