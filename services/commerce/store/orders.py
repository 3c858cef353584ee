"""Orders as rows: an order is written by one statement, and changed under its own row's lock."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.commerce.domain.orders import (
    Discount,
    DiscountSource,
    Line,
    Order,
    OrderState,
    Payment,
    PriceSource,
    Tender,
)
from services.commerce.domain.refusals import SaleRace
from services.commerce.store.arrays import as_text
from services.commerce.tables.orders import ORDERS_KEY, ORDERS_OF_REQUEST, ORDERS_TILL_SALE
from services.runtime.database import Connection, constraint_of, raw
from services.runtime.ids import MemberId, OrderId, StoreId

Candidate = tuple[int, str, int, str]
"""Source, id, amount off in minor units, reason of rejection."""

_INSERT = """
    WITH discounts AS (
        INSERT INTO order_discounts (tenant_id, order_id, discount_no, source, source_id, coupon_id, funder)
        SELECT $1::uuid, $2::uuid, d.discount_no - 1, d.source, d.source_id, d.coupon_id, d.funder
        FROM unnest($33::smallint[], $34::text[], $35::uuid[], $36::text[]) WITH ORDINALITY
             AS d(source, source_id, coupon_id, funder, discount_no)
    ), lines AS (
        INSERT INTO order_lines (tenant_id, order_id, line_no, line_id, sku, category, quantity, price_source,
                                 shelf_minor, discounts_minor, net_minor, points_tender_minor, burnt_points,
                                 tenders_minor, supplier_id, rule_version, from_stock)
        SELECT $1::uuid, $2::uuid, l.line_no - 1, l.line_id, l.sku, l.category, l.quantity, l.price_source,
               l.shelf_minor, l.discounts::bigint[], l.net_minor, l.points_tender_minor, l.burnt_points,
               l.tenders::bigint[], l.supplier_id, l.rule_version, l.from_stock
        FROM unnest($37::text[], $38::text[], $39::text[], $40::bigint[], $41::smallint[], $42::bigint[],
                    $43::text[], $44::bigint[], $45::bigint[], $46::bigint[], $47::text[], $48::text[],
                    $49::bigint[], $50::boolean[]) WITH ORDINALITY
             AS l(line_id, sku, category, quantity, price_source, shelf_minor, discounts, net_minor,
                  points_tender_minor, burnt_points, tenders, supplier_id, rule_version, from_stock, line_no)
    ), payments AS (
        INSERT INTO order_payments (tenant_id, order_id, payment_no, tender, amount_minor, reference)
        SELECT $1::uuid, $2::uuid, p.payment_no - 1, p.tender, p.amount_minor, p.reference
        FROM unnest($51::smallint[], $52::bigint[], $53::text[]) WITH ORDINALITY
             AS p(tender, amount_minor, reference, payment_no)
    )
    INSERT INTO orders (tenant_id, order_id, client_id, fingerprint, goods, state, version, store_id, channel,
                        member_id, guide_id, currency_code, point_currency, shelf_minor, discount_minor, net_minor,
                        points_tender_minor, burnt_points, offline_burnt_points, quoted_points, points_hold_id,
                        benefits_hold_id, till_id, sale_number, offline, occurred_at, placed_at, paid_at, expires_at,
                        closes_at, event_xid, candidates, request_key)
    VALUES ($1::uuid, $2::uuid, $3, $4, $5, $6, $7, $8, $9, $10::uuid, $11, $12, $13, $14, $15, $16, $17, $18, $19,
            $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30,
            CASE WHEN $31::boolean THEN pg_current_xact_id() END, $32::jsonb, $54::uuid)
"""
_ORDER_COLUMNS = """
    o.order_id::text, o.client_id, o.fingerprint, o.goods, o.state, o.version, o.store_id, o.channel,
    coalesce(o.member_id::text, '') AS member_id, o.guide_id, o.currency_code, o.point_currency, o.shelf_minor,
    o.discount_minor, o.net_minor, o.points_tender_minor, o.burnt_points, o.offline_burnt_points, o.quoted_points,
    o.points_hold_id, o.benefits_hold_id, o.refunded_minor, o.refund_count, o.till_id, o.sale_number, o.offline,
    o.occurred_at, o.expires_at, o.closes_at, o.candidates, o.refusal
