"""What identity told: its stores, and members that became one."""

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Index, PrimaryKeyConstraint, Table, Text
from sqlalchemy.dialects.postgresql import UUID

from services.commerce.tables.columns import INSTANT, NOW, metadata

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
    Column("changed_at", INSTANT, nullable=False, server_default=NOW),
    PrimaryKeyConstraint("tenant_id", "store_id", name="stores_key"),
)
