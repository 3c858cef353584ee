"""Holds of coupons and budgets. Rows are locked in one order everywhere: holds, then coupons, then promotions."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from services.campaign.domain.benefits import BenefitsHold, Book, Budget, BudgetUse, CouponUse, HoldKey
from services.campaign.domain.coupons import Coupon
from services.campaign.store.coupons import coupon_of
from services.runtime.database import Connection, constraint_of, raw
from services.runtime.errors import Conflict
from services.runtime.holds import HoldState
from services.runtime.ids import CouponId, HoldId, PromotionId

MAX_DUE = 200
_HOLD_KEYS = frozenset({"benefit_holds_key", "coupon_claims_key", "budget_claims_key"})

# A statement keeps its first plan until statistics change, and before they do the planner takes a tenant's holds for a
# few and reads them all. A LATERAL that can't be pulled up (LIMIT, OFFSET) is a probe of the key whatever it thinks.
_KEYS = "unnest($2::text[], $3::text[]) AS k(client_id, hold_id)"
_LOCK = f"""
    WITH wanted AS MATERIALIZED (
        SELECT DISTINCT client_id, hold_id FROM {_KEYS} ORDER BY client_id, hold_id
    )
    SELECT h.*
    FROM wanted AS w
    CROSS JOIN LATERAL (
        SELECT client_id, hold_id, state, order_id, expires_at, member_id::text
        FROM benefit_holds
        WHERE tenant_id = $1::uuid AND client_id = w.client_id AND hold_id = w.hold_id
        LIMIT 1
        FOR NO KEY UPDATE
    ) AS h
"""
_LOCK_DUE = """
    SELECT client_id, hold_id, state, order_id, expires_at, member_id::text
    FROM benefit_holds
    WHERE tenant_id = $1::uuid AND state = 'held' AND expires_at <= $2
    ORDER BY expires_at
    LIMIT $3
    FOR NO KEY UPDATE SKIP LOCKED
"""
_CLAIMS = f"""
    SELECT k.client_id, k.hold_id, l.coupon_id::text, NULL AS promotion_id, l.amount_minor
    FROM {_KEYS}
    CROSS JOIN LATERAL (
        SELECT coupon_id, amount_minor FROM coupon_claims
        WHERE tenant_id = $1::uuid AND client_id = k.client_id AND hold_id = k.hold_id
        OFFSET 0
    ) AS l
    UNION ALL
    SELECT k.client_id, k.hold_id, NULL, l.promotion_id, l.amount_minor
    FROM {_KEYS}
    CROSS JOIN LATERAL (
        SELECT promotion_id, amount_minor FROM budget_claims
        WHERE tenant_id = $1::uuid AND client_id = k.client_id AND hold_id = k.hold_id
        OFFSET 0
    ) AS l
"""
# asked after the holds are locked: an event that commits meanwhile must be seen
_PAID = """
    SELECT order_id, refunded_at IS NOT NULL
    FROM order_usages
    WHERE tenant_id = $1::uuid AND order_id = ANY ($2::text[])
"""
_LOCK_COUPONS = """
    SELECT c.coupon_id::text, c.template_id, c.template_version, c.member_id::text, c.state, c.valid_from,
           c.valid_until, c.held_until
    FROM coupons AS c
    WHERE c.tenant_id = $1::uuid AND c.coupon_id = ANY ($2::uuid[])
    ORDER BY c.coupon_id
    FOR NO KEY UPDATE
"""
# counters end at 9e18 each (`store/usage.py`): sums are taken of numerics, and end there as well
_LOCK_BUDGETS = """
    SELECT promotion_id, budget_minor,
           least(held_minor::numeric + captured_minor + uncovered_minor - refunded_minor, 9e18)::bigint AS taken_minor,
           least(held_minor::numeric + captured_minor, 9e18)::bigint AS claimed_minor
    FROM promotions
    WHERE tenant_id = $1::uuid AND promotion_id = ANY ($2::text[])
    ORDER BY promotion_id
    FOR NO KEY UPDATE
