"""Making tenants, and moving their test clocks."""

from dataclasses import dataclass
from datetime import datetime

from services.identity.domain import scopes
from services.identity.domain.clients import Client, is_told
from services.identity.domain.credentials import Keys
from services.identity.domain.events import Event, TenantChanged
from services.identity.domain.refusals import UnknownTenant
from services.identity.domain.tenants import Tenant, advanced, new_tenant
from services.identity.store import clients, tenants
from services.runtime.call import ActorKind, Call
from services.runtime.clock import Clock
from services.runtime.database import Connection, Database
from services.runtime.idempotency import Once
from services.runtime.ids import ClientId, TenantId, derive_id, new_id
from services.runtime.outbox import Outbox
from services.runtime.tenants import Tenants

ADMIN_NAME = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTenant:
    """A tenant as it was asked for; what is empty takes its default."""

    code: str
    display_name: str
    time_zone: str
    currency_code: str
    region_code: str
    test_clock_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Founded:
    """A new tenant, with the client that makes its other ones."""

    tenant: Tenant
    admin: Client


def within_new_tenant(call: Call, request_id: str) -> Call:
    """The call, made in the tenant that it will found: a repeated request derives the same tenant and finds its reply.

    The operator is in no tenant, and a request id lives in one.
    """
    return call._replace(tenant_id=derive_id("identity.tenant", call.client_id, request_id))


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantDesk:
    """Tenants and their clocks. `known` is this process's cache of business times."""

    database: Database
    keys: Keys
    clock: Clock
    outbox: Outbox[Event]
    known: Tenants

    async def found(self, call: Call, once: Once[Founded], asked: NewTenant) -> bytes:
        """Makes the tenant of `within_new_tenant` and its admin client; the encoded result.

        Raises TenantExists, and Invalid for a time zone, currency or region that is none.
        """
        now = self.clock.now()
        tenant = new_tenant(
            TenantId(call.tenant_id),
            code=asked.code,
            display_name=asked.display_name,
            time_zone=asked.time_zone,
            currency_code=asked.currency_code,
            region_code=asked.region_code,
            test_clock_at=asked.test_clock_at,
            now=now,
        )
        admin = Client(
            client_id=ClientId(new_id()),
            display_name=ADMIN_NAME,
            kind=ActorKind.BACKEND,
            scopes=tuple(sorted(scopes.TENANT)),
            store_id="",
            supplier_id="",
            created_at=now,
        )
        verifier = self.keys.verifier_of(self.keys.secret_of(tenant.tenant_id, admin.client_id))

        async def work(connection: Connection) -> Founded:
            await tenants.add(connection, tenant)
            await clients.add(connection, tenant.tenant_id, admin, verifier=verifier)
            await self.outbox.append(connection, call, _changed(tenant, now))
            return Founded(tenant=tenant, admin=admin)

        return await once.run(self.database, work)

    def secret_to_tell(self, tenant_id: str, client_id: str, *, made_at: datetime) -> str:
        """The admin client's secret within 24 hours of its making; empty after that."""
        return self.keys.secret_of(tenant_id, client_id) if is_told(made_at, now=self.clock.now()) else ""

    async def get(self, call: Call) -> Tenant:
        """The caller's tenant. Raises UnknownTenant."""

        async def work(connection: Connection) -> Tenant:
            tenant = await tenants.get(connection, call.tenant_id) if call.tenant_id else None
            if tenant is None:
                raise UnknownTenant(call.tenant_id)
            return tenant

        return await self.database.read(call.tenant_id, work, timeout_s=call.remaining_s())

    async def advance(self, call: Call, once: Once[Tenant], *, to: datetime) -> bytes:
        """Moves the test clock forward to `to`; the encoded tenant. Raises NoTestClock, ClockBackwards."""

        async def work(connection: Connection) -> Tenant:
            before = await tenants.get(connection, call.tenant_id, lock=True)
            if before is None:
                raise UnknownTenant(call.tenant_id)
            after = advanced(before, to)
            if after != before:
                await tenants.set_test_clock(connection, call.tenant_id, at=to, version=after.version)
                await self.outbox.append(connection, call, _changed(after, to))
            return after

        reply = await once.run(self.database, work)
        self.known.forget(call.tenant_id)
        return reply


def _changed(tenant: Tenant, at: datetime) -> TenantChanged:
    return TenantChanged(
        tenant_id=tenant.tenant_id,
        time_zone=tenant.time_zone,
        currency_code=tenant.currency_code,
        test_clock_at=tenant.test_clock_at,
        changed_at=tenant.test_clock_at or at,
        version=tenant.version,
    )
