"""What matures, expires and ends by the passing of time, on the system role."""

from datetime import datetime

from services.runtime.database import Connection, raw
from services.runtime.tenants import Tenant

# each tenant by its own business time; machine time for holds
_TENANTS_DUE = """
    SELECT t.tenant_id::text, t.time_zone, t.currency_code, t.test_clock_at, t.version
    FROM tenants AS t
    WHERE EXISTS (SELECT FROM accounts AS a
                  WHERE a.tenant_id = t.tenant_id AND a.due_at <= coalesce(t.test_clock_at, $1))
       OR EXISTS (SELECT FROM member_tiers AS m
                  WHERE m.tenant_id = t.tenant_id AND m.until <= coalesce(t.test_clock_at, $1))
       OR EXISTS (SELECT FROM holds AS h WHERE h.tenant_id = t.tenant_id AND h.state = 1 AND h.expires_at <= $1)
    ORDER BY t.tenant_id
"""
_SETTLE = "SELECT settle_due($1::uuid, $2, $3)"
_EXPIRE_HOLDS = "SELECT expire_holds($1::uuid, $2, $3, $4)"
_FORGET_TOMBSTONES = """
    DELETE FROM holds
    WHERE (tenant_id, hold_id, client_id) IN (
        SELECT tenant_id, hold_id, client_id FROM holds WHERE state = 5 AND expires_at <= $1 LIMIT $2
    )
"""
# a refusal is kept for a day, so that a delayed duplicate can't succeed after the caller was told no
_FORGET_REFUSALS = """
    DELETE FROM point_requests
    WHERE (tenant_id, client_id, family, request_id) IN (
        SELECT tenant_id, client_id, family, request_id FROM point_requests
        WHERE refusal IS NOT NULL AND stored_at <= $1::timestamptz - interval '24 hours'
        LIMIT $2
    )
"""


async def tenants_due(connection: Connection, machine_now: datetime) -> list[Tenant]:
    """The tenants for whom something is due."""
    rows = await raw(connection).fetch(_TENANTS_DUE, machine_now)
    return [
        Tenant(id=row[0], time_zone=row[1], currency_code=row[2], test_clock_at=row[3], version=row[4]) for row in rows
    ]


async def settle(connection: Connection, tenant_id: str, now: datetime, *, limit: int) -> int:
    """Matures and expires points of up to `limit` accounts; how many there were."""
    settled: int = await raw(connection).fetchval(_SETTLE, tenant_id, now, limit)
    return settled


async def expire_holds(
    connection: Connection, tenant_id: str, now: datetime, *, machine_now: datetime, limit: int
) -> int:
    """Returns the points of up to `limit` holds whose time to live ran out; how many there were."""
    expired: int = await raw(connection).fetchval(_EXPIRE_HOLDS, tenant_id, now, machine_now, limit)
    return expired


async def forget(connection: Connection, machine_now: datetime, *, limit: int) -> int:
    """Drops tombstones after their 7 days, and refusals after their 24 hours, up to `limit` of each; how many it were.

    Fewer than `limit`: there are no more."""
    tombstones = await raw(connection).execute(_FORGET_TOMBSTONES, machine_now, limit)
    refusals = await raw(connection).execute(_FORGET_REFUSALS, machine_now, limit)
    return sum(int(status.rpartition(" ")[2]) for status in (tombstones, refusals))
