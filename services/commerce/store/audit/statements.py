"""Statements against the entries on them, and payouts against statements."""

from typing import Final

CHECKS: Final = {
    # a statement is its lines: entries of its own party, each on one statement
    "commerce.statements_sum_to_their_lines": """
        SELECT coalesce(s.statement_id, l.statement_id)::text AS id,
               (s.line_count, s.earned_minor, s.clawed_back_minor)
               IS DISTINCT FROM (coalesce(l.lines, 0), coalesce(l.earned, 0), coalesce(l.clawed_back, 0))
               OR coalesce(l.strays, 0) > 0 AS broken
        FROM (SELECT * FROM statements WHERE tenant_id = $1::uuid) AS s
        FULL JOIN (
            SELECT l.statement_id, count(*) AS lines,
                   coalesce(sum(e.amount_minor) FILTER (WHERE NOT l.claw_back), 0)::bigint AS earned,
                   coalesce(-sum(e.amount_minor) FILTER (WHERE l.claw_back), 0)::bigint AS clawed_back,
                   count(*) FILTER (
                       WHERE (e.party_kind, e.party_id) IS DISTINCT FROM (t.party_kind, t.party_id)
                   ) AS strays
            FROM statement_lines AS l
            LEFT JOIN settlement_entries AS e
              ON e.tenant_id = l.tenant_id AND e.order_id = l.order_id AND e.refund_no = l.refund_no
             AND e.line_no = l.line_no AND e.entry_no = l.entry_no
            LEFT JOIN statements AS t ON t.tenant_id = l.tenant_id AND t.statement_id = l.statement_id
            WHERE l.tenant_id = $1::uuid
            GROUP BY l.statement_id
        ) AS l ON l.statement_id = s.statement_id
    """,
    # a party's statements follow each other without a gap, and each begins with what the one before carried
    "commerce.statements_carry_on": """
        SELECT s.party_kind || '/' || s.party_id || '/' || s.statement_no AS id,
               s.statement_no <> coalesce(s.last_no, 0) + 1 OR s.carried_in_minor <> coalesce(s.last_carried, 0)
               OR s.from_day IS DISTINCT FROM s.last_day + 1 OR s.to_day <= s.last_day
               OR (s.next_no IS NULL AND (a.statement_no, a.closed_to_day, a.carried_minor)
                                         IS DISTINCT FROM (s.statement_no, s.to_day, s.carried_out_minor)) AS broken
        FROM (
            SELECT party_kind, party_id, statement_no, from_day, to_day, carried_in_minor, carried_out_minor,
                   lag(statement_no) OVER party AS last_no, lag(carried_out_minor) OVER party AS last_carried,
                   lag(to_day) OVER party AS last_day, lead(statement_no) OVER party AS next_no
            FROM statements
            WHERE tenant_id = $1::uuid
            WINDOW party AS (PARTITION BY party_kind, party_id ORDER BY statement_no)
        ) AS s
        LEFT JOIN settlement_accounts AS a
          ON a.tenant_id = $1::uuid AND a.party_kind = s.party_kind AND a.party_id = s.party_id
    """,
    # nothing is payable before the return window is over, nor while a share may still move (below refund 0) from a
    # supplier to the next; and only what an earlier statement holds is clawed back
    "commerce.statements_wait_for_the_window": """
        SELECT l.order_id || '/' || l.line_no || '/' || l.refund_no AS id,
               o.state <> 5 OR o.closes_at > ((s.to_day + 1)::timestamp AT TIME ZONE t.time_zone)
               OR e.occurred_at >= ((s.to_day + 1)::timestamp AT TIME ZONE t.time_zone)
               OR m.moved_at >= ((s.to_day + 1)::timestamp AT TIME ZONE t.time_zone)
               OR l.claw_back <> (l.refund_no > 0 AND EXISTS (
                   SELECT 1
                   FROM statement_lines AS p
                   JOIN statements AS w ON w.tenant_id = p.tenant_id AND w.statement_id = p.statement_id
                   WHERE p.tenant_id = l.tenant_id AND p.order_id = l.order_id AND p.line_no = l.line_no
                     AND p.refund_no <= 0 AND (w.party_kind, w.party_id) = (s.party_kind, s.party_id)
                     AND w.statement_no < s.statement_no
               )) AS broken
        FROM statement_lines AS l
        JOIN statements AS s ON s.tenant_id = l.tenant_id AND s.statement_id = l.statement_id
        JOIN orders AS o ON o.tenant_id = l.tenant_id AND o.order_id = l.order_id
        JOIN settlement_entries AS e
          ON e.tenant_id = l.tenant_id AND e.order_id = l.order_id AND e.refund_no = l.refund_no
         AND e.line_no = l.line_no AND e.entry_no = l.entry_no
        JOIN tenants AS t ON t.tenant_id = l.tenant_id
        LEFT JOIN (
            SELECT order_id, max(occurred_at) AS moved_at
            FROM settlement_entries WHERE tenant_id = $1::uuid AND refund_no < 0 GROUP BY order_id
        ) AS m ON m.order_id = l.order_id
        WHERE l.tenant_id = $1::uuid
    """,
    # paid (3) and returned (4) take turns, beginning with paid, and only where something is payable
    "commerce.payouts_take_turns": """
        SELECT p.statement_id || '/' || p.payout_no AS id,
               p.state <> CASE WHEN p.turn % 2 = 1 THEN 3 ELSE 4 END OR p.payout_no <> p.turn
               OR s.payable_minor IS NULL OR s.payable_minor = 0 AS broken
        FROM (
            SELECT statement_id, payout_no, state,
                   row_number() OVER (PARTITION BY statement_id ORDER BY payout_no) AS turn
            FROM payouts WHERE tenant_id = $1::uuid
        ) AS p
        LEFT JOIN statements AS s ON s.tenant_id = $1::uuid AND s.statement_id = p.statement_id
    """,
}
