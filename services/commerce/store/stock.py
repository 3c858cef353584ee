"""Stock rows are locked in the order of SKUs, decided on in the domain, and written with the lines that tell of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.commerce.domain.stock import DocumentKind, Level, Movement
from services.runtime.database import Connection, raw
from services.runtime.holds import HoldState
from services.runtime.ids import OrderId, Sku, StoreId, new_id

# in SKU order: two orders that lock the same rows must not deadlock
_LOCK = """
    SELECT s.sku, s.on_hand, s.reserved, s.shortfall, s.version
    FROM stock AS s
    WHERE s.tenant_id = $1::uuid AND s.store_id = $2 AND s.sku = ANY($3::text[])
    ORDER BY s.sku
    FOR NO KEY UPDATE
"""
_READ = """
    SELECT s.sku, s.on_hand, s.reserved, s.shortfall, s.version
    FROM stock AS s
    WHERE s.tenant_id = $1::uuid AND s.store_id = $2 AND s.sku = $3
"""
# in SKU order, for the same reason
_MAKE = """
    INSERT INTO stock (tenant_id, store_id, sku, on_hand)
    SELECT $1::uuid, $2, n.sku, 0
    FROM unnest($3::text[]) AS n(sku)
    ORDER BY n.sku
    ON CONFLICT (tenant_id, store_id, sku) DO NOTHING
