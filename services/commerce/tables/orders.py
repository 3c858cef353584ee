"""Orders as they were sold, their sagas, and what came back."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from services.commerce.tables.columns import INSTANT, NOW, Xid8, metadata

ORDERS_KEY: Final = "orders_key"
ORDERS_OF_REQUEST: Final = "orders_of_request"
ORDERS_TILL_SALE: Final = "orders_till_sale"
"""A till's sale number is used once; an attempt that was cancelled gives it back."""

orders = Table(
    "orders",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("order_id", UUID(as_uuid=False), nullable=False),
    Column("client_id", Text, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("goods", LargeBinary, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("store_id", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("member_id", UUID(as_uuid=False)),
    Column("guide_id", Text, nullable=False),
    Column("currency_code", Text, nullable=False),
    Column("point_currency", Text, nullable=False),
    Column("shelf_minor", BigInteger, nullable=False),
    Column("discount_minor", BigInteger, nullable=False),
    Column("net_minor", BigInteger, nullable=False),
    Column("points_tender_minor", BigInteger, nullable=False),
    Column("burnt_points", BigInteger, nullable=False),
    Column("offline_burnt_points", BigInteger, nullable=False),
    Column("quoted_points", BigInteger, nullable=False),
    Column("points_hold_id", Text, nullable=False),
    Column("benefits_hold_id", Text, nullable=False),
    Column("refunded_minor", BigInteger, nullable=False, server_default=text("0")),
    Column("refund_count", Integer, nullable=False, server_default=text("0")),
    Column("till_id", Text, nullable=False),
    Column("sale_number", Text, nullable=False),
    Column("offline", Boolean, nullable=False),
    Column("occurred_at", INSTANT, nullable=False),
    Column("placed_at", INSTANT, nullable=False, server_default=NOW),
    Column("paid_at", INSTANT),
    Column("expires_at", INSTANT),
    Column("closes_at", INSTANT),
    Column("event_xid", Xid8),
    Column("candidates", JSONB),
    Column("refusal", JSONB),
    Column("request_key", UUID(as_uuid=False)),
    PrimaryKeyConstraint("tenant_id", "order_id", name="orders_key"),
    CheckConstraint("(state = ANY (ARRAY[2, 3, 4, 5])) = (paid_at IS NOT NULL)", name="orders_paid_at"),
    CheckConstraint("(state = 1) = (expires_at IS NOT NULL)", name="orders_pending_expires"),
    CheckConstraint("points_tender_minor >= 0 AND points_tender_minor <= net_minor", name="orders_points_within_total"),
    CheckConstraint("refunded_minor >= 0 AND refunded_minor <= net_minor", name="orders_refunded_within_total"),
    CheckConstraint("net_minor = (shelf_minor - discount_minor) AND net_minor >= 0", name="orders_total"),
    Index(
        "orders_of_member",
        "tenant_id",
        "member_id",
        "occurred_at",
        "order_id",
        postgresql_where=text("(member_id IS NOT NULL)"),
    ),
    Index("orders_in_order", "tenant_id", "occurred_at", "order_id"),
    Index(
        "orders_of_request",
        "tenant_id",
        "request_key",
        unique=True,
        postgresql_where=text("(request_key IS NOT NULL)"),
    ),
    Index("orders_of_store", "tenant_id", "store_id", "occurred_at", "order_id"),
    Index(
        "orders_till_sale",
        "tenant_id",
        "store_id",
        "till_id",
        "sale_number",
        unique=True,
        postgresql_where=text("((till_id <> ''::text) AND (state <> 6))"),
    ),
    Index("orders_to_close", "tenant_id", "closes_at", postgresql_where=text("(state = ANY (ARRAY[2, 4]))")),
    Index("orders_waiting", "expires_at", postgresql_where=text("(state = 1)")),
    Index(
        "orders_waiting_of_guests",
        "tenant_id",
        "client_id",
        "store_id",
        postgresql_where=text("((state = 1) AND (member_id IS NULL) AND (till_id = ''::text))"),
    ),
    Index(
        "orders_waiting_of_member",
        "tenant_id",
        "member_id",
        postgresql_where=text("((state = 1) AND (member_id IS NOT NULL))"),
    ),
)

order_discounts = Table(
    "order_discounts",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("order_id", UUID(as_uuid=False), nullable=False),
    Column("discount_no", SmallInteger, nullable=False),
    Column("source", SmallInteger, nullable=False),
    Column("source_id", Text, nullable=False),
    Column("coupon_id", UUID(as_uuid=False)),
    Column("funder", Text, nullable=False),
    PrimaryKeyConstraint("tenant_id", "order_id", "discount_no", name="order_discounts_key"),
)

order_lines = Table(
    "order_lines",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("order_id", UUID(as_uuid=False), nullable=False),
    Column("line_no", SmallInteger, nullable=False),
    Column("line_id", Text, nullable=False),
    Column("sku", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("quantity", BigInteger, nullable=False),
    Column("price_source", SmallInteger, nullable=False),
    Column("shelf_minor", BigInteger, nullable=False),
    Column("discounts_minor", ARRAY(BigInteger), nullable=False),
    Column("net_minor", BigInteger, nullable=False),
    Column("points_tender_minor", BigInteger, nullable=False),
    Column("burnt_points", BigInteger, nullable=False),
    Column("tenders_minor", ARRAY(BigInteger), nullable=False),
    Column("supplier_id", Text, nullable=False),
    Column("rule_version", BigInteger, nullable=False),
    Column("from_stock", Boolean, nullable=False),
    Column("refunded_quantity", BigInteger, nullable=False, server_default=text("0")),
    Column("refunded_minor", BigInteger, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("tenant_id", "order_id", "line_no", name="order_lines_key"),
    CheckConstraint("net_minor >= 0 AND net_minor <= shelf_minor", name="order_lines_net"),
    CheckConstraint(
        "points_tender_minor >= 0 AND points_tender_minor <= net_minor", name="order_lines_points_within_net"
    ),
    CheckConstraint("refunded_minor >= 0 AND refunded_minor <= net_minor", name="order_lines_refunded_within_net"),
    CheckConstraint(
        "refunded_quantity >= 0 AND refunded_quantity <= quantity", name="order_lines_refunded_within_sold"
    ),
)

order_payments = Table(
    "order_payments",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("order_id", UUID(as_uuid=False), nullable=False),
    Column("payment_no", SmallInteger, nullable=False),
    Column("tender", SmallInteger, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("reference", Text, nullable=False),
    Column("refunded_minor", BigInteger, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("tenant_id", "order_id", "payment_no", name="order_payments_key"),
    CheckConstraint("amount_minor > 0", name="order_payments_positive"),
    CheckConstraint(
        "refunded_minor >= 0 AND refunded_minor <= amount_minor", name="order_payments_refunded_within_paid"
    ),
)

order_steps = Table(
    "order_steps",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("order_id", UUID(as_uuid=False), nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("member_id", UUID(as_uuid=False)),
    Column("point_currency", Text, nullable=False),
    Column("points", BigInteger, nullable=False),
    Column("coupons", JSONB, nullable=False),
    Column("budgets", JSONB, nullable=False),
    Column("ttl_s", Integer, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("due_at", INSTANT, nullable=False, server_default=NOW),
    Column("last_error", Text),
    PrimaryKeyConstraint("tenant_id", "order_id", "kind", name="order_steps_key"),
    Index("order_steps_due", "due_at", postgresql_where=text("(state = ANY (ARRAY[3, 4]))")),
)

refunds = Table(
    "refunds",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("order_id", UUID(as_uuid=False), nullable=False),
    Column("refund_no", Integer, nullable=False),
    Column("refund_id", UUID(as_uuid=False), nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("tenders_minor", ARRAY(BigInteger), nullable=False),
    Column("returned_points", BigInteger, nullable=False),
    Column("whole_order", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("occurred_at", INSTANT, nullable=False),
    Column("posted_at", INSTANT, nullable=False, server_default=NOW),
    PrimaryKeyConstraint("tenant_id", "order_id", "refund_no", name="refunds_key"),
)

refund_lines = Table(
    "refund_lines",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("order_id", UUID(as_uuid=False), nullable=False),
    Column("refund_no", Integer, nullable=False),
    Column("line_no", SmallInteger, nullable=False),
    Column("quantity", BigInteger, nullable=False),
    Column("refunded_before", BigInteger, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("points_tender_minor", BigInteger, nullable=False),
    Column("returned_points", BigInteger, nullable=False),
    Column("discounts_minor", ARRAY(BigInteger), nullable=False),
    Column("tenders_minor", ARRAY(BigInteger), nullable=False),
    Column("restock", Boolean, nullable=False),
    PrimaryKeyConstraint("tenant_id", "order_id", "refund_no", "line_no", name="refund_lines_key"),
    CheckConstraint("quantity > 0", name="refund_lines_quantity"),
)
