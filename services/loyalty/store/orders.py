"""Orders as they were accrued, and what posting and refunding them does to the ledger. All of it set by set."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.loyalty.domain.orders import AccruedOrder, Inverse
from services.runtime.database import Connection, raw

OFFLINE_HOLD = "offline:"
"""The name of the hold that an off-line sale's burn is kept under, before the order's id; it is no client's."""
SELLER = "service:commerce"
"""Who holds points for an order."""

_ENTER = "SELECT members::text[], owing FROM enter($1::uuid, $2, $4, $3::uuid[])"
# lots that were spent and that expired count: a pool's total only grows
_COLLECTED = """
    SELECT (SELECT coalesce(sum(earned_points), 0) FROM pools
            WHERE tenant_id = $1::uuid AND owner_id = $2::uuid AND point_currency = $3)
         + (SELECT coalesce(sum(pending_points), 0) FROM accounts
            WHERE tenant_id = $1::uuid AND member_id = $2::uuid AND point_currency = $3)
"""
_KNOWN = "SELECT order_id::text FROM orders WHERE tenant_id = $1::uuid AND order_id = ANY($2::uuid[])"
_LOCK_ORDERS = """
    SELECT order_id::text, member_id::text, point_currency, store_id, occurred_at, sold_on, programme_version,
           line_ids, quantities, refunded_quantities, line_bases, earning_ids::text[], line_points, burnt_points,
           hold_id, refunded_base_minor, returned_points, shortfall_points, undrawn_points, wholly_refunded,
           order_version
    FROM orders
    WHERE tenant_id = $1::uuid AND order_id = ANY($2::uuid[])
    ORDER BY order_id
    FOR UPDATE
"""
_INSERT_ORDER = """
    INSERT INTO orders (tenant_id, order_id, member_id, point_currency, store_id, occurred_at, sold_on,
                        programme_version, base_minor, line_ids, quantities, refunded_quantities, line_bases,
                        earning_ids, line_points, burnt_points, hold_id, shortfall_points, undrawn_points)
    VALUES ($1::uuid, $2::uuid, $3::uuid, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14::uuid[], $15, $16, $17, $18,
            $19)
"""
_UPDATE_ORDER = """
    UPDATE orders
    SET refunded_quantities = $3, refunded_base_minor = $4, returned_points = $5, shortfall_points = $6,
        wholly_refunded = $7, order_version = $8
    WHERE tenant_id = $1::uuid AND order_id = $2::uuid
"""
_POST = """
    SELECT versions
    FROM post_points($1::uuid, $2, $3, $4, $5::uuid[], $6, $7, $8::uuid[], $9, $10, $11, $12, $13, $14, $15, $16, $17)
"""
# the account is entered, so this stands until the burn
_AVAILABLE = """
    SELECT available_points FROM accounts WHERE tenant_id = $1::uuid AND member_id = $2::uuid AND point_currency = $3
"""
# the sale burnt off-line what no hold had drawn: a fact, so what is not there becomes debt
_BURN = """
    SELECT draw_hold(ROW($1::uuid, $2::uuid, $3, $4, $5, 'spent off-line', $6, $7)::cause, '', $8, $9, $10, $11),
           end_hold(ROW($1::uuid, $2::uuid, $3, $4, $5, 'spent off-line', $6, $7)::cause, '', $8, 2::smallint, $9, $10)
"""
_REFUND = """
    SELECT shortfalls
    FROM refund_points($1::uuid, $2, $3::uuid[], $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14::uuid[], $15)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Earning:
    """One rule's points of one order, ready to be posted; pending until `matures_at`."""

    earning_id: str
    order_id: str
    member_id: str
    point_currency: str
    class_no: int
    points: int
    expires_at: datetime
    matures_at: datetime | None
    occurred_at: datetime
    why: str
    store_id: str
    channel: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineBurn:
    """Points that an off-line sale spent; what is not there becomes debt of `debt_class_no`, or nothing."""

    order_id: str
    member_id: str
    point_currency: str
    points: int
    debt_class_no: int
    debt_forbidden: bool
    occurred_at: datetime
    store_id: str
    channel: str


async def enter(
    connection: Connection, tenant_id: str, now: datetime, accounts: Sequence[tuple[str, str]]
) -> tuple[dict[tuple[str, str], str], bool]:
    """Locks the (member, currency) accounts in one order and posts what is due.

    Returns whose account each of them is now (a merge may have committed while we waited), and whether one has debt.
    """
    ordered = sorted(set(accounts))
    if not ordered:
        return {}, False
    members, owing = await raw(connection).fetchrow(
        _ENTER, tenant_id, now, [member for member, _ in ordered], [currency for _, currency in ordered]
    )
    return dict(zip(ordered, members, strict=True)), bool(owing)


async def collected(connection: Connection, tenant_id: str, *, member_id: str, point_currency: str) -> int:
    """All points that the member was ever given in the currency. The account is entered, so this stands."""
    return int(await raw(connection).fetchval(_COLLECTED, tenant_id, member_id, point_currency))


async def known(connection: Connection, tenant_id: str, order_ids: Sequence[str]) -> set[str]:
    """Those of the orders that were accrued before."""
    return {row["order_id"] for row in await raw(connection).fetch(_KNOWN, tenant_id, order_ids)}


async def lock(connection: Connection, tenant_id: str, order_ids: Collection[str]) -> dict[str, AccruedOrder]:
    """The accrued orders by id, locked. Their accounts are entered: who waits for an account has no order."""
    rows = await raw(connection).fetch(_LOCK_ORDERS, tenant_id, sorted(set(order_ids)))
    return {row["order_id"]: _order(row) for row in rows}