"""
_FIND = f"""
    SELECT {_ORDER_COLUMNS}
    FROM orders AS o
    WHERE o.tenant_id = $1::uuid AND o.order_id = ANY($2::uuid[])
"""
_LOCK = f"{_FIND} ORDER BY o.order_id FOR NO KEY UPDATE"
_LINES = """
    SELECT l.order_id::text, l.line_no, l.line_id, l.sku, l.category, l.quantity, l.price_source, l.shelf_minor,
           l.discounts_minor, l.net_minor, l.points_tender_minor, l.burnt_points, l.tenders_minor, l.supplier_id,
           l.rule_version, l.from_stock, l.refunded_quantity, l.refunded_minor
    FROM order_lines AS l
    WHERE l.tenant_id = $1::uuid AND l.order_id = ANY($2::uuid[])
    ORDER BY l.order_id, l.line_no
"""
_DISCOUNTS = """
    SELECT d.order_id::text, d.source, d.source_id, coalesce(d.coupon_id::text, '') AS coupon_id, d.funder
    FROM order_discounts AS d
    WHERE d.tenant_id = $1::uuid AND d.order_id = ANY($2::uuid[])
    ORDER BY d.order_id, d.discount_no
"""
_PAYMENTS = """
    SELECT p.order_id::text, p.tender, p.amount_minor, p.reference, p.refunded_minor
    FROM order_payments AS p
    WHERE p.tenant_id = $1::uuid AND p.order_id = ANY($2::uuid[])
    ORDER BY p.order_id, p.payment_no
"""
_PAY = """
    WITH payments AS (
        INSERT INTO order_payments (tenant_id, order_id, payment_no, tender, amount_minor, reference)
        SELECT $1::uuid, $2::uuid, p.payment_no - 1, p.tender, p.amount_minor, p.reference
        FROM unnest($7::smallint[], $8::bigint[], $9::text[]) WITH ORDINALITY
             AS p(tender, amount_minor, reference, payment_no)
    ), lines AS (
        UPDATE order_lines AS l
        SET tenders_minor = t.tenders::bigint[]
        FROM unnest($10::smallint[], $11::text[]) AS t(line_no, tenders)
        WHERE l.tenant_id = $1::uuid AND l.order_id = $2::uuid AND l.line_no = t.line_no
    )
    UPDATE orders
    SET state = $3, version = $4, closes_at = $5, paid_at = $6, expires_at = NULL, event_xid = pg_current_xact_id()
    WHERE tenant_id = $1::uuid AND order_id = $2::uuid
"""
_CANCEL = """
    UPDATE orders
    SET state = $3, version = $4, expires_at = NULL, event_xid = pg_current_xact_id(), refusal = $5::jsonb
    WHERE tenant_id = $1::uuid AND order_id = $2::uuid
"""
_SET_STATE = """
    UPDATE orders
    SET state = $3, version = $4, closes_at = $5
    WHERE tenant_id = $1::uuid AND order_id = $2::uuid
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Who placed an order, with which request, for which goods; what a later duplicate is compared with.

    `request_key` claims the request for an order that is placed before the request is answered; empty: it is made with
    the answer.
    """

    client_id: str
    fingerprint: bytes
    goods: bytes
    candidates: tuple[Candidate, ...] = ()
    request_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An order as it stands, the attempt that made it, and the refusal that a cancelled attempt ended with."""

    order: Order
    attempt: Attempt
    refusal: dict[str, Any] | None


async def insert(connection: Connection, tenant_id: str, order: Order, attempt: Attempt, *, now: datetime) -> None:
    """Writes a new order, placed or paid, in one statement; `now` is machine time.

    Raises SaleRace if another call made the sale, or claimed the request, at this moment.
    """
    try:
        await _insert(connection, tenant_id, order, attempt, now=now)
    except Exception as error:
        if constraint_of(error) in {ORDERS_KEY, ORDERS_OF_REQUEST, ORDERS_TILL_SALE}:
            raise SaleRace from error
        raise


