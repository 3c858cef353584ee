"""The books against each other, for one tenant, on the system role; every check reads and none repairs.

Each check selects rows `id, broken`. All of them run in one statement and so see the same moment.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from services.runtime.audit import Finding
from services.runtime.database import Connection, raw

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
    # nothing is payable before the return window is over, and only what an earlier statement holds is clawed back
    "commerce.statements_wait_for_the_window": """
        SELECT l.order_id || '/' || l.line_no || '/' || l.refund_no AS id,
               o.state <> 5 OR o.closes_at > ((s.to_day + 1)::timestamp AT TIME ZONE t.time_zone)
               OR e.occurred_at >= ((s.to_day + 1)::timestamp AT TIME ZONE t.time_zone)
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
    "commerce.no_supplier_order_is_overdue": """
        SELECT s.supplier_order_id::text AS id,
               CASE WHEN s.state = 2 THEN s.accept_by ELSE s.deliver_by END
               < coalesce(t.test_clock_at, clock_timestamp()) - interval '2 days' AS broken
        FROM supplier_orders AS s
        JOIN tenants AS t ON t.tenant_id = s.tenant_id
        WHERE s.tenant_id = $1::uuid AND s.state IN (2, 7)
    """,
}

_FIGURES: Final = """
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


async def run(
    connection: Connection, tenant_id: str, names: Sequence[str], *, now: datetime, machine_now: datetime
) -> list[Finding]:
    """What the checks find, in one statement: all of them see the same moment, whatever is sold meanwhile."""
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
    return [
        Finding(
            check=row["name"],
            ok=row["broken"] == 0,
            examined=row["examined"],
            detail=f"{row['broken']} rows, first {', '.join(row['first'])}" if row["broken"] else "",
        )
        for row in await raw(connection).fetch(checks, tenant_id)
    ]


async def figures(connection: Connection, tenant_id: str) -> dict[str, int]:
    """Named totals; another service that tells one of these names must tell the same number."""
    return dict(await raw(connection).fetchrow(_FIGURES, tenant_id))