async def insert(connection: Connection, tenant_id: str, orders: Sequence[AccruedOrder]) -> None:
    """Stores new orders."""
    await raw(connection).executemany(
        _INSERT_ORDER,
        [
            (
                tenant_id,
                order.order_id,
                order.member_id,
                order.point_currency,
                order.store_id,
                order.occurred_at,
                order.sold_on,
                order.programme_version,
                sum(order.line_bases),
                order.line_ids,
                order.quantities,
                order.refunded_quantities,
                order.line_bases,
                order.earning_ids,
                [points for row in order.line_points for points in row],
                order.burnt_points,
                order.hold_id or None,
                order.shortfall_points,
                order.undrawn_points,
            )
            for order in orders
        ],
    )


async def update(connection: Connection, tenant_id: str, orders: Sequence[AccruedOrder]) -> None:
    """Stores what refunds changed in the orders."""
    await raw(connection).executemany(
        _UPDATE_ORDER,
        [
            (
                tenant_id,
                order.order_id,
                order.refunded_quantities,
                order.refunded_base_minor,
                order.returned_points,
                order.shortfall_points,
                order.wholly_refunded,
                order.version,
            )
            for order in orders
        ],
    )


async def burn_offline(
    connection: Connection, tenant_id: str, now: datetime, burns: Sequence[OfflineBurn]
) -> dict[str, int]:
    """Draws what off-line sales spent. The accounts are entered. Returns what was not drawn, by order, in points.

    What is not there becomes debt, or stays undrawn where debt is forbidden."""
    driver = raw(connection)
    undrawn: dict[str, int] = {}
    for burn in burns:
        points = burn.points
        if burn.debt_forbidden:
            available = await driver.fetchval(_AVAILABLE, tenant_id, burn.member_id, burn.point_currency)
            points = min(points, available)
            undrawn[burn.order_id] = burn.points - points
        if not points:
            continue
        await driver.fetch(
            _BURN,
            tenant_id,
            burn.member_id,
            burn.point_currency,
            burn.occurred_at,
            burn.order_id,
            burn.store_id,
            burn.channel,
            OFFLINE_HOLD + burn.order_id,
            points,
            now,
            burn.debt_class_no,
        )
    return undrawn


async def post(
    connection: Connection, tenant_id: str, now: datetime, earnings: Sequence[Earning], *, owing: bool
) -> None:
    """Posts what orders earned: pending while their return window is open. The accounts are entered."""
    if not earnings:
        return
    await raw(connection).fetch(
        _POST,
        tenant_id,
        now,
        owing,
        [True for _ in earnings],
        [each.member_id for each in earnings],
        [each.point_currency for each in earnings],
        [each.class_no for each in earnings],
        [each.earning_id for each in earnings],
        [each.points for each in earnings],
        [each.expires_at for each in earnings],
        [each.matures_at for each in earnings],
        [each.occurred_at for each in earnings],
        [each.order_id for each in earnings],
        [each.why for each in earnings],
        [each.store_id for each in earnings],
        [each.channel for each in earnings],
        [True for _ in earnings],
    )


async def refund(
    connection: Connection,
    tenant_id: str,
    now: datetime,
    refunds: Sequence[tuple[Inverse, datetime, str]],
    *,
    debt_allowed: Sequence[bool],
) -> list[int]:
    """Gives back, then takes back, refund by refund: (inverse, when, reason); their shortfalls in points."""
    gives = [(i, inverse.order.hold_id, inverse.given_points) for i, (inverse, _, _) in enumerate(refunds, 1)]
    gives = [give for give in gives if give[2]]
    takes = [(i, *taken) for i, (inverse, _, _) in enumerate(refunds, 1) for taken in inverse.taken]
    shortfalls: list[int] = await raw(connection).fetchval(
        _REFUND,
        tenant_id,
        now,
        [inverse.order.member_id for inverse, _, _ in refunds],
        [inverse.order.point_currency for inverse, _, _ in refunds],
        [occurred_at for _, occurred_at, _ in refunds],
        [inverse.order.order_id for inverse, _, _ in refunds],
        [reason for _, _, reason in refunds],
        list(debt_allowed),
        [give[0] for give in gives],
        ["" if give[1].startswith(OFFLINE_HOLD) else SELLER for give in gives],
        [give[1] for give in gives],
        [give[2] for give in gives],
        [take[0] for take in takes],
        [take[1] for take in takes],
        [take[2] for take in takes],
    )
    return shortfalls


def _order(row: Any) -> AccruedOrder:
    lines = len(row["line_ids"])
    flat = row["line_points"]
    return AccruedOrder(
        order_id=row["order_id"],
        member_id=row["member_id"],
        point_currency=row["point_currency"],
        store_id=row["store_id"],
        occurred_at=row["occurred_at"],
        sold_on=row["sold_on"],
        programme_version=row["programme_version"],
        line_ids=tuple(row["line_ids"]),
        quantities=tuple(row["quantities"]),
        refunded_quantities=tuple(row["refunded_quantities"]),
        line_bases=tuple(row["line_bases"]),
        earning_ids=tuple(row["earning_ids"]),
        line_points=tuple(tuple(flat[i : i + lines]) for i in range(0, len(flat), lines)),
        burnt_points=row["burnt_points"],
        hold_id=row["hold_id"] or "",
        refunded_base_minor=row["refunded_base_minor"],
        returned_points=row["returned_points"],
        shortfall_points=row["shortfall_points"],
        undrawn_points=row["undrawn_points"],
        wholly_refunded=row["wholly_refunded"],
        version=row["order_version"],
    )
