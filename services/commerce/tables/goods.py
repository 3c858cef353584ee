"""The catalogue, its prices, and the stock of each store with the documents that explain it."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, UUID

from services.commerce.tables.columns import INSTANT, NOW, metadata

products = Table(
    "products",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("sku", Text, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("base_unit", SmallInteger, nullable=False),
    Column("price_quantity", BigInteger, nullable=False),
    Column("supplier_id", Text, nullable=False),
    Column("cost_minor", BigInteger, nullable=False),
    Column("untracked", Boolean, nullable=False),
    Column("changed_at", INSTANT, nullable=False, server_default=NOW),
    PrimaryKeyConstraint("tenant_id", "sku", name="products_key"),
    CheckConstraint("price_quantity >= 1", name="products_price_quantity"),
)

prices = Table(
    "prices",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("sku", Text, nullable=False),
    Column("store_id", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("price_minor", BigInteger, nullable=False),
    Column("changed_at", INSTANT, nullable=False, server_default=NOW),
    PrimaryKeyConstraint("tenant_id", "sku", "store_id", "channel", name="prices_key"),
    CheckConstraint("price_minor >= 0", name="prices_not_negative"),
)

stock = Table(
    "stock",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("store_id", Text, nullable=False),
    Column("sku", Text, nullable=False),
    Column("on_hand", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False, server_default=text("0")),
    Column("shortfall", BigInteger, nullable=False, server_default=text("0")),
    Column("version", BigInteger, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("tenant_id", "store_id", "sku", name="stock_key"),
    CheckConstraint("reserved <= (on_hand + shortfall)", name="stock_not_oversold"),
    CheckConstraint("reserved >= 0", name="stock_reserved_not_negative"),
    CheckConstraint("shortfall >= 0", name="stock_shortfall_not_negative"),
)

stock_documents = Table(
    "stock_documents",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("document_id", UUID(as_uuid=False), nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("store_id", Text, nullable=False),
    Column("order_id", UUID(as_uuid=False)),
    Column("refund_id", UUID(as_uuid=False)),
    Column("reason", Text, nullable=False),
    Column("occurred_at", INSTANT, nullable=False),
    Column("posted_at", INSTANT, nullable=False, server_default=NOW),
    PrimaryKeyConstraint("tenant_id", "document_id", name="stock_documents_key"),
)

stock_lines = Table(
    "stock_lines",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("store_id", Text, nullable=False),
    Column("sku", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("document_id", UUID(as_uuid=False), nullable=False),
    Column("change", BigInteger, nullable=False),
    Column("on_hand_after", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant_id", "store_id", "sku", "version", name="stock_lines_key"),
)

stock_holds = Table(
    "stock_holds",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("order_id", UUID(as_uuid=False), nullable=False),
    Column("store_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("skus", ARRAY(Text), nullable=False),
    Column("quantities", ARRAY(BigInteger), nullable=False),
    Column("expires_at", INSTANT, nullable=False),
    Column("resolved_at", INSTANT),
    PrimaryKeyConstraint("tenant_id", "order_id", name="stock_holds_key"),
    CheckConstraint("(state = 'held'::text) = (resolved_at IS NULL)", name="stock_holds_resolved"),
    CheckConstraint(
        "state = ANY (ARRAY['held'::text, 'captured'::text, 'voided'::text, 'expired'::text])", name="stock_holds_state"
    ),
    Index("stock_holds_open", "tenant_id", "expires_at", postgresql_where=text("(state = 'held'::text)")),
)
