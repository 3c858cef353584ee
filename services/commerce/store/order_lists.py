"""Lists of orders, refunds and exceptions, by page."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.commerce.domain.offline import Difference, Resolution, SaleException
from services.commerce.domain.orders import Line, Order
from services.commerce.domain.refunds import Refund, RefundedLine
from services.commerce.store.bounds import LAST_ID, LATEST
from services.runtime.database import Connection, raw
from services.runtime.ids import OrderId, RefundId

# An alias's orders are the survivor's. A page of each, along the index of members: a LATERAL with LIMIT is a probe of
# it whatever the planner thinks, and a plan is kept until statistics change. For the same reason a first page has a
# mark as well, beyond all rows: with "or there is none" no mark would be a condition of the index, and each page would
# read those before it once more.
_OF_MEMBER = """
    WITH owners AS MATERIALIZED (
        SELECT $2::uuid AS member_id
        UNION ALL
        SELECT a.member_id FROM member_aliases AS a WHERE a.tenant_id = $1::uuid AND a.survivor_id = $2::uuid
    )
    SELECT l.order_id::text, l.occurred_at
    FROM owners AS m
    CROSS JOIN LATERAL (
        SELECT o.order_id, o.occurred_at
        FROM orders AS o
        WHERE o.tenant_id = $1::uuid AND o.member_id = m.member_id
          AND ($3 = '' OR o.store_id = $3)
          AND (o.occurred_at, o.order_id) < ($4, $5::uuid)
        ORDER BY o.occurred_at DESC, o.order_id DESC
        LIMIT $6
    ) AS l
    ORDER BY l.occurred_at DESC, l.order_id DESC
    LIMIT $6
"""
_OF_STORE = """
    SELECT o.order_id::text, o.occurred_at
    FROM orders AS o
    WHERE o.tenant_id = $1::uuid AND o.store_id = $2
      AND (o.occurred_at, o.order_id) < ($3, $4::uuid)
    ORDER BY o.occurred_at DESC, o.order_id DESC
    LIMIT $5
"""
_OF_TENANT = """
    SELECT o.order_id::text, o.occurred_at
    FROM orders AS o
    WHERE o.tenant_id = $1::uuid AND (o.occurred_at, o.order_id) < ($2, $3::uuid)
    ORDER BY o.occurred_at DESC, o.order_id DESC
    LIMIT $4
"""
_REFUNDS = """
    SELECT r.refund_no, r.refund_id::text, r.amount_minor, r.tenders_minor, r.returned_points, r.whole_order, r.reason,
           r.occurred_at
    FROM refunds AS r
    WHERE r.tenant_id = $1::uuid AND r.order_id = $2::uuid
    ORDER BY r.refund_no
"""
_REFUND_LINES = """
    SELECT r.refund_no, r.line_no, r.quantity, r.refunded_before, r.amount_minor, r.points_tender_minor,
           r.returned_points, r.discounts_minor, r.tenders_minor, r.restock
    FROM refund_lines AS r
    WHERE r.tenant_id = $1::uuid AND r.order_id = $2::uuid
    ORDER BY r.refund_no, r.line_no
"""
_ADD_EXCEPTIONS = """
    INSERT INTO sale_exceptions (tenant_id, exception_id, store_id, order_id, line_id, reason, difference, detail,
                                 posted_at)
    SELECT $1::uuid, e.exception_id, $2, e.order_id, e.line_id, e.reason, e.difference, e.detail, e.posted_at
    FROM unnest($3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::bigint[], $8::text[], $9::timestamptz[])
         AS e(exception_id, order_id, line_id, reason, difference, detail, posted_at)
"""
_EXCEPTION_COLUMNS = """
    e.exception_id::text, e.store_id, e.order_id::text, e.line_id, e.reason, e.difference, e.detail, e.posted_at,
    r.note, r.resolved_by, r.resolved_at
"""
# one by its key for each exception; a plain join reads all of a tenant's while statistics say that they are few
_RESOLUTION = """
    LEFT JOIN LATERAL (
        SELECT n.exception_id, n.note, n.resolved_by, n.resolved_at
        FROM exception_resolutions AS n
        WHERE n.tenant_id = e.tenant_id AND n.exception_id = e.exception_id
        LIMIT 1
    ) AS r ON true
"""
# along the key, or along a store's index, from the last page's end
_EXCEPTIONS = f"""
    SELECT {_EXCEPTION_COLUMNS}
    FROM sale_exceptions AS e
    {_RESOLUTION}
    WHERE e.tenant_id = $1::uuid AND e.exception_id < $2::uuid AND (r.exception_id IS NOT NULL) = $4
    ORDER BY e.exception_id DESC
    LIMIT $3
"""
_EXCEPTIONS_OF_STORE = f"""
    SELECT {_EXCEPTION_COLUMNS}
    FROM sale_exceptions AS e
    {_RESOLUTION}
    WHERE e.tenant_id = $1::uuid AND e.store_id = $5 AND e.exception_id < $2::uuid
      AND (r.exception_id IS NOT NULL) = $4
    ORDER BY e.exception_id DESC
    LIMIT $3
"""
_EXCEPTION = f"""
    SELECT {_EXCEPTION_COLUMNS}
    FROM sale_exceptions AS e
    {_RESOLUTION}
    WHERE e.tenant_id = $1::uuid AND e.exception_id = $2::uuid
"""
_RESOLVE = """
    INSERT INTO exception_resolutions (tenant_id, exception_id, note, resolved_by, resolved_at)
    VALUES ($1::uuid, $2::uuid, $3, $4, $5)
    ON CONFLICT (tenant_id, exception_id) DO NOTHING
