"""commerce's tables: what its migrations have made, and what kind each is. A test compares the two.

Money is minor units, quantities are base units; arrays of a line follow the order's discounts or payments.
"""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID
from sqlalchemy.types import UserDefinedType

LEDGERS: Final = (
    "order_discounts",
    "refunds",
    "refund_lines",
    "stock_documents",
    "stock_lines",
    "split_rules",
    "settlement_entries",
    "parcels",
    "parcel_deliveries",
    "statements",
    "statement_lines",
    "payouts",
    "sale_exceptions",
    "exception_resolutions",
)
"""Append-only: neither role may change or delete a row. All other tables are audited against these."""

ORDERS_KEY: Final = "orders_key"
ORDERS_OF_REQUEST: Final = "orders_of_request"
ORDERS_TILL_SALE: Final = "orders_till_sale"
"""A till's sale number is used once; an attempt that was cancelled gives it back."""

metadata = MetaData()

_NOW = text("now()")
_INSTANT = DateTime(timezone=True)


class _Xid8(UserDefinedType[Any]):
    """A transaction's id; the relay's horizon is compared with it."""

    cache_ok = True

    def get_col_spec(self, **_options: Any) -> str:
        """Its name in Postgres."""
        return "xid8"


member_aliases = Table(
    "member_aliases",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("member_id", UUID(as_uuid=False), nullable=False),
    Column("survivor_id", UUID(as_uuid=False), nullable=False),
    PrimaryKeyConstraint("tenant_id", "member_id", name="member_aliases_key"),
    CheckConstraint("member_id <> survivor_id", name="member_aliases_no_loop"),
    Index("member_aliases_of", "tenant_id", "survivor_id"),
)

stores = Table(
    "stores",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("store_id", Text, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("changed_at", _INSTANT, nullable=False, server_default=_NOW),
    PrimaryKeyConstraint("tenant_id", "store_id", name="stores_key"),
)

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
    Column("changed_at", _INSTANT, nullable=False, server_default=_NOW),
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
    Column("changed_at", _INSTANT, nullable=False, server_default=_NOW),
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
    Column("occurred_at", _INSTANT, nullable=False),
    Column("posted_at", _INSTANT, nullable=False, server_default=_NOW),
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
    Column("expires_at", _INSTANT, nullable=False),
    Column("resolved_at", _INSTANT),
    PrimaryKeyConstraint("tenant_id", "order_id", name="stock_holds_key"),
    CheckConstraint("(state = 'held'::text) = (resolved_at IS NULL)", name="stock_holds_resolved"),
    CheckConstraint(
        "state = ANY (ARRAY['held'::text, 'captured'::text, 'voided'::text, 'expired'::text])", name="stock_holds_state"
    ),
    Index("stock_holds_open", "tenant_id", "expires_at", postgresql_where=text("(state = 'held'::text)")),
)

