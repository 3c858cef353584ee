"""Stock against the lines, reservations and orders that explain it."""

from typing import Final

CHECKS: Final = {
    # "why is it 47?": the lines of a SKU sum to what is on hand, without a gap in their numbers
    "commerce.stock_lines_sum_to_stock": """
        SELECT coalesce(s.store_id, l.store_id) || '/' || coalesce(s.sku, l.sku) AS id,
               (s.on_hand, s.version, s.version) IS DISTINCT FROM
               (coalesce(l.change, 0), coalesce(l.lines, 0), coalesce(l.newest, 0)) AS broken
        FROM (SELECT store_id, sku, on_hand, version FROM stock WHERE tenant_id = $1::uuid) AS s
        FULL JOIN (
            SELECT store_id, sku, sum(change)::bigint AS change, count(*) AS lines, max(version) AS newest
            FROM stock_lines WHERE tenant_id = $1::uuid GROUP BY store_id, sku
        ) AS l ON l.store_id = s.store_id AND l.sku = s.sku
    """,
    "commerce.stock_lines_run_on": """
        SELECT l.store_id || '/' || l.sku || '/' || l.version AS id,
               l.on_hand_after <> l.change + coalesce(l.before, 0) OR d.document_id IS NULL AS broken
        FROM (
            SELECT store_id, sku, version, change, on_hand_after, document_id,
                   lag(on_hand_after) OVER (PARTITION BY store_id, sku ORDER BY version) AS before
            FROM stock_lines WHERE tenant_id = $1::uuid
        ) AS l
        LEFT JOIN stock_documents AS d ON d.tenant_id = $1::uuid AND d.document_id = l.document_id
    """,
    "commerce.reservations_sum_to_reserved": """
        SELECT coalesce(s.store_id, h.store_id) || '/' || coalesce(s.sku, h.sku) AS id,
               coalesce(s.reserved, 0) <> coalesce(h.reserved, 0) AS broken
        FROM (SELECT store_id, sku, reserved FROM stock WHERE tenant_id = $1::uuid) AS s
        FULL JOIN (
            SELECT h.store_id, u.sku, sum(u.quantity)::bigint AS reserved
            FROM stock_holds AS h
            CROSS JOIN LATERAL unnest(h.skus, h.quantities) AS u(sku, quantity)
            WHERE h.tenant_id = $1::uuid AND h.state = 'held'
            GROUP BY h.store_id, u.sku
        ) AS h ON h.store_id = s.store_id AND h.sku = s.sku
    """,
    # a paid order took its goods once, a cancelled one none, and a refund brought back what it says
    "commerce.orders_took_their_stock": """
        SELECT coalesce(o.order_id, t.order_id)::text AS id,
               coalesce(o.quantity, 0) <> coalesce(t.quantity, 0) AS broken
        FROM (
            SELECT l.order_id, sum(l.quantity - coalesce(r.quantity, 0))::bigint AS quantity
            FROM orders AS o
            JOIN order_lines AS l ON l.tenant_id = o.tenant_id AND l.order_id = o.order_id
            LEFT JOIN (
                SELECT order_id, line_no, sum(quantity)::bigint AS quantity
                FROM refund_lines WHERE tenant_id = $1::uuid AND restock GROUP BY order_id, line_no
            ) AS r ON r.order_id = l.order_id AND r.line_no = l.line_no
            WHERE o.tenant_id = $1::uuid AND o.state IN (2, 3, 4, 5) AND l.from_stock
            GROUP BY l.order_id
        ) AS o
        FULL JOIN (
            SELECT d.order_id, -sum(l.change)::bigint AS quantity
            FROM stock_documents AS d
            JOIN stock_lines AS l ON l.tenant_id = d.tenant_id AND l.document_id = d.document_id
            WHERE d.tenant_id = $1::uuid AND d.order_id IS NOT NULL
            GROUP BY d.order_id
        ) AS t ON t.order_id = o.order_id
    """,
    "commerce.reservations_follow_orders": """
        SELECT o.order_id::text AS id,
               h.state IS DISTINCT FROM CASE WHEN o.state = 1 THEN 'held' WHEN o.state = 6 THEN 'voided'
                                             ELSE 'captured' END AS broken
        FROM orders AS o
        JOIN stock_holds AS h ON h.tenant_id = o.tenant_id AND h.order_id = o.order_id
        WHERE o.tenant_id = $1::uuid
    """,
}
