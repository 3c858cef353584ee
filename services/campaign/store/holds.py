"""Holds of coupons and budgets. Rows are locked in one order everywhere: holds, then coupons, then promotions."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from services.campaign.domain.benefits import BenefitsHold, Budget, HoldKey, ToHold
from services.campaign.domain.coupons import Coupon
from services.campaign.store.coupons import coupon_of
from services.runtime.database import Connection, constraint_of, raw
from services.runtime.errors import AlreadyExists
from services.runtime.holds import TOMBSTONE_KEPT, HoldState
from services.runtime.ids import HoldId, PromotionId

MAX_DUE = 200
_HOLD_KEYS = frozenset({"benefit_holds_key", "coupon_claims_key", "budget_claims_key"})

# the lock first, then what commerce said of the order: an event that commits meanwhile must be seen
_LOCK = """
    SELECT client_id, hold_id, state, order_id, expires_at
    FROM benefit_holds
    WHERE tenant_id = $1::uuid AND client_id = $2 AND hold_id = $3
    FOR NO KEY UPDATE
"""
_LOCK_DUE = """
    SELECT client_id, hold_id, state, order_id, expires_at
    FROM benefit_holds
    WHERE tenant_id = $1::uuid AND state = 'held' AND expires_at <= $2
    ORDER BY client_id, hold_id
    LIMIT $3
    FOR NO KEY UPDATE SKIP LOCKED
