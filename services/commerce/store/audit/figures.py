"""Named totals of one tenant; another service that tells one of these names must tell the same number."""

from typing import Final

FIGURES: Final = """
    WITH paid AS (
        SELECT order_id, member_id, shelf_minor, discount_minor, net_minor, points_tender_minor, burnt_points,
               refunded_minor, offline
        FROM orders
        WHERE tenant_id = $1::uuid AND state IN (2, 3, 4, 5)
    ), returned AS (
        SELECT l.order_id, sum(l.amount_minor)::bigint AS amount, sum(l.points_tender_minor)::bigint AS points,
               sum(l.returned_points)::bigint AS burnt
        FROM refund_lines AS l
        WHERE l.tenant_id = $1::uuid
        GROUP BY l.order_id
    ), members_lines AS (
        -- what points are earned for, and what the units that came back hold of it: a prefix by largest remainder
        SELECT b.base, b.base / l.quantity * l.refunded_quantity + least(l.refunded_quantity, b.base % l.quantity)
                   AS refunded_base
        FROM order_lines AS l
        JOIN paid USING (order_id)
        CROSS JOIN LATERAL (SELECT l.net_minor - l.points_tender_minor) AS b(base)
        WHERE l.tenant_id = $1::uuid AND paid.member_id IS NOT NULL
    ), given AS (
        SELECT coalesce(sum(u.amount), 0)::bigint AS given
        FROM order_lines AS l
        JOIN paid USING (order_id)
        CROSS JOIN LATERAL unnest(l.discounts_minor) WITH ORDINALITY AS u(amount, discount_no)
        JOIN order_discounts AS d
          ON d.tenant_id = l.tenant_id AND d.order_id = l.order_id AND d.discount_no = u.discount_no - 1
        WHERE l.tenant_id = $1::uuid AND d.source <> 4
    ), given_back AS (
        SELECT coalesce(sum(u.amount), 0)::bigint AS given
        FROM refund_lines AS l
        CROSS JOIN LATERAL unnest(l.discounts_minor) WITH ORDINALITY AS u(amount, discount_no)
        JOIN order_discounts AS d
          ON d.tenant_id = l.tenant_id AND d.order_id = l.order_id AND d.discount_no = u.discount_no - 1
        WHERE l.tenant_id = $1::uuid AND d.source <> 4
    )
    SELECT
        count(*) AS "commerce.orders_paid",
        count(*) FILTER (WHERE p.offline) AS "commerce.orders_offline",
        coalesce(sum(p.shelf_minor), 0)::bigint AS "commerce.shelf_minor",
        coalesce(sum(p.discount_minor), 0)::bigint AS "commerce.discount_minor",
        coalesce(sum(p.net_minor), 0)::bigint AS "commerce.net_minor",
        coalesce(sum(p.points_tender_minor), 0)::bigint AS "commerce.points_tender_minor",
        coalesce(sum(p.refunded_minor), 0)::bigint AS "commerce.refunded_minor",
        (SELECT count(*) FROM orders WHERE tenant_id = $1::uuid AND state = 1) AS "commerce.orders_waiting",
        (SELECT count(*) FROM orders WHERE tenant_id = $1::uuid AND state = 6) AS "commerce.orders_cancelled",
        (SELECT count(*) FROM orders WHERE tenant_id = $1::uuid AND state = 5) AS "commerce.orders_closed",
        (SELECT count(*) FROM sale_exceptions WHERE tenant_id = $1::uuid) AS "commerce.exceptions",
        (SELECT count(*) FROM exception_resolutions WHERE tenant_id = $1::uuid) AS "commerce.exceptions_resolved",
        (SELECT coalesce(sum(shortfall), 0)::bigint FROM stock WHERE tenant_id = $1::uuid)
            AS "commerce.stock_shortfall",
        (SELECT count(*) FROM supplier_orders WHERE tenant_id = $1::uuid) AS "commerce.supplier_orders",
        (SELECT count(*) FROM supplier_orders WHERE tenant_id = $1::uuid AND replaces IS NOT NULL)
            AS "commerce.supplier_orders_rerouted",
        (SELECT count(*) FROM supplier_orders WHERE tenant_id = $1::uuid AND state = 6)
            AS "commerce.supplier_orders_timed_out",
        (SELECT coalesce(-sum(amount_minor), 0)::bigint FROM settlement_entries
         WHERE tenant_id = $1::uuid AND party_kind = 0) AS "commerce.settled_minor",
        (SELECT count(*) FROM statements WHERE tenant_id = $1::uuid) AS "commerce.statements_closed",
        (SELECT coalesce(sum(payable_minor), 0)::bigint FROM statements WHERE tenant_id = $1::uuid)
            AS "commerce.payable_minor",
        -- what loyalty and campaign must tell as well
        count(*) AS "campaign.orders_seen",
        (SELECT count(*) FROM refunds WHERE tenant_id = $1::uuid) AS "campaign.refunds_seen",
        (SELECT count(*) FROM refunds WHERE tenant_id = $1::uuid AND whole_order) AS "campaign.orders_wholly_refunded",
        (SELECT given FROM given) AS "campaign.discount_given_minor",
        (SELECT given FROM given_back) AS "campaign.discount_refunded_minor",
        count(*) FILTER (WHERE p.member_id IS NOT NULL) AS "loyalty.orders_accrued",
        (SELECT coalesce(sum(base), 0)::bigint FROM members_lines) AS "loyalty.base_minor",
        (SELECT coalesce(sum(refunded_base), 0)::bigint FROM members_lines) AS "loyalty.refunded_base_minor",
        coalesce(sum(p.burnt_points) FILTER (WHERE p.member_id IS NOT NULL), 0)::bigint
            AS "loyalty.orders_burnt_points",
        coalesce(sum(r.burnt) FILTER (WHERE p.member_id IS NOT NULL), 0)::bigint AS "loyalty.orders_returned_points",
        (SELECT count(*) FROM refunds AS w JOIN paid USING (order_id)
         WHERE w.tenant_id = $1::uuid AND w.whole_order AND paid.member_id IS NOT NULL)
            AS "loyalty.orders_wholly_refunded",
        (SELECT count(*) FROM member_aliases WHERE tenant_id = $1::uuid) AS identity_members_merged
    FROM paid AS p
    LEFT JOIN returned AS r ON r.order_id = p.order_id
"""
