"""What the sweeper looks for over all tenants, on the system role; and how far the relay and the readers are."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.runtime.database import Connection, raw
from services.runtime.ids import OrderId

# waiting for payment past its time, in machine time
_EXPIRED = """
    SELECT o.tenant_id::text, o.order_id::text
    FROM orders AS o
    WHERE o.state = 1 AND o.expires_at <= clock_timestamp() AND o.order_id <> ALL ($2::uuid[])
    ORDER BY o.expires_at
    LIMIT $1
"""
# Over all tenants, each by its own business time; 2 is REQUESTED. The statement's time and not the clock's: a value
# that changes from row to row is no condition of an index.
_UNANSWERED = """
    SELECT s.tenant_id::text, s.supplier_order_id::text
    FROM tenants AS t
    CROSS JOIN LATERAL (
        SELECT o.tenant_id, o.supplier_order_id
        FROM supplier_orders AS o
        WHERE o.tenant_id = t.tenant_id AND o.state = 2
          AND o.accept_by <= coalesce(t.test_clock_at, statement_timestamp())
          AND o.supplier_order_id <> ALL ($2::uuid[])
        ORDER BY o.accept_by
        LIMIT $1
    ) AS s
    LIMIT $1
"""
# 7 is SHIPPED: nobody said that it arrived, and it had the time that the supplier has for it
_PRESUMED = """
    SELECT s.tenant_id::text, s.supplier_order_id::text
    FROM tenants AS t
    CROSS JOIN LATERAL (
        SELECT o.tenant_id, o.supplier_order_id
        FROM supplier_orders AS o
        WHERE o.tenant_id = t.tenant_id AND o.state = 7
          AND o.deliver_by <= coalesce(t.test_clock_at, statement_timestamp())
          AND o.supplier_order_id <> ALL ($2::uuid[])
        ORDER BY o.deliver_by
        LIMIT $1
    ) AS s
    LIMIT $1
"""
# 3 and 4 are ACCEPTED and PARTLY_ACCEPTED: units are left to ship, and nobody was told
_UNSHIPPED = """
    SELECT s.tenant_id::text, s.supplier_order_id::text
    FROM tenants AS t
    CROSS JOIN LATERAL (
        SELECT o.tenant_id, o.supplier_order_id
        FROM supplier_orders AS o
        WHERE o.tenant_id = t.tenant_id AND o.state IN (3, 4) AND NOT o.late_told
          AND o.ship_by <= coalesce(t.test_clock_at, statement_timestamp())
          AND o.supplier_order_id <> ALL ($2::uuid[])
        ORDER BY o.ship_by
        LIMIT $1
    ) AS s
    LIMIT $1
"""
# The return window is over, in each tenant's business time; nothing is told, since nothing follows from it yet. Orders
# are locked by their key and changed by their ctid, whatever the planner thinks; one that somebody has just changed is
# left to the next round.
_CLOSE = """
    WITH ready AS (
        SELECT o.tenant_id, o.order_id
        FROM tenants AS t
        CROSS JOIN LATERAL (
            SELECT c.tenant_id, c.order_id
            FROM orders AS c
            WHERE c.tenant_id = t.tenant_id AND c.state IN (2, 4)
              AND c.closes_at <= coalesce(t.test_clock_at, statement_timestamp())
              AND NOT EXISTS (
                  SELECT 1 FROM supplier_orders AS s
                  WHERE s.tenant_id = c.tenant_id AND s.order_id = c.order_id AND s.state IN (1, 2, 3, 4, 7)
              )
            ORDER BY c.closes_at
            LIMIT $1
        ) AS o
        LIMIT $1
    ), locked AS (
        SELECT l.*
        FROM (SELECT r.tenant_id, r.order_id FROM ready AS r ORDER BY r.tenant_id, r.order_id) AS r
        CROSS JOIN LATERAL (
            SELECT o.ctid AS order_row
            FROM orders AS o
            WHERE o.tenant_id = r.tenant_id AND o.order_id = r.order_id
            LIMIT 1
            FOR NO KEY UPDATE SKIP LOCKED
        ) AS l
    )
    UPDATE orders AS o
    SET state = 5, version = o.version + 1
    WHERE o.ctid = ANY (ARRAY(SELECT l.order_row FROM locked AS l)) AND o.state IN (2, 4)
"""
# after a restore from a dump the old transaction ids lie in the future: those events were numbered long ago
_NUMBERED = """
    SELECT h.next_seq - 1 AS seq,
           (SELECT o.event_xid < r.horizon OR o.event_xid > pg_snapshot_xmax(pg_current_snapshot())
            FROM orders AS o WHERE o.tenant_id = $1::uuid AND o.order_id = $2::uuid) AS numbered
    FROM relay_horizon AS r
    LEFT JOIN log_heads AS h ON h.partition = $3
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """An order or a supplier order, by its id, whose time for something is over."""

    tenant_id: str
    id: str


async def expired(connection: Connection, *, left_out: Sequence[str], limit: int) -> tuple[Due, ...]:
    """Orders past their time to be paid, the longest first, but those left out."""
    rows = await raw(connection).fetch(_EXPIRED, limit, left_out)
    return tuple(Due(tenant_id=row["tenant_id"], id=row["order_id"]) for row in rows)


async def unanswered(connection: Connection, *, left_out: Sequence[str], limit: int) -> tuple[Due, ...]:
    """Supplier orders past their time to be answered, but those left out."""
    return await _supplier_orders(connection, _UNANSWERED, left_out=left_out, limit=limit)


async def unshipped(connection: Connection, *, left_out: Sequence[str], limit: int) -> tuple[Due, ...]:
    """Accepted supplier orders past their time to be shipped of which nobody was told, but those left out."""
    return await _supplier_orders(connection, _UNSHIPPED, left_out=left_out, limit=limit)


async def presumed_delivered(connection: Connection, *, left_out: Sequence[str], limit: int) -> tuple[Due, ...]:
    """Shipped supplier orders that count as delivered by now, but those left out."""
    return await _supplier_orders(connection, _PRESUMED, left_out=left_out, limit=limit)


async def close_orders(connection: Connection, *, limit: int) -> int:
    """Closes orders whose return window is over; how many they were."""
    status = await raw(connection).execute(_CLOSE, limit)
    return int(status.rpartition(" ")[2])


async def numbered_up_to(connection: Connection, tenant_id: str, order_id: OrderId, *, partition: int) -> int | None:
    """A number of the log's partition by which all events of the order are in it; None while the relay is behind."""
    row = await raw(connection).fetchrow(_NUMBERED, tenant_id, order_id, partition)
    return int(row["seq"] or 0) if row is not None and row["numbered"] else None


async def _supplier_orders(
    connection: Connection, statement: str, *, left_out: Sequence[str], limit: int
) -> tuple[Due, ...]:
    rows = await raw(connection).fetch(statement, limit, left_out)
    return tuple(Due(tenant_id=row["tenant_id"], id=row["supplier_order_id"]) for row in rows)
