"""Usage facts: what paid and refunded orders used, recorded a block of events at a time."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.campaign.domain.coupons import CouponState
from services.campaign.domain.usage import CouponFact, Given, PaidOrder, Refund, UsageSource, UsedCoupon
from services.runtime.database import Connection, raw
from services.runtime.ids import is_id

_ORDERS = """
    INSERT INTO order_usages (tenant_id, order_id, member_id, store_id, offline, occurred_at)
    SELECT $1::uuid, o.order_id, o.member_id, o.store_id, o.offline, o.occurred_at
    FROM unnest($2::text[], $3::uuid[], $4::text[], $5::boolean[], $6::timestamptz[])
         AS o(order_id, member_id, store_id, offline, occurred_at)
    ON CONFLICT (tenant_id, order_id) DO NOTHING
    RETURNING order_id
"""
# Locked, so that a hold can't be given back between this look and our commit; held ones will be captured. Every probe
# is a LATERAL that can't be pulled up: a plan is kept until statistics change, and would read the whole tenant before.
_CLAIMED = """
    WITH named AS MATERIALIZED (
        SELECT f.client_id, f.hold_id
        FROM (SELECT DISTINCT order_id FROM unnest($2::text[]) AS w(order_id)) AS w
        CROSS JOIN LATERAL (
            SELECT client_id, hold_id FROM benefit_holds
            WHERE tenant_id = $1::uuid AND order_id = w.order_id
            OFFSET 0
        ) AS f
        ORDER BY f.client_id, f.hold_id
    ), holds AS MATERIALIZED (
        SELECT l.*
        FROM named AS n
        CROSS JOIN LATERAL (
            SELECT client_id, hold_id, order_id FROM benefit_holds
            WHERE tenant_id = $1::uuid AND client_id = n.client_id AND hold_id = n.hold_id
              AND state IN ('held', 'captured')
            LIMIT 1
            FOR NO KEY UPDATE
        ) AS l
    )
    SELECT h.order_id, l.promotion_id, sum(l.amount_minor)::bigint AS amount_minor
    FROM holds AS h
    CROSS JOIN LATERAL (
        SELECT promotion_id, amount_minor FROM budget_claims
        WHERE tenant_id = $1::uuid AND client_id = h.client_id AND hold_id = h.hold_id
        OFFSET 0
    ) AS l
    GROUP BY h.order_id, l.promotion_id
"""
# the order is the one that used the coupon, or whose hold holds it
_LOCK_COUPONS = """
    SELECT c.coupon_id::text, c.template_id, c.state, c.version, coalesce(c.order_id, (
        SELECT h.order_id
        FROM benefit_holds AS h
        WHERE h.tenant_id = c.tenant_id AND h.client_id = c.holder_client AND h.hold_id = c.holder_hold
    ), '') AS order_id
    FROM coupons AS c
    WHERE c.tenant_id = $1::uuid AND c.coupon_id = ANY ($2::uuid[])
    ORDER BY c.coupon_id
    FOR NO KEY UPDATE OF c
"""
# a coupon that its order's hold holds stays held: only its version moves with the event; the rows are locked, so their
# ctid stands, and the planner takes it if it expects one item: `BETWEEN` always holds
_SETTLE_COUPONS = """
    UPDATE coupons AS c
    SET state = n.state, version = n.version,
        order_id = CASE WHEN n.state = 'used' THEN n.order_id END
    FROM (
        SELECT i.*, r.ctid AS coupon_row
        FROM unnest($2::uuid[], $3::text[], $4::text[], $5::bigint[])
             WITH ORDINALITY AS i(coupon_id, state, order_id, version, ord)
        CROSS JOIN LATERAL (
            SELECT ctid FROM coupons WHERE tenant_id = $1::uuid AND coupon_id = i.coupon_id LIMIT 1
        ) AS r
        WHERE i.ord BETWEEN 1 AND 1000000
    ) AS n
    WHERE c.tenant_id = $1::uuid AND c.ctid = n.coupon_row
"""
_DISCOUNTS = """
    INSERT INTO discount_usages (tenant_id, order_id, source, source_id, template_id, given_minor, uncovered_minor,
                                 excess)
    SELECT $1::uuid, d.order_id, d.source, d.source_id, d.template_id, d.given_minor, d.uncovered_minor, d.excess
    FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::boolean[])
         AS d(order_id, source, source_id, template_id, given_minor, uncovered_minor, excess)
