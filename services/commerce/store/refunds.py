"""Refunds as rows: one is written with all that it changes in its order, under the order's lock."""

from services.commerce.domain.orders import Order
from services.commerce.domain.refunds import Refund
from services.commerce.store.arrays import as_text
from services.runtime.database import Connection, raw

_REFUND = """
    WITH refund AS (
        INSERT INTO refunds (tenant_id, order_id, refund_no, refund_id, amount_minor, tenders_minor, returned_points,
                             whole_order, reason, occurred_at)
        VALUES ($1::uuid, $2::uuid, $3, $4::uuid, $5, $6::bigint[], $7, $8, $9, $10)
    ), refunded AS (
        INSERT INTO refund_lines (tenant_id, order_id, refund_no, line_no, quantity, refunded_before, amount_minor,
                                  points_tender_minor, returned_points, discounts_minor, tenders_minor, restock)
        SELECT $1::uuid, $2::uuid, $3, r.line_no, r.quantity, r.refunded_before, r.amount_minor,
               r.points_tender_minor, r.returned_points, r.discounts::bigint[], r.tenders::bigint[], r.restock
        FROM unnest($11::smallint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[],
                    $17::text[], $18::text[], $19::boolean[])
             AS r(line_no, quantity, refunded_before, amount_minor, points_tender_minor, returned_points, discounts,
                  tenders, restock)
    ), lines AS (
        UPDATE order_lines AS l
        SET refunded_quantity = l.refunded_quantity + r.quantity, refunded_minor = l.refunded_minor + r.amount_minor
        FROM unnest($11::smallint[], $12::bigint[], $14::bigint[]) AS r(line_no, quantity, amount_minor)
        WHERE l.tenant_id = $1::uuid AND l.order_id = $2::uuid AND l.line_no = r.line_no
    ), payments AS (
        UPDATE order_payments AS p
        SET refunded_minor = p.refunded_minor + t.amount_minor
        FROM unnest($6::bigint[]) WITH ORDINALITY AS t(amount_minor, payment_no)
        WHERE p.tenant_id = $1::uuid AND p.order_id = $2::uuid AND p.payment_no = t.payment_no - 1
    )
    UPDATE orders
    SET state = $20, version = $21, refunded_minor = refunded_minor + $5, refund_count = $3,
        closes_at = $22, event_xid = pg_current_xact_id()
    WHERE tenant_id = $1::uuid AND order_id = $2::uuid
"""


async def write(connection: Connection, tenant_id: str, refund: Refund, order: Order) -> None:
    """Writes a refund of a locked order; `order` is the order after it."""
    lines = refund.lines
    await raw(connection).execute(
        _REFUND,
        tenant_id,
        refund.order_id,
        refund.refund_no,
        refund.refund_id,
        refund.amount_minor,
        list(refund.tenders_minor),
        refund.returned_points,
        refund.whole_order,
        refund.reason,
        refund.occurred_at,
        [line.line_no for line in lines],
        [line.quantity for line in lines],
        [line.refunded_before for line in lines],
        [line.amount_minor for line in lines],
        [line.points_tender_minor for line in lines],
        [line.returned_points for line in lines],
        [as_text(line.discounts_minor) for line in lines],
        [as_text(line.tenders_minor) for line in lines],
        [line.restock for line in lines],
        order.state,
        order.version,
        order.closes_at,
    )
