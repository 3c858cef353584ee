"""Clients as rows, and the one lookup that comes before a tenant is known."""

from datetime import datetime

from sqlalchemy import RowMapping, insert, select, update

from services.identity import tables
from services.identity.domain.clients import CLIENTS_WRITE, Client
from services.identity.domain.tokens import Bearer
from services.runtime.call import ActorKind
from services.runtime.database import Connection, Lane
from services.runtime.ids import ClientId

_clients = tables.clients
_COLUMNS = (
    _clients.c.client_id,
    _clients.c.display_name,
    _clients.c.kind,
    _clients.c.scopes,
    _clients.c.store_id,
    _clients.c.supplier_id,
    _clients.c.created_at,
    _clients.c.revoked_at,
)
_FIRST = "00000000-0000-0000-0000-000000000000"

# a function that runs as the owner: a call without a tenant sees no row of the table itself (see the migration)
_FOR_TOKENS = """
    SELECT w.client_id::text, f.tenant_id::text, f.kind, f.scopes, f.store_id, f.supplier_id, f.verifier,
           f.time_zone, f.currency_code, f.has_test_clock
    FROM unnest($1::uuid[]) AS w(client_id)
    CROSS JOIN LATERAL client_for_token(w.client_id) AS f
"""


async def add(connection: Connection, tenant_id: str, client: Client, *, verifier: bytes) -> None:
    """Writes a new client with what its secret is verified by."""
    await connection.execute(
        insert(_clients).values(
            tenant_id=tenant_id,
            client_id=client.client_id,
            display_name=client.display_name,
            kind=client.kind.value,
            scopes=list(client.scopes),
            store_id=client.store_id or None,
            supplier_id=client.supplier_id or None,
            verifier=verifier,
            created_at=client.created_at,
        )
    )


async def revoke(connection: Connection, tenant_id: str, client_id: str, *, at: datetime) -> None:
    """Revokes the client; one that is revoked already keeps its time."""
    await connection.execute(
        update(_clients)
        .where(_clients.c.tenant_id == tenant_id, _clients.c.client_id == client_id, _clients.c.revoked_at.is_(None))
        .values(revoked_at=at)
    )


async def get(connection: Connection, tenant_id: str, client_id: str) -> Client | None:
    """The client, or None."""
    statement = select(*_COLUMNS).where(_clients.c.tenant_id == tenant_id, _clients.c.client_id == client_id)
    row = (await connection.execute(statement)).mappings().one_or_none()
    return None if row is None else _client(row)


async def lock_admins(connection: Connection, tenant_id: str) -> tuple[str, ...]:
    """The clients in force that can make clients of the whole tenant, locked: who revokes one waits for who does."""
    statement = (
        select(_clients.c.client_id)
        .where(
            _clients.c.tenant_id == tenant_id,
            _clients.c.revoked_at.is_(None),
            _clients.c.store_id.is_(None),
            _clients.c.supplier_id.is_(None),
            _clients.c.scopes.contains([CLIENTS_WRITE]),
        )
        # in one fixed order: two callers must not deadlock
        .order_by(_clients.c.client_id)
        .with_for_update()
    )
    return tuple((await connection.execute(statement)).scalars())


async def after(
    connection: Connection, tenant_id: str, *, client_id: str, limit: int, store_id: str = "", supplier_id: str = ""
) -> tuple[Client, ...]:
    """The next clients, oldest first (ids are UUIDv7), at most `limit`; of one store or supplier where it is given."""
    statement = (
        select(*_COLUMNS)
        .where(_clients.c.tenant_id == tenant_id, _clients.c.client_id > (client_id or _FIRST))
        .order_by(_clients.c.client_id)
        .limit(limit)
    )
    if store_id:
        statement = statement.where(_clients.c.store_id == store_id)
    if supplier_id:
        statement = statement.where(_clients.c.supplier_id == supplier_id)
    return tuple(_client(row) for row in (await connection.execute(statement)).mappings())


async def for_tokens(lane: Lane, client_ids: list[str]) -> dict[str, tuple[Bearer, bytes]]:
    """Whom each client stands for, and its verifier; ids that are unknown or revoked are left out."""
    rows = await lane.fetch(_FOR_TOKENS, client_ids)
    return {
        row["client_id"]: (
            Bearer(
                client_id=row["client_id"],
                kind=ActorKind(row["kind"]),
                scopes=tuple(row["scopes"]),
                tenant_id=row["tenant_id"],
                store_id=row["store_id"] or "",
                supplier_id=row["supplier_id"] or "",
                time_zone=row["time_zone"],
                currency_code=row["currency_code"],
                has_test_clock=row["has_test_clock"],
            ),
            row["verifier"],
        )
        for row in rows
    }


def _client(row: RowMapping) -> Client:
    return Client(
        client_id=ClientId(row["client_id"]),
        display_name=row["display_name"],
        kind=ActorKind(row["kind"]),
        scopes=tuple(row["scopes"]),
        store_id=row["store_id"] or "",
        supplier_id=row["supplier_id"] or "",
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
    )
