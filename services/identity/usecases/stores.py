"""Making, changing and reading stores; who follows hears of each change."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.identity.domain.events import Event, StoreChanged
from services.identity.domain.refusals import UnknownStore
from services.identity.domain.stores import Store, Upserted, check_stores
from services.identity.store import stores
from services.runtime import pages
from services.runtime.call import Call
from services.runtime.database import Connection, Database
from services.runtime.idempotency import Once
from services.runtime.ids import TenantId
from services.runtime.outbox import Outbox


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreDesk:
    """A tenant's stores."""

    database: Database
    outbox: Outbox[Event]

    async def upsert(self, call: Call, once: Once[Upserted], asked: Sequence[Store]) -> bytes:
        """Makes or changes the stores, all or none; the encoded counts. Raises Invalid."""
        check_stores(asked)
        for at, store in enumerate(asked):
            if call.actor.store_id:
                call.actor.check_store(store.store_id, field=f"stores[{at}].store_id")

        async def work(connection: Connection) -> Upserted:
            upserted = await stores.upsert(connection, call.tenant_id, asked)
            tenant_id = TenantId(call.tenant_id)
            events = [StoreChanged(tenant_id=tenant_id, store=each, changed_at=call.now) for each in upserted.stores]
            await self.outbox.append(connection, call, *events)
            return upserted

        return await once.run(self.database, work)

    async def get(self, call: Call, store_id: str) -> Store:
        """The store. Raises UnknownStore; NotAllowed for an actor that is bound to another."""
        if call.actor.store_id:
            call.actor.check_store(store_id, field="store_id")

        async def work(connection: Connection) -> Store:
            store = await stores.get(connection, call.tenant_id, store_id)
            if store is None:
                raise UnknownStore(store_id)
            return store

        return await self.database.read(call.tenant_id, work, timeout_s=call.remaining_s())

    async def list(self, call: Call, *, page_size: int, page_token: str) -> tuple[tuple[Store, ...], str]:
        """A page of stores by id, and the token of the next page; an actor bound to a store sees that one."""
        size = pages.page_size(page_size)
        after = pages.key_of(page_token)

        async def work(connection: Connection) -> tuple[Store, ...]:
            # one more than asked tells whether there is a next page
            return await stores.after(
                connection, call.tenant_id, store_id=after, limit=size + 1, only=call.actor.store_id
            )

        found = await self.database.read(call.tenant_id, work, timeout_s=call.remaining_s())
        return found[:size], pages.token_after(found[size - 1].store_id) if len(found) > size else ""