"""
# counters of promotions, locked in id order; a promotion that nobody made here is only in the facts. They end at 9e18:
# a brand's absurd sales must not stop the queue, which other brands share
_COUNT = """
    WITH locked AS MATERIALIZED (
        SELECT p.promotion_id, n.given_minor, n.uncovered_minor, n.refunded_minor
        FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
             AS n(promotion_id, given_minor, uncovered_minor, refunded_minor)
        JOIN promotions AS p ON p.tenant_id = $1::uuid AND p.promotion_id = n.promotion_id
        ORDER BY p.promotion_id
        FOR NO KEY UPDATE OF p
    )
    UPDATE promotions AS p
    SET given_minor = least(p.given_minor + n.given_minor::numeric, 9e18)::bigint,
        uncovered_minor = least(p.uncovered_minor + n.uncovered_minor::numeric, 9e18)::bigint,
        refunded_minor = least(p.refunded_minor + n.refunded_minor::numeric, 9e18)::bigint
    FROM locked AS n
    WHERE p.tenant_id = $1::uuid AND p.promotion_id = n.promotion_id
"""
_REFUNDS = """
    INSERT INTO refund_usages (tenant_id, refund_id, order_id, refunded_minor, whole_order, occurred_at)
    SELECT $1::uuid, r.refund_id, r.order_id, r.refunded_minor, r.whole_order, r.occurred_at
    FROM unnest($2::text[], $3::text[], $4::bigint[], $5::boolean[], $6::timestamptz[])
         AS r(refund_id, order_id, refunded_minor, whole_order, occurred_at)
    ON CONFLICT (tenant_id, refund_id) DO NOTHING
    RETURNING refund_id
"""
# a refund of what was never told as given is still a fact; the audit points at it
_GIVE_BACK = """
    INSERT INTO discount_usages (tenant_id, order_id, source, source_id, template_id, given_minor, uncovered_minor,
                                 refunded_minor)
    SELECT $1::uuid, d.order_id, d.source, d.source_id, d.template_id, 0, 0, d.refunded_minor
    FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[])
         AS d(order_id, source, source_id, template_id, refunded_minor)
    ON CONFLICT (tenant_id, order_id, source, source_id) DO UPDATE
    SET refunded_minor = discount_usages.refunded_minor + excluded.refunded_minor
"""
# only the consumer of the order's partition changes its row, one event after the other: the ctid stands without a lock
_WHOLE = """
    UPDATE order_usages AS o
    SET refunded_at = n.refunded_at
    FROM (
        SELECT i.refunded_at, r.ctid AS order_row
        FROM unnest($2::text[], $3::timestamptz[]) WITH ORDINALITY AS i(order_id, refunded_at, ord)
        CROSS JOIN LATERAL (
            SELECT ctid FROM order_usages WHERE tenant_id = $1::uuid AND order_id = i.order_id LIMIT 1
        ) AS r
        WHERE i.ord BETWEEN 1 AND 1000000
    ) AS n
    WHERE o.tenant_id = $1::uuid AND o.ctid = n.order_row
"""
_NAMED = """
    SELECT source_id, order_id
    FROM discount_usages
    WHERE tenant_id = $1::uuid AND order_id = ANY ($2::text[]) AND source = 'coupon'
"""
# returnable by the version that the coupon was issued under; ids as parameters, so that coupons are found by their key
_RETURN = """
    WITH locked AS MATERIALIZED (
        SELECT c.coupon_id, c.order_id, o.refunded_at
        FROM unnest($2::uuid[], $3::text[]) AS n(coupon_id, order_id)
        JOIN coupons AS c
          ON c.tenant_id = $1::uuid AND c.coupon_id = n.coupon_id AND c.order_id = n.order_id AND c.state = 'used'
         AND c.coupon_id = ANY ($2::uuid[])
        JOIN order_usages AS o
          ON o.tenant_id = $1::uuid AND o.order_id = n.order_id AND o.refunded_at IS NOT NULL
        JOIN template_versions AS t
          ON t.tenant_id = $1::uuid AND t.template_id = c.template_id AND t.version = c.template_version
         AND t.returnable
        ORDER BY c.coupon_id
        FOR NO KEY UPDATE OF c
    )
    UPDATE coupons AS c
    SET state = 'issued', order_id = NULL, version = c.version + 1
    FROM locked AS l
    WHERE c.tenant_id = $1::uuid AND c.coupon_id = l.coupon_id AND c.coupon_id = ANY ($2::uuid[])
    RETURNING c.coupon_id::text, c.template_id, c.member_id::text, l.order_id, l.refunded_at, c.version
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnedCoupon:
    """A coupon that came back from a wholly refunded order, at the business time of the refund."""

    coupon_id: str
    template_id: str
    member_id: str
    order_id: str
    refunded_at: datetime
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionCount:
    """What is added to a promotion's counters, in minor units."""

    given_minor: int = 0
    uncovered_minor: int = 0
    refunded_minor: int = 0


async def record_orders(connection: Connection, tenant_id: str, orders: Sequence[PaidOrder]) -> frozenset[str]:
    """Writes the orders and returns the ids of those that were not known."""
    rows = await raw(connection).fetch(
        _ORDERS,
        tenant_id,
        [order.order_id for order in orders],
        [order.member_id or None for order in orders],
        [order.store_id for order in orders],
        [order.offline for order in orders],
        [order.occurred_at for order in orders],
    )
    return frozenset(row[0] for row in rows)


