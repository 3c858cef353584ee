"""campaign's checks over its own rows; on the system role, one tenant at a time, in one snapshot."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from services.runtime.audit import MOST, Finding
from services.runtime.database import Connection, raw

# each answers how many rows it looked at, how many break the rule, and the first of those
CHECKS: Final[dict[str, str]] = {
    # a minute is what the sweeper may take to come to it
    "campaign.holds_none_overdue": """
        SELECT count(*) AS examined, count(*) FILTER (WHERE h.overdue) AS broken,
               (array_agg(h.hold_id) FILTER (WHERE h.overdue))[1:5] AS first
        FROM (
            SELECT hold_id, state = 'held' AND expires_at < clock_timestamp() - interval '60 s' AS overdue
            FROM benefit_holds
            WHERE tenant_id = $1::uuid AND state <> 'tombstone'
        ) AS h
    """,
    # a coupon is held by exactly the standing hold that claims it
    "campaign.held_coupons_have_their_hold": """
        SELECT count(*) AS examined, count(*) FILTER (WHERE l.coupon_id IS NULL OR c.coupon_id IS NULL) AS broken,
               (array_agg(coalesce(c.coupon_id, l.coupon_id)::text)
                   FILTER (WHERE l.coupon_id IS NULL OR c.coupon_id IS NULL))[1:5] AS first
        FROM (
            SELECT coupon_id, holder_client AS client_id, holder_hold AS hold_id
            FROM coupons
            WHERE tenant_id = $1::uuid AND state = 'held'
        ) AS c
        FULL JOIN (
            SELECT l.coupon_id, l.client_id, l.hold_id
            FROM coupon_claims AS l
            JOIN benefit_holds AS h
              ON h.tenant_id = l.tenant_id AND h.client_id = l.client_id AND h.hold_id = l.hold_id
            WHERE l.tenant_id = $1::uuid AND h.state = 'held'
        ) AS l USING (coupon_id, client_id, hold_id)
    """,
    # a used coupon names an order that captured a claim on it, or that commerce told of
    "campaign.used_coupons_have_their_order": """
        SELECT count(*) AS examined, count(*) FILTER (WHERE NOT u.known) AS broken,
               (array_agg(u.coupon_id::text) FILTER (WHERE NOT u.known))[1:5] AS first
        FROM (
            SELECT c.coupon_id, EXISTS (
                SELECT FROM coupon_claims AS l
                JOIN benefit_holds AS h
                  ON h.tenant_id = l.tenant_id AND h.client_id = l.client_id AND h.hold_id = l.hold_id
                WHERE h.tenant_id = c.tenant_id AND h.order_id = c.order_id AND h.state = 'captured'
                  AND l.coupon_id = c.coupon_id
            ) OR EXISTS (
                SELECT FROM discount_usages AS d
                WHERE d.tenant_id = c.tenant_id AND d.order_id = c.order_id AND d.source = 'coupon'
                  AND d.source_id = c.coupon_id::text
            ) AS known
            FROM coupons AS c
            WHERE c.tenant_id = $1::uuid AND c.state = 'used'
        ) AS u
    """,
    # within its window a coupon is used by one order; what else names it is marked as excess
    "campaign.coupons_used_once": """
        SELECT count(*) AS examined, count(*) FILTER (WHERE u.standing > 1) AS broken,
               (array_agg(u.source_id) FILTER (WHERE u.standing > 1))[1:5] AS first
        FROM (
            SELECT d.source_id, count(*) FILTER (WHERE NOT d.excess AND o.refunded_at IS NULL) AS standing
            FROM discount_usages AS d
            JOIN order_usages AS o ON o.tenant_id = d.tenant_id AND o.order_id = d.order_id
            WHERE d.tenant_id = $1::uuid AND d.source = 'coupon'
            GROUP BY d.source_id
        ) AS u
    """,
    "campaign.claims_sum_to_budgets": """
        SELECT count(*) AS examined, count(*) FILTER (WHERE s.broken) AS broken,
               (array_agg(s.promotion_id) FILTER (WHERE s.broken))[1:5] AS first
        FROM (
            SELECT p.promotion_id,
                   (p.held_minor, p.captured_minor) IS DISTINCT FROM (
                       coalesce(sum(l.amount_minor) FILTER (WHERE h.state = 'held'), 0),
                       coalesce(sum(l.amount_minor) FILTER (WHERE h.state = 'captured'), 0)) AS broken
            FROM promotions AS p
            LEFT JOIN budget_claims AS l ON l.tenant_id = p.tenant_id AND l.promotion_id = p.promotion_id
            LEFT JOIN benefit_holds AS h
              ON h.tenant_id = l.tenant_id AND h.client_id = l.client_id AND h.hold_id = l.hold_id
            WHERE p.tenant_id = $1::uuid
            GROUP BY p.promotion_id, p.held_minor, p.captured_minor
        ) AS s
    """,
    "campaign.usages_sum_to_promotions": """
        SELECT count(*) AS examined, count(*) FILTER (WHERE s.broken) AS broken,
               (array_agg(s.promotion_id) FILTER (WHERE s.broken))[1:5] AS first
        FROM (
            SELECT p.promotion_id,
                   (p.given_minor, p.uncovered_minor, p.refunded_minor) IS DISTINCT FROM (
                       least(coalesce(sum(d.given_minor), 0), 9e18), least(coalesce(sum(d.uncovered_minor), 0), 9e18),
                       least(coalesce(sum(d.refunded_minor), 0), 9e18)) AS broken
            FROM promotions AS p
            LEFT JOIN discount_usages AS d
              ON d.tenant_id = p.tenant_id AND d.source = 'promotion' AND d.source_id = p.promotion_id
            WHERE p.tenant_id = $1::uuid
            GROUP BY p.promotion_id, p.given_minor, p.uncovered_minor, p.refunded_minor
        ) AS s
    """,
    "campaign.refunds_within_given": """
        SELECT count(*) AS examined, count(*) FILTER (WHERE d.refunded_minor > d.given_minor) AS broken,
               (array_agg(d.order_id) FILTER (WHERE d.refunded_minor > d.given_minor))[1:5] AS first
        FROM discount_usages AS d
        WHERE d.tenant_id = $1::uuid
    """,
    "campaign.refunds_sum_to_usages": """
        SELECT count(*) AS examined, count(*) FILTER (WHERE r.refunded IS DISTINCT FROM d.refunded) AS broken,
               (array_agg(coalesce(r.order_id, d.order_id))
                   FILTER (WHERE r.refunded IS DISTINCT FROM d.refunded))[1:5] AS first
        FROM (
            SELECT order_id, sum(refunded_minor) AS refunded
            FROM refund_usages
            WHERE tenant_id = $1::uuid AND refunded_minor > 0
            GROUP BY order_id
        ) AS r
        FULL JOIN (
            SELECT order_id, sum(refunded_minor) AS refunded
            FROM discount_usages
            WHERE tenant_id = $1::uuid AND refunded_minor > 0
            GROUP BY order_id
        ) AS d USING (order_id)
    """,
    "campaign.issued_coupons_are_counted": """
        SELECT count(*) AS examined, count(*) FILTER (WHERE t.issued <> t.counted) AS broken,
               (array_agg(t.template_id) FILTER (WHERE t.issued <> t.counted))[1:5] AS first
        FROM (
            SELECT t.template_id, t.issued, count(c.coupon_id) AS counted
            FROM templates AS t
            LEFT JOIN coupons AS c ON c.tenant_id = t.tenant_id AND c.template_id = t.template_id
            WHERE t.tenant_id = $1::uuid
            GROUP BY t.template_id, t.issued
        ) AS t
    """,
    # what holds took never exceeds the largest budget there was; only facts may, and those are off-line sales
    "campaign.budgets_not_oversold": """
        SELECT count(*) AS examined, count(*) FILTER (WHERE b.taken > b.budget) AS broken,
               (array_agg(b.promotion_id) FILTER (WHERE b.taken > b.budget))[1:5] AS first
        FROM (
            SELECT p.promotion_id, p.held_minor + p.captured_minor - p.refunded_minor AS taken,
                   max(v.budget_minor) AS budget
            FROM promotions AS p
            JOIN promotion_versions AS v ON v.tenant_id = p.tenant_id AND v.promotion_id = p.promotion_id
            WHERE p.tenant_id = $1::uuid
            GROUP BY p.promotion_id, p.held_minor, p.captured_minor, p.refunded_minor
            HAVING min(v.budget_minor) > 0
        ) AS b
    """,
}

_FIGURES: Final = f"""
    SELECT
        (SELECT count(*) FROM order_usages WHERE tenant_id = $1::uuid) AS "campaign.orders_seen",
        (SELECT count(*) FROM refund_usages WHERE tenant_id = $1::uuid) AS "campaign.refunds_seen",
        (SELECT count(*) FROM order_usages WHERE tenant_id = $1::uuid AND refunded_at IS NOT NULL)
            AS "campaign.orders_wholly_refunded",
        d.given AS "campaign.discount_given_minor",
        d.refunded AS "campaign.discount_refunded_minor",
        d.coupons AS "campaign.coupons_used",
        d.excess AS "campaign.coupons_used_in_excess",
        (SELECT count(*) FROM coupons WHERE tenant_id = $1::uuid) AS "campaign.coupons_issued",
        (SELECT count(*) FROM member_aliases WHERE tenant_id = $1::uuid) AS identity_members_merged
    FROM (
        SELECT least(coalesce(sum(given_minor), 0), {MOST})::bigint AS given,
               least(coalesce(sum(refunded_minor), 0), {MOST})::bigint AS refunded,
               count(*) FILTER (WHERE source = 'coupon' AND given_minor > 0) AS coupons,
               count(*) FILTER (WHERE excess) AS excess
        FROM discount_usages
        WHERE tenant_id = $1::uuid
    ) AS d
"""


async def run(
    connection: Connection, tenant_id: str, names: Sequence[str], *, now: datetime, machine_now: datetime
) -> list[Finding]:
    """What the checks find. They look at no clock of ours: the database's own is machine time."""
    return [await _check(connection, tenant_id, name) for name in names]


async def _check(connection: Connection, tenant_id: str, name: str) -> Finding:
    row = await raw(connection).fetchrow(CHECKS[name], tenant_id)
    detail = f"{row['broken']} rows, first {', '.join(row['first'])}" if row["broken"] else ""
    return Finding(check=name, ok=row["broken"] == 0, examined=row["examined"], detail=detail)


async def figures(connection: Connection, tenant_id: str) -> dict[str, int]:
    """Named totals; another service that tells one of these names must tell the same number."""
    return dict(await raw(connection).fetchrow(_FIGURES, tenant_id))
