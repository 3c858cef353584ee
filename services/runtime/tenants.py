"""Each service's projection of identity's tenants, and the business time of a tenant."""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import datetime

from services.runtime.call import Actor, ActorKind, Call, deadline_in
from services.runtime.clock import Clock, SystemClock
from services.runtime.database import Connection, Database, raw
from services.runtime.errors import Unavailable

TEST_CLOCK_CACHED_S = 0.2
TENANT_CACHED_S = 5.0
MAX_CACHED = 10_000

_LOAD = """
    SELECT tenant_id::text, time_zone, currency_code, test_clock_at, version
    FROM tenants
    WHERE tenant_id = $1::uuid
"""
_LOAD_IDS = "SELECT tenant_id::text FROM tenants ORDER BY tenant_id"
# an older version comes late when a consumer rebuilds: it must not move a clock back
_APPLY = """
    INSERT INTO tenants (tenant_id, time_zone, currency_code, test_clock_at, version)
    VALUES ($1::uuid, $2, $3, $4, $5)
    ON CONFLICT (tenant_id) DO UPDATE
    SET time_zone = excluded.time_zone, currency_code = excluded.currency_code,
        test_clock_at = excluded.test_clock_at, version = excluded.version, changed_at = now()
    WHERE tenants.version < excluded.version
"""


class TenantNotReady(Unavailable):
    """identity's event of the tenant is still on its way."""

    reason = "TENANT_NOT_READY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """What every service must know of a tenant. `test_clock_at` is None where business time is machine time."""

    id: str
    time_zone: str
    currency_code: str
    test_clock_at: datetime | None = None
    version: int = 1


@dataclass(frozen=True, slots=True)
class _Cached:
    tenant: Tenant
    until: float


async def load(connection: Connection, tenant_id: str) -> Tenant | None:
    """The tenant as this service knows it, or None."""
    row = await raw(connection).fetchrow(_LOAD, tenant_id)
    if row is None:
        return None
    return Tenant(
        id=row["tenant_id"],
        time_zone=row["time_zone"],
        currency_code=row["currency_code"],
        test_clock_at=row["test_clock_at"],
        version=row["version"],
    )


async def load_ids(connection: Connection) -> tuple[str, ...]:
    """Every tenant's id, for sweepers; on the system role."""
    return tuple(row["tenant_id"] for row in await raw(connection).fetch(_LOAD_IDS))


async def apply(connection: Connection, tenant: Tenant) -> None:
    """Writes what identity told; an older version than the known one changes nothing."""
    await raw(connection).execute(
        _APPLY, tenant.id, tenant.time_zone, tenant.currency_code, tenant.test_clock_at, tenant.version
    )


@dataclass(slots=True)
class Tenants:
    """Tenants by id, cached: up to 200 ms for those with a test clock, up to 5 s for the others."""

    database: Database
    clock: Clock = field(default_factory=SystemClock)
    _cached: dict[str, _Cached] = field(default_factory=dict)
    _loading: dict[str, asyncio.Task[Tenant]] = field(default_factory=dict)

    async def get(self, tenant_id: str) -> Tenant:
        """The tenant. Raises TenantNotReady."""
        cached = self._cached.get(tenant_id)
        if cached is not None and cached.until > time.monotonic():
            return cached.tenant
        loading = self._loading.get(tenant_id)
        if loading is None:
            # one query, however many calls wait for it
            loading = asyncio.create_task(self._load(tenant_id))
            self._loading[tenant_id] = loading
            loading.add_done_callback(lambda done: self._loaded(tenant_id, done))
        return await asyncio.shield(loading)

    async def business_now(self, tenant_id: str) -> datetime:
        """The tenant's business time in UTC: its test clock's where it has one, else the machine's."""
        return self.now_of(await self.get(tenant_id))

    def now_of(self, tenant: Tenant) -> datetime:
        """The business time of a tenant that was just got."""
        return self.clock.now() if tenant.test_clock_at is None else tenant.test_clock_at

    async def call(self, tenant_id: str, *, service: str, worker: str, timeout_s: float) -> Call:
        """The call of a sweeper or worker that acts for the tenant by itself, in the tenant's business time."""
        tenant = await self.get(tenant_id)
        return Call(
            tenant_id=tenant_id,
            client_id=f"{service}.{worker}",
            actor=Actor(kind=ActorKind.SERVICE, id=service),
            now=self.now_of(tenant),
            time_zone=tenant.time_zone,
            deadline_at=deadline_in(timeout_s),
        )

    def forget(self, tenant_id: str) -> None:
        """Drops the cached tenant, after this process changed it."""
        self._cached.pop(tenant_id, None)

    async def _load(self, tenant_id: str) -> Tenant:
        tenant = await self.database.read(tenant_id, lambda connection: load(connection, tenant_id))
        if tenant is None:
            raise TenantNotReady("this tenant is not known here yet; try again", retry_after_s=TEST_CLOCK_CACHED_S)
        cached_s = TENANT_CACHED_S if tenant.test_clock_at is None else TEST_CLOCK_CACHED_S
        if len(self._cached) >= MAX_CACHED:
            self._cached.clear()
        self._cached[tenant_id] = _Cached(tenant, time.monotonic() + cached_s)
        return tenant

    def _loaded(self, tenant_id: str, done: asyncio.Task[Tenant]) -> None:
        self._loading.pop(tenant_id, None)
        if not done.cancelled():
            done.exception()  # told to those who wait; nobody may be left to wait