async def claimed(connection: Connection, tenant_id: str, order_ids: Collection[str]) -> dict[tuple[str, str], int]:
    """What holds claimed of budgets by (order, promotion), in minor units; the holds are locked."""
    rows = await raw(connection).fetch(_CLAIMED, tenant_id, list(order_ids))
    return {(row["order_id"], row["promotion_id"]): row["amount_minor"] for row in rows}


async def lock_coupons(connection: Connection, tenant_id: str, coupon_ids: Collection[str]) -> dict[str, UsedCoupon]:
    """The coupons that exist, locked in id order."""
    rows = await raw(connection).fetch(_LOCK_COUPONS, tenant_id, list(coupon_ids))
    return {
        row["coupon_id"]: UsedCoupon(
            coupon_id=row["coupon_id"],
            template_id=row["template_id"],
            state=CouponState(row["state"]),
            order_id=row["order_id"],
            version=row["version"],
        )
        for row in rows
    }


async def settle_coupons(connection: Connection, tenant_id: str, coupons: Collection[UsedCoupon]) -> None:
    """Writes locked coupons as they stand after the orders."""
    await raw(connection).execute(
        _SETTLE_COUPONS,
        tenant_id,
        [coupon.coupon_id for coupon in coupons],
        [coupon.state.value for coupon in coupons],
        [coupon.order_id for coupon in coupons],
        [coupon.version for coupon in coupons],
    )


async def record_discounts(
    connection: Connection,
    tenant_id: str,
    promotions: Sequence[tuple[str, Given, int]],
    coupons: Sequence[CouponFact],
) -> None:
    """Writes what promotions gave, as (order, given, uncovered), and what coupons gave."""
    rows = [(order_id, given, uncovered, False) for order_id, given, uncovered in promotions]
    rows += [(fact.order.order_id, fact.given, 0, fact.excess) for fact in coupons]
    await raw(connection).execute(
        _DISCOUNTS,
        tenant_id,
        [order_id for order_id, _, _, _ in rows],
        [given.source.value for _, given, _, _ in rows],
        [given.source_id for _, given, _, _ in rows],
        [given.template_id for _, given, _, _ in rows],
        [given.amount_minor for _, given, _, _ in rows],
        [uncovered for _, _, uncovered, _ in rows],
        [excess for _, _, _, excess in rows],
    )


async def count(connection: Connection, tenant_id: str, counts: Mapping[str, PromotionCount]) -> None:
    """Adds to the promotions' counters."""
    await raw(connection).execute(
        _COUNT,
        tenant_id,
        list(counts),
        [each.given_minor for each in counts.values()],
        [each.uncovered_minor for each in counts.values()],
        [each.refunded_minor for each in counts.values()],
    )


async def record_refunds(connection: Connection, tenant_id: str, refunds: Sequence[Refund]) -> frozenset[str]:
    """Writes the refunds and returns the ids of those that were not known."""
    rows = await raw(connection).fetch(
        _REFUNDS,
        tenant_id,
        [refund.refund_id for refund in refunds],
        [refund.order_id for refund in refunds],
        [sum(given.amount_minor for given in refund.given_back) for refund in refunds],
        [refund.whole_order for refund in refunds],
        [refund.occurred_at for refund in refunds],
    )
    return frozenset(row[0] for row in rows)


async def give_back(
    connection: Connection, tenant_id: str, amounts: Mapping[tuple[str, UsageSource, str, str], int]
) -> None:
    """Adds refunded amounts by (order, source, source id, template), in minor units."""
    keys = list(amounts)
    await raw(connection).execute(
        _GIVE_BACK,
        tenant_id,
        [key[0] for key in keys],
        [key[1].value for key in keys],
        [key[2] for key in keys],
        [key[3] for key in keys],
        list(amounts.values()),
    )


async def mark_whole(connection: Connection, tenant_id: str, orders: Mapping[str, datetime]) -> None:
    """Notes since when nothing is left of these orders, in business time."""
    await raw(connection).execute(_WHOLE, tenant_id, list(orders), list(orders.values()))


async def return_coupons(connection: Connection, tenant_id: str, order_ids: Iterable[str]) -> list[ReturnedCoupon]:
    """Gives back the returnable coupons that these wholly refunded orders used."""
    driver = raw(connection)
    # a till may have told anything while it was off-line
    named = [row for row in await driver.fetch(_NAMED, tenant_id, list(order_ids)) if is_id(row["source_id"])]
    if not named:
        return []
    rows = await driver.fetch(
        _RETURN, tenant_id, [row["source_id"] for row in named], [row["order_id"] for row in named]
    )
    return [
        ReturnedCoupon(
            coupon_id=row["coupon_id"],
            template_id=row["template_id"],
            member_id=row["member_id"] or "",
            order_id=row["order_id"],
            refunded_at=row["refunded_at"],
            version=row["version"],
        )
        for row in rows
    ]
