"""Supplier orders against the orders they are part of, their parcels and their shares."""

from typing import Final

CHECKS: Final = {
    "commerce.supplier_lines_are_asked_for": """
        SELECT l.order_id || '/' || l.line_id AS id, s.quantity IS DISTINCT FROM l.quantity AS broken
        FROM order_lines AS l
        JOIN orders AS o ON o.tenant_id = l.tenant_id AND o.order_id = l.order_id AND o.state IN (2, 3, 4, 5)
        LEFT JOIN (
            SELECT s.order_id, n.line_no, sum(n.quantity - n.rerouted_quantity)::bigint AS quantity
            FROM supplier_orders AS s
            JOIN supplier_order_lines AS n ON n.tenant_id = s.tenant_id AND n.supplier_order_id = s.supplier_order_id
            WHERE s.tenant_id = $1::uuid
            GROUP BY s.order_id, n.line_no
        ) AS s ON s.order_id = l.order_id AND s.line_no = l.line_no
        WHERE l.tenant_id = $1::uuid AND l.supplier_id <> ''
    """,
    # what a supplier does not ship was refunded, and parcels are what it says to have shipped
    "commerce.unshipped_units_are_refunded": """
        SELECT n.supplier_order_id || '/' || n.line_id AS id,
               l.refunded_quantity < n.refunded_quantity
               OR (s.state NOT IN (1, 2, 3, 4)
                   AND n.shipped_quantity + n.refunded_quantity + n.rerouted_quantity <> n.quantity)
               OR n.shipped_quantity <> coalesce(p.quantity, 0) AS broken
        FROM supplier_order_lines AS n
        JOIN supplier_orders AS s ON s.tenant_id = n.tenant_id AND s.supplier_order_id = n.supplier_order_id
        JOIN order_lines AS l ON l.tenant_id = s.tenant_id AND l.order_id = s.order_id AND l.line_no = n.line_no
        LEFT JOIN (
            SELECT c.supplier_order_id, u.line_no, sum(u.quantity)::bigint AS quantity
            FROM parcels AS c
            CROSS JOIN LATERAL unnest(c.line_nos, c.quantities) AS u(line_no, quantity)
            WHERE c.tenant_id = $1::uuid
            GROUP BY c.supplier_order_id, u.line_no
        ) AS p ON p.supplier_order_id = n.supplier_order_id AND p.line_no = n.line_no
        WHERE n.tenant_id = $1::uuid
    """,
    # ordered = accepted + re-routed + refunded: each unit that was refunded is one that a supplier did not ship, or one
    # that came back; each re-routed one is asked of one next source; and no supplier is asked twice for a line
    "commerce.rerouted_units_are_asked_for": """
        SELECT n.supplier_order_id || '/' || n.line_id AS id,
               n.rerouted_quantity <> coalesce(w.quantity, 0) OR coalesce(w.orders, 0) > 1
               OR n.asked > 1 OR n.sent_back <> l.refunded_quantity AS broken
        FROM (
            SELECT n.supplier_order_id, s.order_id, n.line_no, n.line_id, n.rerouted_quantity,
                   count(*) OVER (PARTITION BY s.order_id, n.line_no, s.supplier_id) AS asked,
                   sum(n.refunded_quantity + n.returned_quantity) OVER (PARTITION BY s.order_id, n.line_no) AS sent_back
            FROM supplier_orders AS s
            JOIN supplier_order_lines AS n ON n.tenant_id = s.tenant_id AND n.supplier_order_id = s.supplier_order_id
            WHERE s.tenant_id = $1::uuid
        ) AS n
        JOIN order_lines AS l ON l.tenant_id = $1::uuid AND l.order_id = n.order_id AND l.line_no = n.line_no
        LEFT JOIN (
            SELECT s.replaces, m.line_no, sum(m.quantity)::bigint AS quantity, count(*) AS orders
            FROM supplier_orders AS s
            JOIN supplier_order_lines AS m ON m.tenant_id = s.tenant_id AND m.supplier_order_id = s.supplier_order_id
            WHERE s.tenant_id = $1::uuid AND s.replaces IS NOT NULL
            GROUP BY s.replaces, m.line_no
        ) AS w ON w.replaces = n.supplier_order_id AND w.line_no = n.line_no
    """,
    # a supplier is paid for units that the customer has from it, and for no other
    "commerce.suppliers_are_paid_for_their_units": """
        SELECT coalesce(e.order_id, h.order_id) || '/' || coalesce(e.line_no, h.line_no) || '/'
               || coalesce(e.party_id, h.supplier_id) AS id,
               coalesce(e.kept, 0) < 0 OR (coalesce(h.held, 0) = 0 AND coalesce(e.kept, 0) <> 0) AS broken
        FROM (
            SELECT order_id, line_no, party_id, sum(amount_minor) AS kept
            FROM settlement_entries
            WHERE tenant_id = $1::uuid AND party_kind = 1
            GROUP BY order_id, line_no, party_id
        ) AS e
        FULL JOIN (
            SELECT s.order_id, n.line_no, s.supplier_id,
                   sum(n.quantity - n.refunded_quantity - n.rerouted_quantity - n.returned_quantity) AS held
            FROM supplier_orders AS s
            JOIN supplier_order_lines AS n ON n.tenant_id = s.tenant_id AND n.supplier_order_id = s.supplier_order_id
            WHERE s.tenant_id = $1::uuid
            GROUP BY s.order_id, n.line_no, s.supplier_id
        ) AS h ON h.order_id = e.order_id AND h.line_no = e.line_no AND h.supplier_id = e.party_id
    """,
    # delivered (8) is what has arrived in all its parcels and has no unit left to ship, and shipped (7) what has not
    "commerce.deliveries_follow_parcels": """
        SELECT s.supplier_order_id::text AS id,
               coalesce(p.strays, 0) > 0
               OR (s.state = 8 AND (p.under_way IS DISTINCT FROM 0 OR l.open > 0))
               OR (s.state = 7 AND coalesce(p.under_way, 0) = 0) AS broken
        FROM supplier_orders AS s
        LEFT JOIN (
            SELECT coalesce(c.supplier_order_id, d.supplier_order_id) AS supplier_order_id,
                   count(*) FILTER (WHERE d.parcel_no IS NULL) AS under_way,
                   count(*) FILTER (WHERE c.parcel_no IS NULL OR d.delivered_at < c.shipped_at) AS strays
            FROM (SELECT * FROM parcels WHERE tenant_id = $1::uuid) AS c
            FULL JOIN (SELECT * FROM parcel_deliveries WHERE tenant_id = $1::uuid) AS d
              ON d.supplier_order_id = c.supplier_order_id AND d.parcel_no = c.parcel_no
            GROUP BY 1
        ) AS p ON p.supplier_order_id = s.supplier_order_id
        LEFT JOIN (
            SELECT supplier_order_id, sum(quantity - shipped_quantity - refunded_quantity - rerouted_quantity) AS open
            FROM supplier_order_lines WHERE tenant_id = $1::uuid GROUP BY supplier_order_id
        ) AS l ON l.supplier_order_id = s.supplier_order_id
        WHERE s.tenant_id = $1::uuid
    """,
    # fulfilling (3) is an order some of whose supplier orders are not done, and no other
    "commerce.orders_follow_their_suppliers": """
        SELECT o.order_id::text AS id, NOT bool_or(s.state IN (1, 2, 3, 4, 7)) AS broken
        FROM orders AS o
        JOIN supplier_orders AS s ON s.tenant_id = o.tenant_id AND s.order_id = o.order_id
        WHERE o.tenant_id = $1::uuid AND o.state = 3
        GROUP BY o.order_id
    """,
    "commerce.no_supplier_order_is_overdue": """
        SELECT s.supplier_order_id::text AS id,
               CASE WHEN s.state = 2 THEN s.accept_by ELSE s.deliver_by END
               < coalesce(t.test_clock_at, clock_timestamp()) - interval '2 days' AS broken
        FROM supplier_orders AS s
        JOIN tenants AS t ON t.tenant_id = s.tenant_id
        WHERE s.tenant_id = $1::uuid AND s.state IN (2, 7)
    """,
    # what was accepted (3, 4) and is not shipped in time is no silent state: an exception tells of it
    "commerce.unshipped_orders_are_told": """
        SELECT s.supplier_order_id::text AS id,
               s.ship_by IS NULL
               OR (s.ship_by < coalesce(t.test_clock_at, clock_timestamp()) - interval '2 days' AND NOT s.late_told)
               OR (s.late_told AND NOT EXISTS (
                   SELECT 1 FROM sale_exceptions AS e
                   WHERE e.tenant_id = s.tenant_id AND e.order_id = s.order_id AND e.reason = 'NOT_SHIPPED'
               )) AS broken
        FROM supplier_orders AS s
        JOIN tenants AS t ON t.tenant_id = s.tenant_id
        WHERE s.tenant_id = $1::uuid AND s.state IN (3, 4)
    """,
}