suppliers = Table(
    "suppliers",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("supplier_id", Text, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("accept_within_s", BigInteger, nullable=False),
    Column("changed_at", _INSTANT, nullable=False, server_default=_NOW),
    Column("deliver_within_s", BigInteger, nullable=False, server_default=text("864000")),
    PrimaryKeyConstraint("tenant_id", "supplier_id", name="suppliers_key"),
)

supply_policies = Table(
    "supply_policies",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("on_unfilled", SmallInteger, nullable=False),
    Column("changed_at", _INSTANT, nullable=False, server_default=_NOW),
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

split_rules = Table(
    "split_rules",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("supplier_id", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("shares", JSONB, nullable=False),
    Column("published_at", _INSTANT, nullable=False, server_default=_NOW),
    PrimaryKeyConstraint("tenant_id", "supplier_id", "version", name="split_rules_key"),
)

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
    Column("occurred_at", _INSTANT, nullable=False),
    Column("placed_at", _INSTANT, nullable=False, server_default=_NOW),
    Column("paid_at", _INSTANT),
    Column("expires_at", _INSTANT),
    Column("closes_at", _INSTANT),
    Column("event_xid", _Xid8),
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
    Column("due_at", _INSTANT, nullable=False, server_default=_NOW),
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
    Column("occurred_at", _INSTANT, nullable=False),
    Column("posted_at", _INSTANT, nullable=False, server_default=_NOW),
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

settlement_entries = Table(
    "settlement_entries",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("order_id", UUID(as_uuid=False), nullable=False),
    Column("refund_no", Integer, nullable=False),
    Column("line_no", SmallInteger, nullable=False),
    Column("entry_no", SmallInteger, nullable=False),
    Column("line_id", Text, nullable=False),
    Column("refund_id", UUID(as_uuid=False)),
    Column("party_kind", SmallInteger, nullable=False),
    Column("party_id", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("rule_version", BigInteger, nullable=False),
    Column("occurred_at", _INSTANT, nullable=False),
    Column("posted_at", _INSTANT, nullable=False, server_default=_NOW),
    Column("tenders_minor", ARRAY(BigInteger)),
    PrimaryKeyConstraint("tenant_id", "order_id", "refund_no", "line_no", "entry_no", name="settlement_entries_key"),
    Index(
        "settlement_entries_of_party",
        "tenant_id",
        "party_kind",
        "party_id",
        "occurred_at",
        "order_id",
        "refund_no",
        "line_no",
        "entry_no",
        postgresql_where=text("(party_kind <> 0)"),
    ),
)

settlement_accounts = Table(
    "settlement_accounts",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("party_kind", SmallInteger, nullable=False),
    Column("party_id", Text, nullable=False),
    Column("statement_no", BigInteger, nullable=False),
    Column("closed_to_day", Date),
    Column("carried_minor", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant_id", "party_kind", "party_id", name="settlement_accounts_key"),
    CheckConstraint("carried_minor <= 0", name="settlement_accounts_carried"),
)

statements = Table(
    "statements",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("statement_id", UUID(as_uuid=False), nullable=False),
    Column("party_kind", SmallInteger, nullable=False),
    Column("party_id", Text, nullable=False),
    Column("statement_no", BigInteger, nullable=False),
    Column("from_day", Date),
    Column("to_day", Date, nullable=False),
    Column("carried_in_minor", BigInteger, nullable=False),
    Column("earned_minor", BigInteger, nullable=False),
    Column("clawed_back_minor", BigInteger, nullable=False),
    Column("payable_minor", BigInteger, nullable=False),
    Column("carried_out_minor", BigInteger, nullable=False),
    Column("line_count", BigInteger, nullable=False),
    Column("currency_code", Text, nullable=False),
    Column("closed_at", _INSTANT, nullable=False),
    Column("closed_by", Text, nullable=False),
    Column("posted_at", _INSTANT, nullable=False, server_default=_NOW),
    PrimaryKeyConstraint("tenant_id", "statement_id", name="statements_key"),
    CheckConstraint(
        "(payable_minor + carried_out_minor) = ((carried_in_minor + earned_minor) - clawed_back_minor)",
        name="statements_sum",
    ),
    CheckConstraint(
        "carried_in_minor <= 0 AND carried_out_minor <= 0 AND payable_minor >= 0"
        " AND (payable_minor = 0 OR carried_out_minor = 0)",
        name="statements_carry",
    ),
    Index("statements_of_party", "tenant_id", "party_kind", "party_id", "statement_no", unique=True),
)

statement_lines = Table(
    "statement_lines",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("order_id", UUID(as_uuid=False), nullable=False),
    Column("refund_no", Integer, nullable=False),
    Column("line_no", SmallInteger, nullable=False),
    Column("entry_no", SmallInteger, nullable=False),
    Column("statement_id", UUID(as_uuid=False), nullable=False),
    Column("claw_back", Boolean, nullable=False),
    PrimaryKeyConstraint("tenant_id", "order_id", "refund_no", "line_no", "entry_no", name="statement_lines_key"),
    Index("statement_lines_of", "tenant_id", "statement_id", "order_id", "refund_no", "line_no", "entry_no"),
)

payouts = Table(
    "payouts",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("statement_id", UUID(as_uuid=False), nullable=False),
    Column("payout_no", Integer, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("reference", Text, nullable=False),
    Column("told_by", Text, nullable=False),
    Column("occurred_at", _INSTANT, nullable=False),
    Column("posted_at", _INSTANT, nullable=False, server_default=_NOW),
    PrimaryKeyConstraint("tenant_id", "statement_id", "payout_no", name="payouts_key"),
    CheckConstraint("state = ANY (ARRAY[3, 4])", name="payouts_state"),
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
    Column("requested_at", _INSTANT),
    Column("accept_by", _INSTANT),
    Column("reason", Text, nullable=False, server_default=text("''::text")),
    Column("posted_at", _INSTANT, nullable=False, server_default=_NOW),
    Column("deliver_within_s", BigInteger, nullable=False, server_default=text("864000")),
    Column("deliver_by", _INSTANT),
    Column("replaces", UUID(as_uuid=False)),
    PrimaryKeyConstraint("tenant_id", "supplier_order_id", name="supplier_orders_key"),
    Index("supplier_orders_due", "tenant_id", "accept_by", postgresql_where=text("(state = 2)")),
    Index("supplier_orders_of_order", "tenant_id", "order_id"),
    Index("supplier_orders_of_supplier", "tenant_id", "supplier_id", "supplier_order_id"),
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
    Column("shipped_at", _INSTANT, nullable=False),
    PrimaryKeyConstraint("tenant_id", "supplier_order_id", "parcel_no", name="parcels_key"),
)

parcel_deliveries = Table(
    "parcel_deliveries",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("supplier_order_id", UUID(as_uuid=False), nullable=False),
    Column("parcel_no", BigInteger, nullable=False),
    Column("delivered_at", _INSTANT, nullable=False),
    Column("told_by", Text, nullable=False),
    Column("posted_at", _INSTANT, nullable=False, server_default=_NOW),
    PrimaryKeyConstraint("tenant_id", "supplier_order_id", "parcel_no", name="parcel_deliveries_key"),
)

sale_exceptions = Table(
    "sale_exceptions",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("exception_id", UUID(as_uuid=False), nullable=False),
    Column("store_id", Text, nullable=False),
    Column("order_id", UUID(as_uuid=False), nullable=False),
    Column("line_id", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("difference", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),
    Column("posted_at", _INSTANT, nullable=False),
    PrimaryKeyConstraint("tenant_id", "exception_id", name="sale_exceptions_key"),
    Index("sale_exceptions_of_order", "tenant_id", "order_id"),
    Index("sale_exceptions_of_store", "tenant_id", "store_id", "exception_id"),
)

exception_resolutions = Table(
    "exception_resolutions",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("exception_id", UUID(as_uuid=False), nullable=False),
    Column("note", Text, nullable=False),
    Column("resolved_by", Text, nullable=False),
    Column("resolved_at", _INSTANT, nullable=False),
    PrimaryKeyConstraint("tenant_id", "exception_id", name="exception_resolutions_key"),
)
