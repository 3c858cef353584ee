"""Suppliers, where their goods come from, and their part of an order."""

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

suppliers = Table(
    "suppliers",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("supplier_id", Text, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("accept_within_s", BigInteger, nullable=False),
    Column("changed_at", INSTANT, nullable=False, server_default=NOW),
    Column("deliver_within_s", BigInteger, nullable=False, server_default=text("864000")),
    Column("ship_within_s", BigInteger, nullable=False, server_default=text("604800")),
    PrimaryKeyConstraint("tenant_id", "supplier_id", name="suppliers_key"),
)

supply_policies = Table(
    "supply_policies",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("on_unfilled", SmallInteger, nullable=False),
    Column("changed_at", INSTANT, nullable=False, server_default=NOW),
    PrimaryKeyConstraint("tenant_id", name="supply_policies_key"),
)

sku_sources = Table(
    "sku_sources",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("sku", Text, nullable=False),
    Column("place", SmallInteger, nullable=False),
    Column("supplier_id", Text, nullable=False),
    Column("cost_minor", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant_id", "sku", "place", name="sku_sources_key"),
    CheckConstraint("cost_minor >= 0", name="sku_sources_cost"),
    Index("sku_sources_once", "tenant_id", "sku", "supplier_id", unique=True),
)

supplier_orders = Table(
    "supplier_orders",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("supplier_order_id", UUID(as_uuid=False), nullable=False),
    Column("order_id", UUID(as_uuid=False), nullable=False),
    Column("supplier_id", Text, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("requested_at", INSTANT),
    Column("accept_by", INSTANT),
    Column("reason", Text, nullable=False, server_default=text("''::text")),
    Column("posted_at", INSTANT, nullable=False, server_default=NOW),
    Column("deliver_within_s", BigInteger, nullable=False, server_default=text("864000")),
    Column("deliver_by", INSTANT),
    Column("replaces", UUID(as_uuid=False)),
    Column("ship_within_s", BigInteger, nullable=False, server_default=text("604800")),
    Column("ship_by", INSTANT),
    Column("late_told", Boolean, nullable=False, server_default=text("false")),
    PrimaryKeyConstraint("tenant_id", "supplier_order_id", name="supplier_orders_key"),
    Index("supplier_orders_in_state", "tenant_id", "supplier_id", "state", "supplier_order_id"),
    Index("supplier_orders_due", "tenant_id", "accept_by", postgresql_where=text("(state = 2)")),
    Index("supplier_orders_of_order", "tenant_id", "order_id"),
    Index("supplier_orders_of_supplier", "tenant_id", "supplier_id", "supplier_order_id"),
    Index(
        "supplier_orders_to_ship",
        "tenant_id",
        "ship_by",
        postgresql_where=text("((state = ANY (ARRAY[3, 4])) AND (NOT late_told))"),
    ),
    Index("supplier_orders_under_way", "tenant_id", "deliver_by", postgresql_where=text("(state = 7)")),
)

supplier_order_lines = Table(
    "supplier_order_lines",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("supplier_order_id", UUID(as_uuid=False), nullable=False),
    Column("line_no", SmallInteger, nullable=False),
    Column("line_id", Text, nullable=False),
    Column("sku", Text, nullable=False),
    Column("quantity", BigInteger, nullable=False),
    Column("accepted_quantity", BigInteger, nullable=False, server_default=text("0")),
    Column("shipped_quantity", BigInteger, nullable=False, server_default=text("0")),
    Column("refunded_quantity", BigInteger, nullable=False, server_default=text("0")),
    Column("rerouted_quantity", BigInteger, nullable=False, server_default=text("0")),
    Column("returned_quantity", BigInteger, nullable=False, server_default=text("0")),
    Column("cost_minor", BigInteger, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("tenant_id", "supplier_order_id", "line_no", name="supplier_order_lines_key"),
    CheckConstraint("accepted_quantity >= 0 AND accepted_quantity <= quantity", name="supplier_order_lines_accepted"),
    CheckConstraint(
        "shipped_quantity >= 0 AND shipped_quantity <= accepted_quantity", name="supplier_order_lines_shipped"
    ),
    CheckConstraint(
        "refunded_quantity >= 0 AND rerouted_quantity >= 0"
        " AND ((shipped_quantity + refunded_quantity) + rerouted_quantity) <= quantity",
        name="supplier_order_lines_whole",
    ),
    CheckConstraint(
        "returned_quantity >= 0 AND returned_quantity <= shipped_quantity", name="supplier_order_lines_returned"
    ),
)

parcels = Table(
    "parcels",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("supplier_order_id", UUID(as_uuid=False), nullable=False),
    Column("parcel_no", BigInteger, nullable=False),
    Column("carrier", Text, nullable=False),
    Column("tracking_number", Text, nullable=False),
    Column("line_nos", ARRAY(SmallInteger), nullable=False),
    Column("quantities", ARRAY(BigInteger), nullable=False),
    Column("shipped_at", INSTANT, nullable=False),
    PrimaryKeyConstraint("tenant_id", "supplier_order_id", "parcel_no", name="parcels_key"),
)

parcel_deliveries = Table(
    "parcel_deliveries",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("supplier_order_id", UUID(as_uuid=False), nullable=False),
    Column("parcel_no", BigInteger, nullable=False),
    Column("delivered_at", INSTANT, nullable=False),
    Column("told_by", Text, nullable=False),
    Column("posted_at", INSTANT, nullable=False, server_default=NOW),
    PrimaryKeyConstraint("tenant_id", "supplier_order_id", "parcel_no", name="parcel_deliveries_key"),
)