"""
_EXCEPTIONS_OF_ORDER = f"""
    SELECT {_EXCEPTION_COLUMNS}
    FROM sale_exceptions AS e
    {_RESOLUTION}
    WHERE e.tenant_id = $1::uuid AND e.order_id = $2::uuid
    ORDER BY e.exception_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Where a page of orders ended."""

    occurred_at: datetime
    order_id: OrderId


_NEWEST = Mark(occurred_at=LATEST, order_id=OrderId(LAST_ID))


async def page(
    connection: Connection, tenant_id: str, *, store_id: str, member_id: str, after: Mark | None, limit: int
) -> tuple[Mark, ...]:
    """Ids of orders, newest first, of a store, of a member, of both or of all."""
    mark = after or _NEWEST
    at, last = mark.occurred_at, mark.order_id
    fetch = raw(connection).fetch
    if member_id:
        rows = await fetch(_OF_MEMBER, tenant_id, member_id, store_id, at, last, limit)
    elif store_id:
        rows = await fetch(_OF_STORE, tenant_id, store_id, at, last, limit)
    else:
        rows = await fetch(_OF_TENANT, tenant_id, at, last, limit)
    return tuple(Mark(occurred_at=row["occurred_at"], order_id=row["order_id"]) for row in rows)


async def refunds(connection: Connection, tenant_id: str, order: Order) -> tuple[Refund, ...]:
    """The order's refunds, oldest first."""
    lines: dict[int, list[RefundedLine]] = {}
    if order.refund_count:
        for row in await raw(connection).fetch(_REFUND_LINES, tenant_id, order.order_id):
            lines.setdefault(row["refund_no"], []).append(_refunded_line(row, order.lines[row["line_no"]]))
    return tuple(
        Refund(
            refund_id=RefundId(row["refund_id"]),
            order_id=order.order_id,
            refund_no=row["refund_no"],
            lines=tuple(lines.get(row["refund_no"], ())),
            tenders_minor=tuple(row["tenders_minor"]),
            amount_minor=row["amount_minor"],
            returned_points=row["returned_points"],
            whole_order=row["whole_order"],
            reason=row["reason"],
            occurred_at=row["occurred_at"],
        )
        for row in await raw(connection).fetch(_REFUNDS, tenant_id, order.order_id)
    )


async def add_exceptions(
    connection: Connection, tenant_id: str, store_id: str, exceptions: Sequence[SaleException]
) -> None:
    """Puts differences of a store's sales into the queue."""
    if not exceptions:
        return
    await raw(connection).execute(
        _ADD_EXCEPTIONS,
        tenant_id,
        store_id,
        [each.exception_id for each in exceptions],
        [each.order_id for each in exceptions],
        [each.line_id for each in exceptions],
        [each.reason.value for each in exceptions],
        [each.difference for each in exceptions],
        [each.detail for each in exceptions],
        [each.posted_at for each in exceptions],
    )


async def exceptions(
    connection: Connection, tenant_id: str, *, store_id: str, resolved: bool, before: str, limit: int
) -> tuple[SaleException, ...]:
    """Open or resolved exceptions, newest first, below an id."""
    given = (tenant_id, before or LAST_ID, limit, resolved)
    if store_id:
        rows = await raw(connection).fetch(_EXCEPTIONS_OF_STORE, *given, store_id)
    else:
        rows = await raw(connection).fetch(_EXCEPTIONS, *given)
    return tuple(_exception(row) for row in rows)


async def exceptions_of(connection: Connection, tenant_id: str, order_id: OrderId) -> tuple[SaleException, ...]:
    """The order's exceptions, oldest first."""
    rows = await raw(connection).fetch(_EXCEPTIONS_OF_ORDER, tenant_id, order_id)
    return tuple(_exception(row) for row in rows)


async def exception(connection: Connection, tenant_id: str, exception_id: str) -> tuple[str, SaleException] | None:
    """An exception with its store; None if there is none."""
    row = await raw(connection).fetchrow(_EXCEPTION, tenant_id, exception_id)
    return None if row is None else (row["store_id"], _exception(row))


async def resolve_exception(connection: Connection, tenant_id: str, exception_id: str, resolution: Resolution) -> bool:
    """Writes the resolution; False if another was first, and is committed."""
    status = await raw(connection).execute(
        _RESOLVE, tenant_id, exception_id, resolution.note, resolution.resolved_by, resolution.resolved_at
    )
    return status.endswith(" 1")


def _refunded_line(row: Any, line: Line) -> RefundedLine:
    return RefundedLine(
        line_no=row["line_no"],
        line_id=line.line_id,
        quantity=row["quantity"],
        refunded_before=row["refunded_before"],
        amount_minor=row["amount_minor"],
        points_tender_minor=row["points_tender_minor"],
        returned_points=row["returned_points"],
        discounts_minor=tuple(row["discounts_minor"]),
        tenders_minor=tuple(row["tenders_minor"]),
        restock=row["restock"],
    )


def _exception(row: Any) -> SaleException:
    return SaleException(
        exception_id=row["exception_id"],
        reason=Difference(row["reason"]),
        order_id=OrderId(row["order_id"]),
        line_id=row["line_id"],
        difference=row["difference"],
        detail=row["detail"],
        posted_at=row["posted_at"],
        resolution=None
        if row["resolved_at"] is None
        else Resolution(note=row["note"], resolved_by=row["resolved_by"], resolved_at=row["resolved_at"]),
    )
