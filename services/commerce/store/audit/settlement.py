"""The ledger of shares against what was paid and refunded, payment by payment."""

from typing import Final

CHECKS: Final = {
    # double entry: a line's parties and its customer sum to zero, sale by sale and refund by refund
    "commerce.settlement_sums_to_zero": """
        SELECT e.order_id || '/' || e.line_id || '/' || e.refund_no AS id, sum(e.amount_minor) <> 0 AS broken
        FROM settlement_entries AS e
        WHERE e.tenant_id = $1::uuid
        GROUP BY e.order_id, e.line_id, e.refund_no
    """,
    "commerce.settlement_is_what_was_paid": """
        SELECT l.order_id || '/' || l.line_id AS id,
               coalesce(e.kept, 0) <> l.net_minor - l.refunded_minor
               OR coalesce(e.sold, 0) <> l.net_minor AS broken
        FROM order_lines AS l
        JOIN orders AS o ON o.tenant_id = l.tenant_id AND o.order_id = l.order_id AND o.state IN (2, 3, 4, 5)
        LEFT JOIN (
            SELECT order_id, line_no, -sum(amount_minor)::bigint AS kept,
                   -(sum(amount_minor) FILTER (WHERE refund_no = 0))::bigint AS sold
            FROM settlement_entries WHERE tenant_id = $1::uuid AND party_kind = 0 GROUP BY order_id, line_no
        ) AS e ON e.order_id = l.order_id AND e.line_no = l.line_no
        WHERE l.tenant_id = $1::uuid AND l.supplier_id <> ''
    """,
    # each share by payment sums to the share, and the shares of a payment to what the line, or its refund, took of it;
    # a sale that was posted before shares were divided has none, and its refunds neither
    "commerce.settlement_is_divided_over_payments": """
        SELECT e.order_id || '/' || e.line_no || '/' || e.refund_no AS id,
               bool_or(CASE WHEN s.divided THEN e.amount_minor IS DISTINCT FROM
                                (SELECT coalesce(sum(t), 0) FROM unnest(e.tenders_minor) AS t)
                            ELSE e.tenders_minor IS NOT NULL END)
               OR bool_or(s.divided AND e.party_kind = 0 AND e.tenders_minor IS DISTINCT FROM (
                   SELECT coalesce(array_agg(CASE WHEN e.refund_no = 0 THEN -t ELSE t END ORDER BY payment), '{}')
                   FROM unnest(CASE WHEN e.refund_no = 0 THEN l.tenders_minor ELSE r.tenders_minor END)
                        WITH ORDINALITY AS u(t, payment)
               ))
               OR bool_or(s.divided AND e.entry_no = 0 AND EXISTS (
                   SELECT 1
                   FROM settlement_entries AS c
                   CROSS JOIN LATERAL unnest(c.tenders_minor) WITH ORDINALITY AS u(t, payment)
                   WHERE c.tenant_id = e.tenant_id AND c.order_id = e.order_id AND c.refund_no = e.refund_no
                     AND c.line_no = e.line_no
                   GROUP BY u.payment
                   HAVING sum(u.t) <> 0
               )) AS broken
        FROM settlement_entries AS e
        JOIN (
            SELECT order_id, line_no, bool_and(tenders_minor IS NOT NULL) AS divided
            FROM settlement_entries WHERE tenant_id = $1::uuid AND refund_no = 0 GROUP BY order_id, line_no
        ) AS s ON s.order_id = e.order_id AND s.line_no = e.line_no
        JOIN order_lines AS l ON l.tenant_id = e.tenant_id AND l.order_id = e.order_id AND l.line_no = e.line_no
        LEFT JOIN refund_lines AS r
          ON r.tenant_id = e.tenant_id AND r.order_id = e.order_id AND r.refund_no = e.refund_no
         AND r.line_no = e.line_no
        WHERE e.tenant_id = $1::uuid
        GROUP BY e.order_id, e.line_no, e.refund_no
    """,
    # of a line that was wholly refunded nobody keeps anything of any payment
    "commerce.settlement_is_reversed_by_payment": """
        SELECT e.order_id || '/' || e.line_no AS id, bool_or(e.kept <> 0) AS broken
        FROM (
            SELECT order_id, line_no, party_kind, u.payment, sum(u.t) AS kept
            FROM settlement_entries
            CROSS JOIN LATERAL unnest(tenders_minor) WITH ORDINALITY AS u(t, payment)
            WHERE tenant_id = $1::uuid
            GROUP BY order_id, line_no, party_kind, u.payment
        ) AS e
        JOIN order_lines AS l ON l.tenant_id = $1::uuid AND l.order_id = e.order_id AND l.line_no = e.line_no
        WHERE l.refunded_quantity = l.quantity
        GROUP BY e.order_id, e.line_no
    """,
    # each party got its rate of the line by the frozen rule, by largest remainder; an absent party's share is the
    # brand's (2). A guide (4) may be absent, a distributor (5) always is
    "commerce.settlement_follows_its_rule": """
        SELECT coalesce(e.order_id, w.order_id) || '/' || coalesce(e.line_no, w.line_no) AS id,
               bool_or(coalesce(e.amount, 0) <> coalesce(w.amount, 0)) AS broken
        FROM (
            SELECT order_id, line_no, party_kind, sum(amount_minor) AS amount
            FROM settlement_entries
            WHERE tenant_id = $1::uuid AND refund_no = 0 AND party_kind <> 0
            GROUP BY order_id, line_no, party_kind
        ) AS e
        FULL JOIN (
            SELECT p.order_id, p.line_no, p.party AS party_kind, sum(p.whole + (p.place <= p.left_over)::int) AS amount
            FROM (
                SELECT f.order_id, f.line_no, f.party, f.whole,
                       f.net_minor - sum(f.whole) OVER line AS left_over,
                       row_number() OVER (line ORDER BY f.exact - f.whole DESC, f.share_no) AS place
                FROM (
                    SELECT l.order_id, l.line_no, l.net_minor, s.share_no,
                           CASE WHEN s.share ->> 0 = '5' OR (s.share ->> 0 = '4' AND o.guide_id = '') THEN 2
                                ELSE (s.share ->> 0)::int END AS party,
                           l.net_minor * (s.share ->> 1)::numeric / 100 AS exact,
                           floor(l.net_minor * (s.share ->> 1)::numeric / 100) AS whole
                    FROM order_lines AS l
                    JOIN orders AS o
                      ON o.tenant_id = l.tenant_id AND o.order_id = l.order_id AND o.state IN (2, 3, 4, 5)
                    LEFT JOIN split_rules AS r
                      ON r.tenant_id = l.tenant_id AND r.supplier_id = l.supplier_id AND r.version = l.rule_version
                    CROSS JOIN LATERAL jsonb_array_elements(coalesce(r.shares, '[[2, "100"]]'))
                        WITH ORDINALITY AS s(share, share_no)
                    WHERE l.tenant_id = $1::uuid AND l.supplier_id <> ''
                ) AS f
                WINDOW line AS (PARTITION BY f.order_id, f.line_no)
            ) AS p
            GROUP BY p.order_id, p.line_no, p.party
        ) AS w ON w.order_id = e.order_id AND w.line_no = e.line_no AND w.party_kind = e.party_kind
        GROUP BY coalesce(e.order_id, w.order_id), coalesce(e.line_no, w.line_no)
    """,
    # the exact inverse: of what was wholly refunded nobody keeps anything, whoever was asked for it
    "commerce.settlement_is_reversed_whole": """
        SELECT e.order_id || '/' || e.line_id AS id, bool_or(e.kept <> 0) AS broken
        FROM (
            SELECT order_id, line_no, line_id, party_kind, party_id, sum(amount_minor) AS kept
            FROM settlement_entries WHERE tenant_id = $1::uuid GROUP BY 1, 2, 3, 4, 5
        ) AS e
        JOIN order_lines AS l ON l.tenant_id = $1::uuid AND l.order_id = e.order_id AND l.line_no = e.line_no
        WHERE l.refunded_quantity = l.quantity
        GROUP BY e.order_id, e.line_id
    """,
}
