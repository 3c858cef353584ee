"""Making, listing and revoking API clients."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.identity.domain.clients import Client, check_bindings, check_reach, is_told
from services.identity.domain.credentials import Keys
from services.identity.domain.refusals import LastAdmin, UnknownClient, UnknownStore
from services.identity.domain.scopes import scopes_to_grant
from services.identity.store import clients, stores
from services.runtime import pages
from services.runtime.call import ActorKind, Call
from services.runtime.clock import Clock
from services.runtime.database import Connection, Database
from services.runtime.idempotency import Once
from services.runtime.ids import ClientId, new_id


@dataclass(frozen=True, slots=True, kw_only=True)
class NewClient:
    """A client as it was asked for; no scopes takes the usual ones of the kind."""

    display_name: str
    kind: ActorKind
    scopes: Sequence[str]
    store_id: str
    supplier_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientDesk:
    """A tenant's API clients."""

    database: Database
    keys: Keys
    clock: Clock

    async def create(self, call: Call, once: Once[Client], asked: NewClient) -> bytes:
        """Makes the client; the encoded client, without its secret.

        Raises ScopeNotGrantable, UnknownStore, Invalid, and NotAllowed for a bound caller that reaches further.
        """
        granted = scopes_to_grant(asked.kind, asked.scopes, granter=call.actor.scopes)
        check_bindings(asked.kind, store_id=asked.store_id, supplier_id=asked.supplier_id, by=call.actor)
        client = Client(
            client_id=ClientId(new_id()),
            display_name=asked.display_name,
            kind=asked.kind,
            scopes=granted,
            store_id=asked.store_id,
            supplier_id=asked.supplier_id,
            created_at=self.clock.now(),
        )
        verifier = self.keys.verifier_of(self.keys.secret_of(call.tenant_id, client.client_id))

        async def work(connection: Connection) -> Client:
            if client.store_id and not await stores.known(connection, call.tenant_id, (client.store_id,)):
                raise UnknownStore(client.store_id)
            await clients.add(connection, call.tenant_id, client, verifier=verifier)
            return client

        return await once.run(self.database, work)

    def secret_to_tell(self, tenant_id: str, client: Client) -> str:
        """The client's secret within 24 hours of its making; empty after that."""
        told = is_told(client.created_at, now=self.clock.now())
        return self.keys.secret_of(tenant_id, client.client_id) if told else ""

    async def revoke(self, call: Call, once: Once[Client], client_id: str) -> bytes:
        """Revokes the client; the encoded client. For a revoked one nothing changes.

        Raises UnknownClient, NotAllowed for a client that the caller could not have made, and LastAdmin.
        """

        async def work(connection: Connection) -> Client:
            client = await clients.get(connection, call.tenant_id, client_id)
            if client is None:
                raise UnknownClient(client_id)
            check_reach(client, by=call.actor)
            if client.is_admin and await clients.lock_admins(connection, call.tenant_id) == (client_id,):
                raise LastAdmin(client_id)
            await clients.revoke(connection, call.tenant_id, client_id, at=self.clock.now())
            revoked = await clients.get(connection, call.tenant_id, client_id)
            assert revoked is not None, "clients are never deleted"
            return revoked

        return await once.run(self.database, work)

    async def list(self, call: Call, *, page_size: int, page_token: str) -> tuple[tuple[Client, ...], str]:
        """A page of clients, oldest first, and the token of the next page. Raises Invalid for a foreign token.

        A caller that is bound to a store or supplier sees the clients that are bound to the same."""
        size = pages.page_size(page_size)
        after = pages.key_of(page_token)
        if after:
            pages.id_in(after)

        async def work(connection: Connection) -> tuple[Client, ...]:
            return await clients.after(
                connection,
                call.tenant_id,
                client_id=after,
                limit=size + 1,
                store_id=call.actor.store_id,
                supplier_id=call.actor.supplier_id,
            )

        found = await self.database.read(call.tenant_id, work, timeout_s=call.remaining_s())
        return found[:size], pages.token_after(found[size - 1].client_id) if len(found) > size else ""