"""
_PAID = """
    SELECT order_id, wholly_refunded
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
_LOCK_BUDGETS = """
    SELECT promotion_id, budget_minor, held_minor + captured_minor + uncovered_minor - refunded_minor AS taken_minor
    FROM promotions
    WHERE tenant_id = $1::uuid AND promotion_id = ANY ($2::text[])
    ORDER BY promotion_id
    FOR NO KEY UPDATE
"""
# everything that a hold takes, in one statement; the rows are locked and checked
_HOLD = """
    WITH hold AS (
        INSERT INTO benefit_holds (tenant_id, client_id, hold_id, state, member_id, order_id, expires_at)
        VALUES ($1::uuid, $2, $3, 'held', $4::uuid, $5, $6)
    ), coupon_uses AS (
        SELECT * FROM unnest($7::uuid[], $8::bigint[]) AS u(coupon_id, amount_minor)
    ), coupon_claim AS (
        INSERT INTO coupon_claims (tenant_id, client_id, hold_id, coupon_id, amount_minor)
        SELECT $1::uuid, $2, $3, u.coupon_id, u.amount_minor FROM coupon_uses AS u
    ), coupon_held AS (
        UPDATE coupons AS c
        SET state = 'held', holder_client = $2, holder_hold = $3, held_until = $6
        FROM coupon_uses AS u
        WHERE c.tenant_id = $1::uuid AND c.coupon_id = u.coupon_id
    ), budget_uses AS (
        SELECT * FROM unnest($9::text[], $10::bigint[]) AS u(promotion_id, amount_minor)
    ), budget_claim AS (
        INSERT INTO budget_claims (tenant_id, client_id, hold_id, promotion_id, amount_minor)
        SELECT $1::uuid, $2, $3, u.promotion_id, u.amount_minor FROM budget_uses AS u
    )
    UPDATE promotions AS p
    SET held_minor = p.held_minor + u.amount_minor
    FROM budget_uses AS u
    WHERE p.tenant_id = $1::uuid AND p.promotion_id = u.promotion_id
"""
_KEYS = "unnest($2::text[], $3::text[]) AS k(client_id, hold_id)"
# the inner SELECT locks in id order, so that two of these can't deadlock
_LOCKED_COUPONS = f"""
    SELECT c.coupon_id, h.order_id
    FROM {_KEYS}
    JOIN benefit_holds AS h
      ON h.tenant_id = $1::uuid AND h.client_id = k.client_id AND h.hold_id = k.hold_id
    JOIN coupon_claims AS l
      ON l.tenant_id = $1::uuid AND l.client_id = k.client_id AND l.hold_id = k.hold_id
    JOIN coupons AS c
      ON c.tenant_id = $1::uuid AND c.coupon_id = l.coupon_id
     AND c.state = 'held' AND c.holder_client = k.client_id AND c.holder_hold = k.hold_id
    ORDER BY c.coupon_id
    FOR NO KEY UPDATE OF c
"""
_FREE_COUPONS = f"""
    UPDATE coupons AS c
    SET state = 'issued', holder_client = NULL, holder_hold = NULL, held_until = NULL
    FROM ({_LOCKED_COUPONS}) AS l
    WHERE c.tenant_id = $1::uuid AND c.coupon_id = l.coupon_id
"""
_USE_COUPONS = f"""
    UPDATE coupons AS c
    SET state = 'used', order_id = l.order_id, holder_client = NULL, holder_hold = NULL, held_until = NULL
    FROM ({_LOCKED_COUPONS}) AS l
    WHERE c.tenant_id = $1::uuid AND c.coupon_id = l.coupon_id
"""
_SETTLE_BUDGETS = f"""
    WITH claims AS (
        SELECT l.promotion_id, sum(l.amount_minor)::bigint AS amount_minor
        FROM {_KEYS}
        JOIN budget_claims AS l
          ON l.tenant_id = $1::uuid AND l.client_id = k.client_id AND l.hold_id = k.hold_id
        GROUP BY l.promotion_id
    ), locked AS MATERIALIZED (
        SELECT p.promotion_id, c.amount_minor
        FROM claims AS c
        JOIN promotions AS p ON p.tenant_id = $1::uuid AND p.promotion_id = c.promotion_id
        ORDER BY p.promotion_id
        FOR NO KEY UPDATE OF p
    )
    UPDATE promotions AS p
    SET held_minor = p.held_minor - l.amount_minor,
        captured_minor = p.captured_minor + CASE WHEN $4 THEN l.amount_minor ELSE 0 END
    FROM locked AS l
    WHERE p.tenant_id = $1::uuid AND p.promotion_id = l.promotion_id
"""
_RESOLVE = f"""
    UPDATE benefit_holds AS h
    SET state = $4, resolved_at = $5
    FROM {_KEYS}
    WHERE h.tenant_id = $1::uuid AND h.client_id = k.client_id AND h.hold_id = k.hold_id AND h.state = 'held'
"""
_TOMBSTONE = """
    INSERT INTO benefit_holds (tenant_id, client_id, hold_id, state, order_id, expires_at, resolved_at)
    VALUES ($1::uuid, $2, $3, 'tombstone', '', $4, $5)
    ON CONFLICT (tenant_id, client_id, hold_id) DO NOTHING
    RETURNING true
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


async def lock(connection: Connection, tenant_id: str, key: HoldKey) -> BenefitsHold | None:
    """The hold, locked, with what is known of its order; None if there is none."""
    row = await raw(connection).fetchrow(_LOCK, tenant_id, key.client_id, key.hold_id)
    if row is None:
        return None
    return (await _with_orders(connection, tenant_id, [row]))[0]


async def lock_due(
    connection: Connection, tenant_id: str, *, machine_now: datetime, limit: int = MAX_DUE
) -> list[BenefitsHold]:
    """Holds whose time is over, locked; those that another transaction is busy with are left to it."""
    rows = await raw(connection).fetch(_LOCK_DUE, tenant_id, machine_now, limit)
    return await _with_orders(connection, tenant_id, rows) if rows else []


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
        )
        for row in rows
    }


async def hold(connection: Connection, tenant_id: str, wanted: ToHold, *, machine_now: datetime) -> BenefitsHold:
    """Writes a hold whose coupons and budgets are locked and free. Raises AlreadyExists (HOLD_EXISTS) in a race."""
    key = wanted.key
    expires_at = machine_now + wanted.time_to_live
    try:
        await raw(connection).execute(
            _HOLD,
            tenant_id,
            key.client_id,
            key.hold_id,
            wanted.member_id or None,
            wanted.order_id,
            expires_at,
            [use.coupon_id for use in wanted.coupons],
            [use.amount_minor for use in wanted.coupons],
            [use.promotion_id for use in wanted.budgets],
            [use.amount_minor for use in wanted.budgets],
        )
    except Exception as error:
        # the statement's parts insert in any order, so that any of the three may meet the other hold first
        if constraint_of(error) in _HOLD_KEYS:
            raise AlreadyExists(
                f"hold {key.hold_id!r} exists; a new hold needs a new id", reason="HOLD_EXISTS"
            ) from error
        raise
    return BenefitsHold(key=key, state=HoldState.HELD, order_id=wanted.order_id, expires_at=expires_at)


async def settle(
    connection: Connection, tenant_id: str, keys: Sequence[HoldKey], state: HoldState, *, machine_now: datetime
) -> None:
    """Captures locked holds, or gives back what they hold (VOIDED, EXPIRED)."""
    if not keys:
        return
    captured = state is HoldState.CAPTURED
    names = [key.client_id for key in keys], [key.hold_id for key in keys]
    driver = raw(connection)
    await driver.execute(_USE_COUPONS if captured else _FREE_COUPONS, tenant_id, *names)
    await driver.execute(_SETTLE_BUDGETS, tenant_id, *names, captured)
    await driver.execute(_RESOLVE, tenant_id, *names, state.value, machine_now)


async def tombstone(connection: Connection, tenant_id: str, key: HoldKey, *, machine_now: datetime) -> bool:
    """Leaves a tombstone, kept for 7 days; False if the hold has come meanwhile."""
    until = machine_now + TOMBSTONE_KEPT
    return bool(await raw(connection).fetchval(_TOMBSTONE, tenant_id, key.client_id, key.hold_id, until, machine_now))


async def due_tenants(connection: Connection, *, machine_now: datetime, limit: int) -> list[str]:
    """Tenants that have holds whose time is over, on the system role."""
    return [row[0] for row in await raw(connection).fetch(_DUE_TENANTS, machine_now, limit)]


async def forget_tombstones(connection: Connection, *, machine_now: datetime, limit: int) -> int:
    """Deletes tombstones that are old enough, on the system role; how many there were."""
    status = await raw(connection).execute(_FORGET, machine_now, limit)
    return int(status.rpartition(" ")[2])


async def _with_orders(connection: Connection, tenant_id: str, rows: Sequence[Any]) -> list[BenefitsHold]:
    orders = sorted({row["order_id"] for row in rows if row["order_id"]})
    paid = {}
    if orders:
        paid = {row[0]: row[1] for row in await raw(connection).fetch(_PAID, tenant_id, orders)}
    return [
        BenefitsHold(
            key=HoldKey(client_id=row["client_id"], hold_id=HoldId(row["hold_id"])),
            state=HoldState(row["state"]),
            order_id=row["order_id"],
            expires_at=row["expires_at"],
            is_paid=row["order_id"] in paid,
            is_refunded=paid.get(row["order_id"], False),
        )
        for row in rows
    ]
