"""Who gets what of an order, and how it is paid out."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from services.commerce.tables.columns import INSTANT, NOW, metadata

split_rules = Table(
    "split_rules",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("supplier_id", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("shares", JSONB, nullable=False),
    Column("published_at", INSTANT, nullable=False, server_default=NOW),
    PrimaryKeyConstraint("tenant_id", "supplier_id", "version", name="split_rules_key"),
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
    Column("occurred_at", INSTANT, nullable=False),
    Column("posted_at", INSTANT, nullable=False, server_default=NOW),
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
    Column("closed_at", INSTANT, nullable=False),
    Column("closed_by", Text, nullable=False),
    Column("posted_at", INSTANT, nullable=False, server_default=NOW),
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
    Column("occurred_at", INSTANT, nullable=False),
    Column("posted_at", INSTANT, nullable=False, server_default=NOW),
    PrimaryKeyConstraint("tenant_id", "statement_id", "payout_no", name="payouts_key"),
    CheckConstraint("state = ANY (ARRAY[3, 4])", name="payouts_state"),
)