async def _insert(connection: Connection, tenant_id: str, order: Order, attempt: Attempt, *, now: datetime) -> None:
    paid = order.state is not OrderState.PENDING_PAYMENT
    lines, discounts, payments = order.lines, order.discounts, order.payments
    await raw(connection).execute(
        _INSERT,
        tenant_id,
        order.order_id,
        attempt.client_id,
        attempt.fingerprint,
        attempt.goods,
        order.state,
        order.version,
        order.store_id,
        order.channel,
        order.member_id or None,
        order.guide_id,
        order.currency_code,
        order.point_currency,
        order.shelf_minor,
        order.discount_minor,
        order.net_minor,
        order.points_tender_minor,
        order.burnt_points,
        order.offline_burnt_points,
        order.quoted_points,
        order.points_hold_id,
        order.benefits_hold_id,
        order.till_id,
        order.sale_number,
        order.offline,
        order.occurred_at,
        now,
        now if paid else None,
        order.expires_at,
        order.closes_at,
        paid,
        json.dumps(attempt.candidates) if attempt.candidates and not paid else None,
        [discount.source for discount in discounts],
        [discount.source_id for discount in discounts],
        [discount.coupon_id or None for discount in discounts],
        [discount.funder for discount in discounts],
        [line.line_id for line in lines],
        [line.sku for line in lines],
        [line.category for line in lines],
        [line.quantity for line in lines],
        [line.price_source for line in lines],
        [line.shelf_minor for line in lines],
        [as_text(line.discounts_minor) for line in lines],
        [line.net_minor for line in lines],
        [line.points_tender_minor for line in lines],
        [line.burnt_points for line in lines],
        [as_text(line.tenders_minor) for line in lines],
        [line.supplier_id for line in lines],
        [line.rule_version for line in lines],
        [line.from_stock for line in lines],
        [payment.tender for payment in payments],
        [payment.amount_minor for payment in payments],
        [payment.reference for payment in payments],
        attempt.request_key or None,
    )


async def find(connection: Connection, tenant_id: str, order_ids: Sequence[OrderId]) -> dict[OrderId, Stored]:
    """Orders by id, as they stand; unknown ones are left out."""
    return await _loaded(connection, tenant_id, await raw(connection).fetch(_FIND, tenant_id, list(order_ids)))


async def lock(connection: Connection, tenant_id: str, order_id: OrderId) -> Stored | None:
    """One order, which nobody else changes until the transaction ends; None if there is none."""
    # the lock comes as a statement of its own: the rows below it are read after it was granted
    rows = await raw(connection).fetch(_LOCK, tenant_id, [order_id])
    return (await _loaded(connection, tenant_id, rows)).get(order_id)


async def pay(connection: Connection, tenant_id: str, order: Order, *, now: datetime) -> None:
    """Writes the payment of a locked order; `now` is machine time."""
    await raw(connection).execute(
        _PAY,
        tenant_id,
        order.order_id,
        order.state,
        order.version,
        order.closes_at,
        now,
        [payment.tender for payment in order.payments],
        [payment.amount_minor for payment in order.payments],
        [payment.reference for payment in order.payments],
        [line.line_no for line in order.lines],
        [as_text(line.tenders_minor) for line in order.lines],
    )


async def cancel(connection: Connection, tenant_id: str, order: Order, *, refusal: Mapping[str, Any]) -> None:
    """Writes the cancellation of a locked order, and what a later retry of its request is told."""
    await raw(connection).execute(
        _CANCEL, tenant_id, order.order_id, order.state, order.version, json.dumps(dict(refusal))
    )


async def set_state(connection: Connection, tenant_id: str, order: Order) -> None:
    """Writes the state, version and end of a locked order."""
    await raw(connection).execute(_SET_STATE, tenant_id, order.order_id, order.state, order.version, order.closes_at)