"""
_SET = """
    UPDATE stock AS s
    SET on_hand = v.on_hand, reserved = v.reserved, shortfall = v.shortfall, version = v.version
    FROM unnest($3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
         AS v(sku, on_hand, reserved, shortfall, version)
    WHERE s.tenant_id = $1::uuid AND s.store_id = $2 AND s.sku = v.sku
"""
# documents, their lines and the new levels in one statement: the rows are locked already
_POST = f"""
    WITH documents AS (
        INSERT INTO stock_documents (tenant_id, document_id, kind, store_id, order_id, refund_id, reason, occurred_at)
        SELECT $1::uuid, d.document_id, d.kind, $2, $15::uuid, $16::uuid, $17, $18
        FROM unnest($13::uuid[], $14::smallint[]) AS d(document_id, kind)
    ), posted AS (
        INSERT INTO stock_lines (tenant_id, store_id, sku, version, document_id, change, on_hand_after)
        SELECT $1::uuid, $2, p.sku, p.version, p.document_id, p.change, p.on_hand_after
        FROM unnest($8::text[], $9::bigint[], $10::uuid[], $11::bigint[], $12::bigint[])
             AS p(sku, version, document_id, change, on_hand_after)
    )
    {_SET}
"""
_HOLD = """
    INSERT INTO stock_holds (tenant_id, order_id, store_id, state, skus, quantities, expires_at)
    VALUES ($1::uuid, $2::uuid, $3, 'held', $4::text[], $5::bigint[], $6)
"""
_FIND_HOLD = """
    SELECT h.store_id, h.state, h.skus, h.quantities, h.expires_at
    FROM stock_holds AS h
    WHERE h.tenant_id = $1::uuid AND h.order_id = $2::uuid
    FOR UPDATE
"""
# by its key: said plainly, the state would lead to the index of the open holds, and all of the tenant's are read there
_RESOLVE_HOLD = """
    UPDATE stock_holds
    SET state = $3, resolved_at = clock_timestamp()
    WHERE tenant_id = $1::uuid AND order_id = $2::uuid AND (state = 'held') IS TRUE
"""
_LINES = """
    SELECT l.document_id::text, d.kind, l.change, l.on_hand_after, coalesce(d.order_id::text, '') AS order_id,
           d.occurred_at, d.reason, l.version
    FROM stock_lines AS l
    JOIN stock_documents AS d ON d.tenant_id = l.tenant_id AND d.document_id = l.document_id
    WHERE l.tenant_id = $1::uuid AND l.store_id = $2 AND l.sku = $3 AND l.version < $4
    ORDER BY l.version DESC
    LIMIT $5
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why goods move: the order or refund, the words, and the business time."""

    occurred_at: datetime
    order_id: str | None = None
    refund_id: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StockHold:
    """An order's reservation."""

    store_id: StoreId
    state: HoldState
    demand: dict[Sku, int]
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StockLine:
    """One posted line, with its document."""

    document_id: str
    kind: DocumentKind
    change: int
    on_hand_after: int
    order_id: str
    occurred_at: datetime
    reason: str
    version: int


async def lock(
    connection: Connection, tenant_id: str, store_id: StoreId, skus: Sequence[Sku], *, make: bool = False
) -> dict[Sku, Level]:
    """The levels of the SKUs in the store, locked; `make` makes absent rows, else they are left out."""
    if not skus:
        return {}
    wanted = list(skus)
    rows = await raw(connection).fetch(_LOCK, tenant_id, store_id, wanted)
    if make and len(rows) < len(wanted):
        await raw(connection).execute(_MAKE, tenant_id, store_id, wanted)
        rows = await raw(connection).fetch(_LOCK, tenant_id, store_id, wanted)
    return {row["sku"]: _level(row) for row in rows}


async def read(connection: Connection, tenant_id: str, store_id: StoreId, sku: Sku) -> Level:
    """The level; zeros where nothing was ever posted."""
    row = await raw(connection).fetchrow(_READ, tenant_id, store_id, sku)
    return Level(sku=sku) if row is None else _level(row)


async def write(
    connection: Connection, tenant_id: str, store_id: StoreId, movement: Movement, cause: Cause
) -> dict[DocumentKind, str]:
    """Writes a movement of locked rows, one document per kind of line; answers the documents' ids."""
    if not movement.levels:
        return {}
    levels = movement.levels
    parameters: list[Any] = [
        tenant_id,
        store_id,
        [level.sku for level in levels],
        [level.on_hand for level in levels],
        [level.reserved for level in levels],
        [level.shortfall for level in levels],
        [level.version for level in levels],
    ]
    documents = {kind: new_id() for kind in dict.fromkeys(posting.kind for posting in movement.postings)}
    if not documents:
        status = await raw(connection).execute(_SET, *parameters)
    else:
        postings = movement.postings
        status = await raw(connection).execute(
            _POST,
            *parameters,
            [posting.sku for posting in postings],
            [posting.version for posting in postings],
            [documents[posting.kind] for posting in postings],
            [posting.change for posting in postings],
            [posting.on_hand_after for posting in postings],
            list(documents.values()),
            list(documents),
            cause.order_id,
            cause.refund_id,
            cause.reason,
            cause.occurred_at,
        )
    assert status == f"UPDATE {len(levels)}", f"{status} of {len(levels)} stock rows"
    return documents


async def hold(
    connection: Connection,
    tenant_id: str,
    order_id: OrderId,
    *,
    store_id: StoreId,
    demand: Mapping[Sku, int],
    expires_at: datetime,
) -> None:
    """Writes an order's reservation; the levels are written beside it."""
    await raw(connection).execute(_HOLD, tenant_id, order_id, store_id, list(demand), list(demand.values()), expires_at)


async def find_hold(connection: Connection, tenant_id: str, order_id: OrderId) -> StockHold | None:
    """The order's reservation, locked; None for an order that reserved nothing."""
    row = await raw(connection).fetchrow(_FIND_HOLD, tenant_id, order_id)
    if row is None:
        return None
    return StockHold(
        store_id=row["store_id"],
        state=HoldState(row["state"]),
        demand=dict(zip(row["skus"], row["quantities"], strict=True)),
        expires_at=row["expires_at"],
    )


async def resolve_hold(connection: Connection, tenant_id: str, order_id: OrderId, state: HoldState) -> None:
    """Resolves a reservation that is held and locked."""
    status = await raw(connection).execute(_RESOLVE_HOLD, tenant_id, order_id, state.value)
    assert status == "UPDATE 1", "a reservation is resolved twice"


async def lines(
    connection: Connection, tenant_id: str, store_id: StoreId, sku: Sku, *, before: int, limit: int
) -> tuple[StockLine, ...]:
    """Posted lines, newest first, below a version."""
    rows = await raw(connection).fetch(_LINES, tenant_id, store_id, sku, before, limit)
    return tuple(
        StockLine(
            document_id=row["document_id"],
            kind=DocumentKind(row["kind"]),
            change=row["change"],
            on_hand_after=row["on_hand_after"],
            order_id=row["order_id"],
            occurred_at=row["occurred_at"],
            reason=row["reason"],
            version=row["version"],
        )
        for row in rows
    )


def _level(row: Any) -> Level:
    return Level(
        sku=row["sku"],
        on_hand=row["on_hand"],
        reserved=row["reserved"],
        shortfall=row["shortfall"],
        version=row["version"],
    )
