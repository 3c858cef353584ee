"""Stores as rows."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import select

from services.identity import tables
from services.identity.domain.stores import Store, Upserted
from services.runtime.database import Connection, raw
from services.runtime.ids import StoreId

_stores = tables.stores
_COLUMNS = (_stores.c.store_id, _stores.c.display_name, _stores.c.time_zone, _stores.c.active, _stores.c.version)

# in id order, so that two batches over the same stores don't deadlock; a row that is as asked stays untouched;
# xmax is 0 on a row that this statement inserted
_UPSERT = """
    INSERT INTO stores AS known (tenant_id, store_id, display_name, time_zone, active)
    SELECT $1::uuid, s.store_id, s.display_name, s.time_zone, s.active
    FROM unnest($2::text[], $3::text[], $4::text[], $5::boolean[]) AS s(store_id, display_name, time_zone, active)
    ORDER BY s.store_id
    ON CONFLICT (tenant_id, store_id) DO UPDATE
    SET display_name = excluded.display_name, time_zone = excluded.time_zone, active = excluded.active,
        version = known.version + 1, updated_at = clock_timestamp()
    WHERE (known.display_name, known.time_zone, known.active)
          IS DISTINCT FROM (excluded.display_name, excluded.time_zone, excluded.active)
    RETURNING known.store_id, known.display_name, known.time_zone, known.active, known.version,
              (known.xmax = 0) AS created
"""
_KNOWN = "SELECT store_id FROM stores WHERE tenant_id = $1::uuid AND store_id = ANY($2::text[])"


async def upsert(connection: Connection, tenant_id: str, stores: Sequence[Store]) -> Upserted:
    """Makes or changes the stores in one statement; one that is already as asked counts as neither."""
    rows = await raw(connection).fetch(
        _UPSERT,
        tenant_id,
        [store.store_id for store in stores],
        [store.display_name for store in stores],
        [store.time_zone for store in stores],
        [store.active for store in stores],
    )
    return Upserted(stores=tuple(_store(row) for row in rows), created=sum(row["created"] for row in rows))


async def get(connection: Connection, tenant_id: str, store_id: str) -> Store | None:
    """The store, or None."""
    statement = select(*_COLUMNS).where(_stores.c.tenant_id == tenant_id, _stores.c.store_id == store_id)
    row = (await connection.execute(statement)).mappings().one_or_none()
    return None if row is None else _store(row)


async def after(
    connection: Connection, tenant_id: str, *, store_id: str, limit: int, only: str = ""
) -> tuple[Store, ...]:
    """The next stores by id, at most `limit`; `only` narrows the list to one."""
    statement = select(*_COLUMNS).where(_stores.c.tenant_id == tenant_id, _stores.c.store_id > store_id)
    if only:
        statement = statement.where(_stores.c.store_id == only)
    rows = await connection.execute(statement.order_by(_stores.c.store_id).limit(limit))
    return tuple(_store(row) for row in rows.mappings())


async def known(connection: Connection, tenant_id: str, store_ids: Iterable[str]) -> frozenset[str]:
    """Those of the ids that are stores of the tenant; no ids cost no query."""
    asked = sorted(set(store_ids))
    if not asked:
        return frozenset()
    return frozenset(row["store_id"] for row in await raw(connection).fetch(_KNOWN, tenant_id, asked))


def _store(row: Any) -> Store:
    return Store(
        store_id=StoreId(row["store_id"]),
        display_name=row["display_name"],
        time_zone=row["time_zone"],
        active=row["active"],
        version=row["version"],
    )