async def _loaded(connection: Connection, tenant_id: str, rows: Sequence[Any]) -> dict[OrderId, Stored]:
    if not rows:
        return {}
    ids = [row["order_id"] for row in rows]
    lines: dict[str, list[Line]] = {}
    for row in await raw(connection).fetch(_LINES, tenant_id, ids):
        lines.setdefault(row["order_id"], []).append(_line(row))
    discounts: dict[str, list[Discount]] = {}
    for row in await raw(connection).fetch(_DISCOUNTS, tenant_id, ids):
        discounts.setdefault(row["order_id"], []).append(_discount(row))
    payments: dict[str, list[Payment]] = {}
    for row in await raw(connection).fetch(_PAYMENTS, tenant_id, ids):
        payments.setdefault(row["order_id"], []).append(_payment(row))
    return {
        row["order_id"]: Stored(
            order=_order(
                row,
                lines=tuple(lines.get(row["order_id"], ())),
                discounts=tuple(discounts.get(row["order_id"], ())),
                payments=tuple(payments.get(row["order_id"], ())),
            ),
            attempt=Attempt(
                client_id=row["client_id"],
                fingerprint=row["fingerprint"],
                goods=row["goods"],
                candidates=tuple((int(c[0]), c[1], int(c[2]), c[3]) for c in row["candidates"] or ()),
            ),
            refusal=row["refusal"],
        )
        for row in rows
    }


def _order(
    row: Any, *, lines: tuple[Line, ...], discounts: tuple[Discount, ...], payments: tuple[Payment, ...]
) -> Order:
    return Order(
        order_id=OrderId(row["order_id"]),
        state=OrderState(row["state"]),
        version=row["version"],
        store_id=StoreId(row["store_id"]),
        channel=row["channel"],
        member_id=MemberId(row["member_id"]),
        guide_id=row["guide_id"],
        currency_code=row["currency_code"],
        point_currency=row["point_currency"],
        discounts=discounts,
        lines=lines,
        payments=payments,
        shelf_minor=row["shelf_minor"],
        discount_minor=row["discount_minor"],
        net_minor=row["net_minor"],
        points_tender_minor=row["points_tender_minor"],
        burnt_points=row["burnt_points"],
        quoted_points=row["quoted_points"],
        occurred_at=row["occurred_at"],
        points_hold_id=row["points_hold_id"],
        benefits_hold_id=row["benefits_hold_id"],
        expires_at=row["expires_at"],
        closes_at=row["closes_at"],
        till_id=row["till_id"],
        sale_number=row["sale_number"],
        offline=row["offline"],
        offline_burnt_points=row["offline_burnt_points"],
        refunded_minor=row["refunded_minor"],
        refund_count=row["refund_count"],
    )


def _line(row: Any) -> Line:
    return Line(
        line_no=row["line_no"],
        line_id=row["line_id"],
        sku=row["sku"],
        category=row["category"],
        quantity=row["quantity"],
        price_source=PriceSource(row["price_source"]),
        shelf_minor=row["shelf_minor"],
        discounts_minor=tuple(row["discounts_minor"]),
        net_minor=row["net_minor"],
        points_tender_minor=row["points_tender_minor"],
        burnt_points=row["burnt_points"],
        tenders_minor=tuple(row["tenders_minor"]),
        refunded_quantity=row["refunded_quantity"],
        refunded_minor=row["refunded_minor"],
        supplier_id=row["supplier_id"],
        rule_version=row["rule_version"],
        from_stock=row["from_stock"],
    )


def _discount(row: Any) -> Discount:
    return Discount(
        source=DiscountSource(row["source"]),
        source_id=row["source_id"],
        coupon_id=row["coupon_id"],
        funder=row["funder"],
    )


def _payment(row: Any) -> Payment:
    return Payment(
        tender=Tender(row["tender"]),
        amount_minor=row["amount_minor"],
        reference=row["reference"],
        refunded_minor=row["refunded_minor"],
    )
