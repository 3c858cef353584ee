"""loyalty's checks over its own rows; on the system role, one tenant at a time.

$1 is the tenant, $2 its business time, $3 machine time. A hold may be overdue for a minute before it is told; what
business time makes due is told as soon as it is.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from services.runtime.audit import MOST, Finding
from services.runtime.database import Connection, raw

# both sides of every entry of an account, as (owner, currency, bucket, points)
_SIDES: Final = """
    SELECT e.owner_id, c.point_currency, s.bucket, sum(s.points) AS points
    FROM entries AS e
    JOIN point_classes AS c ON c.tenant_id = e.tenant_id AND c.class_no = e.class_no
    CROSS JOIN LATERAL (VALUES (e.target, e.points), (e.source, -e.points)) AS s(bucket, points)
    WHERE e.tenant_id = $1::uuid
    GROUP BY e.owner_id, c.point_currency, s.bucket
"""

# each answers how many rows it looked at, and the ids of those that break it; $2 and $3 are named so that every
# statement takes the same parameters
CHECKS: Final[dict[str, str]] = {
    "loyalty.entries_sum_to_balances": f"""
        WITH booked AS (
            SELECT owner_id, point_currency,
                   coalesce(sum(points) FILTER (WHERE bucket = 1), 0) AS pending,
                   coalesce(sum(points) FILTER (WHERE bucket = 2), 0) AS available,
                   coalesce(sum(points) FILTER (WHERE bucket = 3), 0) AS held,
                   coalesce(-sum(points) FILTER (WHERE bucket = 4), 0) AS debt
            FROM ({_SIDES}) AS sides GROUP BY owner_id, point_currency
        )
        SELECT coalesce(a.member_id, b.owner_id)::text AS id,
               (coalesce(a.pending_points, 0), coalesce(a.available_points, 0), coalesce(a.held_points, 0),
                coalesce(a.debt_points, 0))
               IS DISTINCT FROM (coalesce(b.pending, 0), coalesce(b.available, 0), coalesce(b.held, 0),
                                 coalesce(b.debt, 0)) AS broken
        FROM (SELECT * FROM accounts WHERE tenant_id = $1::uuid) AS a
        FULL JOIN booked AS b ON b.owner_id = a.member_id AND b.point_currency = a.point_currency
    """,
    # the outside is what the members are not: over all buckets of a currency the books are zero
    "loyalty.both_sides_are_zero": f"""
        SELECT point_currency AS id, sum(points) <> 0 AS broken
        FROM (
            SELECT point_currency, points FROM ({_SIDES}) AS inside WHERE bucket > 10
            UNION ALL
            SELECT point_currency, pending_points::numeric + available_points + held_points - debt_points
            FROM accounts WHERE tenant_id = $1::uuid
        ) AS every GROUP BY point_currency
    """,
    "loyalty.versions_count_entries_once": """
        SELECT e.owner_id::text AS id, true AS broken
        FROM entries AS e JOIN point_classes AS c ON c.tenant_id = e.tenant_id AND c.class_no = e.class_no
        WHERE e.tenant_id = $1::uuid
        GROUP BY e.owner_id, c.point_currency, e.account_version HAVING count(*) > 1
    """,
    "loyalty.pools_sum_to_available": """
        SELECT a.member_id::text AS id, a.available_points <> coalesce(p.points, 0) AS broken
        FROM accounts AS a
        LEFT JOIN (
            SELECT owner_id, point_currency, sum(earned_points - hole_points - consumed_points) AS points
            FROM whole_pools WHERE tenant_id = $1::uuid GROUP BY owner_id, point_currency
        ) AS p ON p.owner_id = a.member_id AND p.point_currency = a.point_currency
        WHERE a.tenant_id = $1::uuid
    """,
    # a pool's lots follow each other without a gap, and end where the pool says it ends
    "loyalty.lots_are_contiguous": """
        SELECT p.member_id::text AS id, coalesce(l.points, 0) <> p.earned_points OR coalesce(l.gaps, 0) > 0 AS broken
        FROM whole_pools AS p
        LEFT JOIN (
            SELECT member_id, class_no, sum(points) AS points,
                   count(*) FILTER (WHERE end_points - points <> before OR expires_at < expired_before) AS gaps
            FROM (
                SELECT member_id, class_no, points, end_points, expires_at,
                       lag(end_points, 1, 0::bigint) OVER pool AS before, lag(expires_at) OVER pool AS expired_before
                FROM entries WHERE tenant_id = $1::uuid AND expires_at IS NOT NULL
                WINDOW pool AS (PARTITION BY member_id, class_no ORDER BY end_points)
            ) AS lots GROUP BY member_id, class_no
        ) AS l ON l.member_id = p.member_id AND l.class_no = p.class_no
        WHERE p.tenant_id = $1::uuid
    """,
    "loyalty.holes_sum_to_pools": """
        SELECT p.member_id::text AS id, p.hole_points <> coalesce(h.points, 0) AS broken
        FROM pools AS p
        LEFT JOIN (
            SELECT member_id, class_no, sum(points) AS points FROM holes WHERE tenant_id = $1::uuid GROUP BY 1, 2
        ) AS h ON h.member_id = p.member_id AND h.class_no = p.class_no
        WHERE p.tenant_id = $1::uuid
    """,
    # no more expired unused than the entries say; what expired before rows told of it is in the entries only
    "loyalty.expiries_are_booked": """
        SELECT x.member_id::text AS id, x.points > coalesce(e.points, 0) AS broken
        FROM (
            SELECT member_id, class_no, sum(points) AS points FROM expiries WHERE tenant_id = $1::uuid GROUP BY 1, 2
        ) AS x
        LEFT JOIN (
            SELECT member_id, class_no, sum(points) AS points
            FROM entries WHERE tenant_id = $1::uuid AND target = 13 GROUP BY 1, 2
        ) AS e ON e.member_id = x.member_id AND e.class_no = x.class_no
    """,
    # what refunds took of an expired lot is within what of it expired unused
    "loyalty.expired_points_are_taken_back_once": """
        SELECT member_id::text AS id,
               expired_unused($1::uuid, member_id, class_no, end_points) < 0 AS broken
        FROM (
            SELECT DISTINCT member_id, class_no, end_points FROM entries WHERE tenant_id = $1::uuid AND source = 13
        ) AS taken
    """,
    "loyalty.earnings_sum_to_pending": """
        SELECT a.member_id::text AS id, a.pending_points <> coalesce(e.points, 0) AS broken
        FROM accounts AS a
        LEFT JOIN (
            SELECT owner_id, point_currency, sum(pending_points) AS points
            FROM earnings WHERE tenant_id = $1::uuid AND pending_points > 0 GROUP BY 1, 2
        ) AS e ON e.owner_id = a.member_id AND e.point_currency = a.point_currency
        WHERE a.tenant_id = $1::uuid
    """,
    "loyalty.debts_sum_to_accounts": """
        SELECT a.member_id::text AS id, a.debt_points <> coalesce(d.points, 0) AS broken
        FROM accounts AS a
        LEFT JOIN (
            SELECT member_id, point_currency, sum(debt_points) AS points
            FROM debts WHERE tenant_id = $1::uuid GROUP BY 1, 2
        ) AS d ON d.member_id = a.member_id AND d.point_currency = a.point_currency
        WHERE a.tenant_id = $1::uuid
    """,
    "loyalty.open_holds_sum_to_held": """
        SELECT a.member_id::text AS id, a.held_points <> coalesce(h.points, 0) AS broken
        FROM accounts AS a
        LEFT JOIN (
            SELECT member_id, point_currency, sum(held_points) AS points
            FROM holds WHERE tenant_id = $1::uuid AND state = 1 GROUP BY 1, 2
        ) AS h ON h.member_id = a.member_id AND h.point_currency = a.point_currency
        WHERE a.tenant_id = $1::uuid
    """,
    # resolved once: open ones draw what they hold, captured ones at most what was captured, others nothing
    "loyalty.holds_are_resolved_once": """
        SELECT h.hold_id AS id,
               coalesce((SELECT sum(d) FROM unnest(h.draw_points) AS d), 0)
                   > CASE h.state WHEN 1 THEN h.held_points WHEN 2 THEN h.captured_points ELSE 0 END
               OR (h.state = 1) <> (h.resolved_at IS NULL) AS broken
        FROM holds AS h WHERE h.tenant_id = $1::uuid
    """,
    "loyalty.no_hold_is_overdue": """
        SELECT hold_id AS id, expires_at < $3::timestamptz - interval '1 minute' AS broken
        FROM holds WHERE tenant_id = $1::uuid AND state = 1
    """,
    "loyalty.pending_points_have_matured": """
        SELECT earning_id::text AS id, matures_at <= $2::timestamptz AS broken
        FROM earnings WHERE tenant_id = $1::uuid AND pending_points > 0
    """,
    "loyalty.lots_have_expired": """
        SELECT member_id::text AS id, next_expires_at <= $2::timestamptz AS broken
        FROM pools WHERE tenant_id = $1::uuid AND next_expires_at IS NOT NULL
    """,
    "loyalty.tiers_are_judged": """
        SELECT member_id::text AS id, until <= $2::timestamptz AS broken
        FROM member_tiers WHERE tenant_id = $1::uuid AND until IS NOT NULL
    """,
    # what an order earned is on its earnings, once; what came back of it is within it
    "loyalty.orders_sum_to_earnings": """
        SELECT o.order_id::text AS id,
               coalesce((SELECT sum(p) FROM unnest(o.line_points) AS p), 0) <> coalesce(e.points, 0)
               OR cardinality(o.earning_ids) <> coalesce(e.earnings, 0)
               OR (o.wholly_refunded AND o.refunded_quantities = o.quantities
                   AND coalesce(e.taken, 0) <> coalesce(e.points, 0)) AS broken
        FROM orders AS o
        LEFT JOIN (
            SELECT order_id, sum(points) AS points, sum(taken_points) AS taken, count(*) AS earnings
            FROM earnings WHERE tenant_id = $1::uuid GROUP BY order_id
        ) AS e ON e.order_id = o.order_id::text
        WHERE o.tenant_id = $1::uuid
    """,
    "loyalty.earnings_are_booked_once": """
        SELECT coalesce(e.entry_id, g.earning_id)::text AS id,
               g.earning_id IS NULL OR e.points IS DISTINCT FROM g.points OR e.times <> 1 AS broken
        FROM (
            SELECT entry_id, sum(points) AS points, count(*) AS times FROM entries
            WHERE tenant_id = $1::uuid AND kind = 1 AND order_id IS NOT NULL GROUP BY entry_id
        ) AS e
        FULL JOIN (SELECT earning_id, points FROM earnings WHERE tenant_id = $1::uuid) AS g ON g.earning_id = e.entry_id
    """,
    # tier counters are what the orders paid and did not get back
    "loyalty.tier_days_sum_to_orders": """
        SELECT coalesce(d.member_id, o.member_id)::text AS id,
               (d.amount_minor, d.orders) IS DISTINCT FROM (o.amount_minor, o.orders)
               AND (coalesce(d.amount_minor, 0) <> 0 OR coalesce(d.orders, 0) <> 0
                    OR coalesce(o.amount_minor, 0) <> 0 OR coalesce(o.orders, 0) <> 0) AS broken
        FROM (
            SELECT member_id, point_currency, day, amount_minor, orders FROM tier_days WHERE tenant_id = $1::uuid
        ) AS d
        FULL JOIN (
            SELECT coalesce(l.member_id, r.member_id) AS member_id, r.point_currency, r.sold_on AS day,
                   least(sum(r.base_minor - r.refunded_base_minor), 9e18) AS amount_minor,
                   count(*) FILTER (WHERE NOT r.wholly_refunded) AS orders
            FROM orders AS r
            LEFT JOIN aliases AS l ON l.tenant_id = r.tenant_id AND l.alias_id = r.member_id
            WHERE r.tenant_id = $1::uuid AND r.programme_version > 0
            GROUP BY 1, 2, 3
        ) AS o ON o.member_id = d.member_id AND o.point_currency = d.point_currency AND o.day = d.day
    """,
}


def _total(summed: str) -> str:
    """The SQL of a sum as a figure: 0 for none, and at most what 64 bits tell."""
    return f"least(coalesce(sum({summed}), 0), {MOST})::bigint"


def _points(which: str) -> str:
    return f"least(coalesce(sum(points) FILTER (WHERE {which}), 0), {MOST})::bigint"


_FIGURES: Final = f"""
    SELECT
        o.orders AS "loyalty.orders_accrued",
        o.base AS "loyalty.base_minor",
        o.refunded_base AS "loyalty.refunded_base_minor",
        o.burnt AS "loyalty.orders_burnt_points",
        o.returned AS "loyalty.orders_returned_points",
        o.whole AS "loyalty.orders_wholly_refunded",
        o.shortfall AS shortfall_points,
        (SELECT count(*) FROM aliases WHERE tenant_id = $1::uuid) AS identity_members_merged,
        (SELECT count(*) FROM tier_changes WHERE tenant_id = $1::uuid) AS tier_changes,
        (SELECT count(*) FROM holds WHERE tenant_id = $1::uuid AND state = 1) AS holds_open,
        a.*,
        e.*
    FROM (
        SELECT count(*) AS orders, {_total("base_minor")} AS base, {_total("refunded_base_minor")} AS refunded_base,
               {_total("burnt_points")} AS burnt, {_total("returned_points")} AS returned,
               count(*) FILTER (WHERE wholly_refunded) AS whole, {_total("shortfall_points")} AS shortfall
        FROM orders WHERE tenant_id = $1::uuid
    ) AS o
    CROSS JOIN (
        SELECT {_total("pending_points")} AS points_pending, {_total("available_points")} AS points_available,
               {_total("held_points")} AS points_held, {_total("debt_points")} AS points_debt
        FROM accounts WHERE tenant_id = $1::uuid
    ) AS a
    CROSS JOIN (
        SELECT {_points("kind = 1")} AS points_earned,
               {_points("kind = 4")} AS points_burnt,
               {_points("kind = 7 AND source = 12")} AS points_given_back,
               {_points("target = 11")} AS points_taken_back,
               {_total("points * ((target = 13)::int - (source = 13)::int)")} AS points_expired,
               count(*) AS entries
        FROM entries WHERE tenant_id = $1::uuid
    ) AS e
