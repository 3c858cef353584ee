"""Orders against their lines, shares, payments and refunds; and nothing of them is left undone."""

from typing import Final

CHECKS: Final = {
    "commerce.lines_sum_to_orders": """
        SELECT o.order_id::text AS id,
               (o.shelf_minor, o.discount_minor, o.net_minor, o.points_tender_minor, o.refunded_minor)
               IS DISTINCT FROM (l.shelf, l.shelf - l.net, l.net, l.points, l.refunded)
               OR (o.burnt_points <> l.burnt AND o.points_tender_minor > 0 AND o.member_id IS NOT NULL) AS broken
        FROM orders AS o
        LEFT JOIN (
            SELECT order_id, sum(shelf_minor)::bigint AS shelf, sum(net_minor)::bigint AS net,
                   sum(points_tender_minor)::bigint AS points, sum(refunded_minor)::bigint AS refunded,
                   sum(burnt_points)::bigint AS burnt
            FROM order_lines WHERE tenant_id = $1::uuid GROUP BY order_id
        ) AS l ON l.order_id = o.order_id
        WHERE o.tenant_id = $1::uuid
    """,
    # every share is frozen, and they sum to the line: discounts to what is off, tenders to what is paid
    "commerce.shares_sum_to_lines": """
        SELECT l.order_id || '/' || l.line_id AS id,
               (SELECT coalesce(sum(d), 0) FROM unnest(l.discounts_minor) AS d) <> l.shelf_minor - l.net_minor
               OR (o.state IN (2, 3, 4, 5)
                   AND (SELECT coalesce(sum(t), 0) FROM unnest(l.tenders_minor) AS t) <> l.net_minor) AS broken
        FROM order_lines AS l
        JOIN orders AS o ON o.tenant_id = l.tenant_id AND o.order_id = l.order_id
        WHERE l.tenant_id = $1::uuid
    """,
    "commerce.payments_sum_to_orders": """
        SELECT o.order_id::text AS id,
               o.net_minor <> coalesce(p.paid, 0) OR o.points_tender_minor <> coalesce(p.points, 0)
               OR o.refunded_minor <> coalesce(p.refunded, 0) AS broken
        FROM orders AS o
        LEFT JOIN (
            SELECT order_id, sum(amount_minor)::bigint AS paid, sum(refunded_minor)::bigint AS refunded,
                   coalesce(sum(amount_minor) FILTER (WHERE tender = 5), 0)::bigint AS points
            FROM order_payments WHERE tenant_id = $1::uuid GROUP BY order_id
        ) AS p ON p.order_id = o.order_id
        WHERE o.tenant_id = $1::uuid AND o.state IN (2, 3, 4, 5)
    """,
    # column by column: what the lines took of each payment is that payment
    "commerce.tenders_sum_to_payments": """
        SELECT p.order_id || '/' || p.payment_no AS id, p.amount_minor IS DISTINCT FROM t.amount AS broken
        FROM order_payments AS p
        LEFT JOIN (
            SELECT l.order_id, u.payment_no - 1 AS payment_no, sum(u.amount)::bigint AS amount
            FROM order_lines AS l
            CROSS JOIN LATERAL unnest(l.tenders_minor) WITH ORDINALITY AS u(amount, payment_no)
            WHERE l.tenant_id = $1::uuid
            GROUP BY l.order_id, u.payment_no
        ) AS t ON t.order_id = p.order_id AND t.payment_no = p.payment_no
        WHERE p.tenant_id = $1::uuid
    """,
    "commerce.refunds_sum_to_lines": """
        SELECT l.order_id || '/' || l.line_id AS id,
               (l.refunded_quantity, l.refunded_minor) IS DISTINCT FROM
               (coalesce(r.quantity, 0), coalesce(r.amount, 0))
               OR (l.refunded_quantity = l.quantity
                   AND (r.amount, r.points, r.burnt) IS DISTINCT FROM
                       (l.net_minor, l.points_tender_minor, l.burnt_points)) AS broken
        FROM order_lines AS l
        LEFT JOIN (
            SELECT order_id, line_no, sum(quantity)::bigint AS quantity, sum(amount_minor)::bigint AS amount,
                   sum(points_tender_minor)::bigint AS points, sum(returned_points)::bigint AS burnt
            FROM refund_lines WHERE tenant_id = $1::uuid GROUP BY order_id, line_no
        ) AS r ON r.order_id = l.order_id AND r.line_no = l.line_no
        WHERE l.tenant_id = $1::uuid AND (l.refunded_quantity > 0 OR r.order_id IS NOT NULL)
    """,
    "commerce.refunds_sum_to_tenders": """
        SELECT r.order_id || '/' || r.refund_no AS id,
               r.amount_minor <> (SELECT coalesce(sum(t), 0) FROM unnest(r.tenders_minor) AS t)
               OR r.amount_minor IS DISTINCT FROM l.amount AS broken
        FROM refunds AS r
        LEFT JOIN (
            SELECT order_id, refund_no, sum(amount_minor)::bigint AS amount
            FROM refund_lines WHERE tenant_id = $1::uuid GROUP BY order_id, refund_no
        ) AS l ON l.order_id = r.order_id AND l.refund_no = r.refund_no
        WHERE r.tenant_id = $1::uuid
    """,
    "commerce.resolutions_have_an_exception": """
        SELECT r.exception_id::text AS id, e.exception_id IS NULL OR r.note = '' OR r.resolved_by = '' AS broken
        FROM exception_resolutions AS r
        LEFT JOIN sale_exceptions AS e ON e.tenant_id = r.tenant_id AND e.exception_id = r.exception_id
        WHERE r.tenant_id = $1::uuid
    """,
    # 3 and 4 are due: the worker had five minutes
    "commerce.sagas_are_resolved": """
        SELECT s.order_id || '/' || s.kind AS id,
               (s.state IN (1, 2) AND o.state <> 1)
               OR (s.state IN (3, 4) AND s.due_at < clock_timestamp() - interval '5 minutes')
               OR (s.state = 5 AND o.state NOT IN (2, 3, 4, 5)) OR (s.state IN (6, 7) AND o.state <> 6)
               OR s.state = 8 AS broken
        FROM order_steps AS s
        JOIN orders AS o ON o.tenant_id = s.tenant_id AND o.order_id = s.order_id
        WHERE s.tenant_id = $1::uuid
    """,
    "commerce.no_order_is_overdue": """
        SELECT o.order_id::text AS id, o.expires_at < clock_timestamp() - interval '5 minutes' AS broken
        FROM orders AS o
        WHERE o.tenant_id = $1::uuid AND o.state = 1
    """,
}