"""
# A whole page in one statement: every row that it changes is locked, so that the order of its parts does not matter and
# a row is found by its ctid. Items are `BETWEEN 1 AND 1000000`, which always holds: the planner expects one of them
# then, and goes by the ctid.
_WRITE = """
    WITH made AS (
        INSERT INTO benefit_holds (tenant_id, client_id, hold_id, state, member_id, order_id, expires_at, resolved_at)
        SELECT $1::uuid, h.client_id, h.hold_id, h.state, h.member_id, h.order_id, h.expires_at,
               CASE WHEN h.state <> 'held' THEN $2::timestamptz END
        FROM unnest($3::text[], $4::text[], $5::text[], $6::uuid[], $7::text[], $8::timestamptz[])
             AS h(client_id, hold_id, state, member_id, order_id, expires_at)
    ), coupon_claim AS (
        INSERT INTO coupon_claims (tenant_id, client_id, hold_id, coupon_id, amount_minor)
        SELECT $1::uuid, l.client_id, l.hold_id, l.coupon_id, l.amount_minor
        FROM unnest($9::text[], $10::text[], $11::uuid[], $12::bigint[])
             AS l(client_id, hold_id, coupon_id, amount_minor)
    ), budget_claim AS (
        INSERT INTO budget_claims (tenant_id, client_id, hold_id, promotion_id, amount_minor)
        SELECT $1::uuid, l.client_id, l.hold_id, l.promotion_id, l.amount_minor
        FROM unnest($13::text[], $14::text[], $15::text[], $16::bigint[])
             AS l(client_id, hold_id, promotion_id, amount_minor)
    ), resolved AS (
        UPDATE benefit_holds AS h
        SET state = k.state, resolved_at = $2
        FROM (
            SELECT i.state, r.ctid AS hold_row
            FROM unnest($17::text[], $18::text[], $19::text[]) WITH ORDINALITY AS i(client_id, hold_id, state, ord)
            CROSS JOIN LATERAL (
                SELECT ctid FROM benefit_holds
                WHERE tenant_id = $1::uuid AND client_id = i.client_id AND hold_id = i.hold_id
                LIMIT 1
            ) AS r
            WHERE i.ord BETWEEN 1 AND 1000000
        ) AS k
        WHERE h.tenant_id = $1::uuid AND h.ctid = k.hold_row
    ), coupon AS (
        UPDATE coupons AS c
        SET state = n.state, holder_client = n.holder_client, holder_hold = n.holder_hold,
            held_until = n.held_until, order_id = n.order_id
        FROM (
            SELECT i.*, r.ctid AS coupon_row
            FROM unnest($20::uuid[], $21::text[], $22::text[], $23::text[], $24::timestamptz[], $25::text[])
                 WITH ORDINALITY AS i(coupon_id, state, holder_client, holder_hold, held_until, order_id, ord)
            CROSS JOIN LATERAL (
                SELECT ctid FROM coupons WHERE tenant_id = $1::uuid AND coupon_id = i.coupon_id LIMIT 1
            ) AS r
            WHERE i.ord BETWEEN 1 AND 1000000
        ) AS n
        WHERE c.tenant_id = $1::uuid AND c.ctid = n.coupon_row
    )
    UPDATE promotions AS p
    SET held_minor = p.held_minor + n.held_minor, captured_minor = p.captured_minor + n.captured_minor
    FROM (
        SELECT i.*, r.ctid AS promotion_row
        FROM unnest($26::text[], $27::bigint[], $28::bigint[])
             WITH ORDINALITY AS i(promotion_id, held_minor, captured_minor, ord)
        CROSS JOIN LATERAL (
            SELECT ctid FROM promotions WHERE tenant_id = $1::uuid AND promotion_id = i.promotion_id LIMIT 1
        ) AS r
        WHERE i.ord BETWEEN 1 AND 1000000
    ) AS n
    WHERE p.tenant_id = $1::uuid AND p.ctid = n.promotion_row
"""
_DUE_TENANTS = """
    SELECT DISTINCT tenant_id::text
    FROM benefit_holds
    WHERE state = 'held' AND expires_at <= $1
    LIMIT $2
"""
_FORGET = """
    DELETE FROM benefit_holds
    WHERE (tenant_id, client_id, hold_id) IN (
        SELECT tenant_id, client_id, hold_id
        FROM benefit_holds
        WHERE state = 'tombstone' AND expires_at <= $1
        LIMIT $2
    )