"""


async def run(
    connection: Connection, tenant_id: str, names: Sequence[str], *, now: datetime, machine_now: datetime
) -> list[Finding]:
    """What the checks find, in one statement: all of them see the same moment, whatever is posted meanwhile."""
    if not names:
        return []
    checks = " UNION ALL ".join(
        f"""
        SELECT '{name}' AS name, count(*) AS examined, count(*) FILTER (WHERE broken) AS broken,
               (array_agg(id) FILTER (WHERE broken))[1:5] AS first
        FROM ({CHECKS[name]}) AS checked
        """
        for name in names
    )
    rows = await raw(connection).fetch(
        f"SELECT every.* FROM ({checks}) AS every WHERE $2::timestamptz IS NOT NULL AND $3::timestamptz IS NOT NULL",
        tenant_id,
        now,
        machine_now,
    )
    return [
        Finding(
            check=row["name"],
            ok=row["broken"] == 0,
            examined=row["examined"],
            detail=f"{row['broken']} rows, first {', '.join(row['first'])}" if row["broken"] else "",
        )
        for row in rows
    ]


async def figures(connection: Connection, tenant_id: str) -> dict[str, int]:
    """Named totals; another service that tells one of these names must tell the same number."""
    return dict(await raw(connection).fetchrow(_FIGURES, tenant_id))
