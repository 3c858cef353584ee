"""Whether a store takes goods and prices, which any store of the brand does, and sales, for which it must be open.

What identity told by event is looked at first. A refusal is never given on that alone: the store may have been made or
opened a moment ago, or before commerce followed stores at all. So identity is asked, outside of any transaction, and
its answer kept.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, TypeVar

from services.commerce.domain.refusals import UnknownStore
from services.commerce.domain.stores import Store, check_known, check_open
from services.commerce.store import stores
from services.commerce.usecases.shop import Shop
from services.runtime.call import Call
from services.runtime.database import Connection
from services.runtime.idempotency import Once
from services.runtime.ids import StoreId

ASKED_AT_ONCE: Final = 16
"""Questions that one call puts to identity at a time; only the first call that names a store puts any."""

R = TypeVar("R")


async def ask(shop: Shop, call: Call, store_ids: Iterable[StoreId]) -> dict[StoreId, Store]:
    """What identity says of the stores now, kept for later; those that it does not know are left out.

    Raises Unavailable or TimedOut where it does not answer: the same call may then be repeated.
    """
    turns = asyncio.Semaphore(ASKED_AT_ONCE)

    async def one(store_id: StoreId) -> Store | None:
        async with turns:
            return await shop.peers.stores.find(call, store_id)

    answers = await asyncio.gather(*(one(store_id) for store_id in store_ids))
    found = {store.store_id: store for store in answers if store is not None}
    if found:
        await shop.database.run(
            call.tenant_id,
            lambda connection: stores.apply(connection, call.tenant_id, found.values()),
            timeout_s=call.remaining_s(),
        )
    return found


async def is_of_brand(shop: Shop, call: Call, store_id: StoreId) -> bool:
    """Whether the brand has the store, open or not, as identity told or says now."""

    async def read(connection: Connection) -> dict[StoreId, Store]:
        return await stores.find(connection, call.tenant_id, [store_id])

    known = await shop.database.read(call.tenant_id, read, timeout_s=call.remaining_s())
    return store_id in (known or await ask(shop, call, [store_id]))


async def check_with_identity(shop: Shop, call: Call, store_id: StoreId, *, field: str) -> None:
    """Raises UnknownStore or StoreInactive if identity says so, of a store that is not known here as open."""
    check_open((await ask(shop, call, [store_id])).get(store_id), store_id, field=field)


async def once_in(
    shop: Shop,
    call: Call,
    once: Once[R],
    named: Mapping[StoreId, str],
    work: Callable[[Connection], Awaitable[R]],
) -> bytes:
    """What `once` answers for work in stores, each named by a field; a repeated request is answered as the first was.

    Raises UnknownStore for the first store that the brand does not have; whether they are open is not asked.
    """
    unknown: list[StoreId] = []

    async def checked(connection: Connection) -> R:
        known = await stores.find(connection, call.tenant_id, named)
        unknown[:] = [store_id for store_id in named if store_id not in known]
        check_known(named, known)
        return await work(connection)

    try:
        return await once.run(shop.database, checked)
    except UnknownStore:
        await ask(shop, call, unknown)
        return await once.run(shop.database, checked)
