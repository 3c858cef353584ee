"""Stores that identity told of, or was asked for."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from services.commerce.domain.stores import Store
from services.runtime.database import Connection, raw
from services.runtime.ids import StoreId

OPEN_CACHED_S: Final = 5.0
"""A store that closes still sells for so long in each process."""
MAX_OPEN_CACHED: Final = 10_000

_FIND = """
    SELECT s.store_id, s.active, s.version
    FROM stores AS s
    WHERE s.tenant_id = $1::uuid AND s.store_id = ANY($2::text[])
"""
# in id order: two who write the same stores must not deadlock; what comes after a later tale changes nothing
_APPLY = """
    INSERT INTO stores (tenant_id, store_id, active, version)
    SELECT $1::uuid, n.store_id, n.active, n.version
    FROM unnest($2::text[], $3::boolean[], $4::bigint[]) AS n(store_id, active, version)
    ORDER BY n.store_id
    ON CONFLICT (tenant_id, store_id) DO UPDATE
    SET active = excluded.active, version = excluded.version, changed_at = now()
    WHERE stores.version <= excluded.version
"""


async def find(connection: Connection, tenant_id: str, store_ids: Iterable[StoreId]) -> dict[StoreId, Store]:
    """Stores by id; those of which nobody told are left out. No ids cost no query."""
    asked = sorted(set(store_ids))
    if not asked:
        return {}
    return {
        row["store_id"]: Store(store_id=row["store_id"], active=row["active"], version=row["version"])
        for row in await raw(connection).fetch(_FIND, tenant_id, asked)
    }


async def apply(connection: Connection, tenant_id: str, stores: Iterable[Store]) -> None:
    """Writes what identity said; a store's older version than the known one changes nothing."""
    latest = {store.store_id: store for store in sorted(stores, key=lambda store: store.version)}
    if latest:
        await raw(connection).execute(
            _APPLY,
            tenant_id,
            list(latest),
            [store.active for store in latest.values()],
            [store.version for store in latest.values()],
        )


@dataclass(slots=True)
class OpenStores:
    """The stores that were open for business a moment ago: each sale asks, and few of them the database."""

    seconds: Callable[[], float] = time.monotonic
    _until: dict[tuple[str, StoreId], float] = field(default_factory=dict)

    async def has(self, connection: Connection, tenant_id: str, store_id: StoreId) -> bool:
        """Whether the store is known as open, as it was at most OPEN_CACHED_S ago."""
        key = (tenant_id, store_id)
        if self._until.get(key, float("-inf")) > self.seconds():
            return True
        store = (await find(connection, tenant_id, [store_id])).get(store_id)
        if store is None or not store.active:
            # never remembered: it may open at any moment, and a refusal is identity's to give
            self._until.pop(key, None)
            return False
        if len(self._until) >= MAX_OPEN_CACHED:
            self._until.clear()
        self._until[key] = self.seconds() + OPEN_CACHED_S
        return True
