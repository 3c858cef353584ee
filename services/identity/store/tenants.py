"""Tenants as rows. The runtime reads the same table for time zones and test clocks."""

from datetime import datetime

from sqlalchemy import RowMapping, select, update
from sqlalchemy.dialects.postgresql import insert

from services.identity import tables
from services.identity.domain.refusals import TenantExists
from services.identity.domain.tenants import Tenant
from services.runtime.database import Connection, raw
from services.runtime.ids import TenantId

_tenants = tables.tenants
_COLUMNS = (
    _tenants.c.tenant_id,
    _tenants.c.code,
    _tenants.c.display_name,
    _tenants.c.time_zone,
    _tenants.c.currency_code,
    _tenants.c.region_code,
    _tenants.c.test_clock_at,
    _tenants.c.created_at,
    _tenants.c.version,
)
_REGION = "SELECT region_code FROM tenants WHERE tenant_id = $1::uuid"


async def add(connection: Connection, tenant: Tenant) -> None:
    """Writes a new tenant. Raises TenantExists if another one has its code."""
    statement = (
        insert(_tenants)
        .values(
            tenant_id=tenant.tenant_id,
            code=tenant.code,
            display_name=tenant.display_name,
            time_zone=tenant.time_zone,
            currency_code=tenant.currency_code,
            region_code=tenant.region_code,
            test_clock_at=tenant.test_clock_at,
            created_at=tenant.created_at,
            version=tenant.version,
        )
        # the code is unique over all tenants, also those that row-level security hides from this call
        .on_conflict_do_nothing(constraint="tenants_code")
        .returning(_tenants.c.tenant_id)
    )
    if (await connection.execute(statement)).scalar_one_or_none() is None:
        raise TenantExists(tenant.code)


async def get(connection: Connection, tenant_id: str, *, lock: bool = False) -> Tenant | None:
    """The tenant, its row locked for the rest of the transaction where asked; None if there is none."""
    statement = select(*_COLUMNS).where(_tenants.c.tenant_id == tenant_id)
    if lock:
        statement = statement.with_for_update()
    row = (await connection.execute(statement)).mappings().one_or_none()
    return None if row is None else _tenant(row)


async def region_of(connection: Connection, tenant_id: str) -> str | None:
    """The region in whose form phone numbers without a country code are read; None without the tenant."""
    found: str | None = await raw(connection).fetchval(_REGION, tenant_id)
    return found


async def set_test_clock(connection: Connection, tenant_id: str, *, at: datetime, version: int) -> None:
    """Moves the test clock of a locked tenant."""
    await connection.execute(
        update(_tenants).where(_tenants.c.tenant_id == tenant_id).values(test_clock_at=at, version=version)
    )


def _tenant(row: RowMapping) -> Tenant:
    return Tenant(
        tenant_id=TenantId(row["tenant_id"]),
        code=row["code"],
        display_name=row["display_name"],
        time_zone=row["time_zone"],
        currency_code=row["currency_code"],
        region_code=row["region_code"],
        test_clock_at=row["test_clock_at"],
        created_at=row["created_at"],
        version=row["version"],
    )