"""


async def lock(connection: Connection, tenant_id: str, keys: Collection[HoldKey]) -> list[BenefitsHold]:
    """Those of the holds that exist, locked, with their claims and what is known of their orders."""
    rows = await raw(connection).fetch(_LOCK, tenant_id, [key.client_id for key in keys], [key.hold_id for key in keys])
    return await _whole(connection, tenant_id, rows)


async def lock_due(
    connection: Connection, tenant_id: str, *, machine_now: datetime, limit: int = MAX_DUE
) -> list[BenefitsHold]:
    """Holds whose time is over, locked; those that another transaction is busy with are left to it."""
    rows = await raw(connection).fetch(_LOCK_DUE, tenant_id, machine_now, limit)
    return await _whole(connection, tenant_id, rows)


async def lock_coupons(connection: Connection, tenant_id: str, coupon_ids: Collection[str]) -> dict[str, Coupon]:
    """The coupons that exist, locked in id order."""
    if not coupon_ids:
        return {}
    rows = await raw(connection).fetch(_LOCK_COUPONS, tenant_id, list(coupon_ids))
    return {row["coupon_id"]: coupon_of(row) for row in rows}


async def lock_budgets(connection: Connection, tenant_id: str, promotion_ids: Collection[str]) -> dict[str, Budget]:
    """The budgets of the promotions that exist, locked in id order."""
    if not promotion_ids:
        return {}
    rows = await raw(connection).fetch(_LOCK_BUDGETS, tenant_id, list(promotion_ids))
    return {
        row["promotion_id"]: Budget(
            promotion_id=PromotionId(row["promotion_id"]),
            budget_minor=row["budget_minor"],
            taken_minor=row["taken_minor"],
            claimed_minor=row["claimed_minor"],
        )
        for row in rows
    }


async def write(connection: Connection, tenant_id: str, book: Book) -> None:
    """Writes what operations did to a page. Raises Conflict if a hold of the same name came at this moment."""
    made = [book.holds[key] for key in book.made]
    resolved = [book.holds[key] for key in book.resolved]
    if not made and not resolved:
        return
    coupon_claims = [(hold.key, use) for hold in made for use in hold.coupons]
    budget_claims = [(hold.key, use) for hold in made for use in hold.budgets]
    changes = book.coupon_changes.values()
    try:
        await raw(connection).execute(
            _WRITE,
            tenant_id,
            book.machine_now,
            *_columns([(h.key.client_id, h.key.hold_id, h.state.value) for h in made], 3),
            *_columns([(h.member_id or None, h.order_id, h.expires_at) for h in made], 3),
            *_columns([(k.client_id, k.hold_id, use.coupon_id, use.amount_minor) for k, use in coupon_claims], 4),
            *_columns([(k.client_id, k.hold_id, use.promotion_id, use.amount_minor) for k, use in budget_claims], 4),
            *_columns([(h.key.client_id, h.key.hold_id, h.state.value) for h in resolved], 3),
            list(book.coupon_changes),
            [change.state.value for change in changes],
            [change.holder.client_id if change.holder else None for change in changes],
            [change.holder.hold_id if change.holder else None for change in changes],
            [change.held_until for change in changes],
            [change.order_id for change in changes],
            list(book.budget_changes),
            [change.held_minor for change in book.budget_changes.values()],
            [change.captured_minor for change in book.budget_changes.values()],
        )
    except Exception as error:
        # the statement's parts insert in any order, so that any of the three may meet the other hold first
        if constraint_of(error) in _HOLD_KEYS:
            raise Conflict("another call makes a hold of this name at this moment; try again") from error
        raise


async def due_tenants(connection: Connection, *, machine_now: datetime, limit: int) -> list[str]:
    """Tenants that have holds whose time is over, on the system role."""
    return [row[0] for row in await raw(connection).fetch(_DUE_TENANTS, machine_now, limit)]


async def forget_tombstones(connection: Connection, *, machine_now: datetime, limit: int) -> int:
    """Deletes tombstones that are old enough, on the system role; how many there were."""
    status = await raw(connection).execute(_FORGET, machine_now, limit)
    return int(status.rpartition(" ")[2])


async def _whole(connection: Connection, tenant_id: str, rows: Sequence[Any]) -> list[BenefitsHold]:
    """The holds in locked rows, with their claims and what commerce told of their orders."""
    if not rows:
        return []
    driver = raw(connection)
    clients, holds = [row["client_id"] for row in rows], [row["hold_id"] for row in rows]
    coupons: dict[tuple[str, str], list[CouponUse]] = defaultdict(list)
    budgets: dict[tuple[str, str], list[BudgetUse]] = defaultdict(list)
    for row in await driver.fetch(_CLAIMS, tenant_id, clients, holds):
        name, amount_minor = (row["client_id"], row["hold_id"]), row["amount_minor"]
        if row["coupon_id"] is not None:
            coupons[name].append(CouponUse(coupon_id=CouponId(row["coupon_id"]), amount_minor=amount_minor))
        else:
            budgets[name].append(BudgetUse(promotion_id=PromotionId(row["promotion_id"]), amount_minor=amount_minor))
    orders = sorted({row["order_id"] for row in rows if row["order_id"]})
    paid = {row[0]: row[1] for row in await driver.fetch(_PAID, tenant_id, orders)} if orders else {}
    return [
        BenefitsHold(
            key=HoldKey(client_id=row["client_id"], hold_id=HoldId(row["hold_id"])),
            state=HoldState(row["state"]),
            order_id=row["order_id"],
            expires_at=row["expires_at"],
            member_id=row["member_id"] or "",
            coupons=tuple(coupons[row["client_id"], row["hold_id"]]),
            budgets=tuple(budgets[row["client_id"], row["hold_id"]]),
            is_paid=row["order_id"] in paid,
            is_refunded=paid.get(row["order_id"], False),
        )
        for row in rows
    ]


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """The rows' columns, `width` of them also where there is no row."""
    return [[row[at] for row in rows] for at in range(width)]
