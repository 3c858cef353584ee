"""How sales differ from the books, and what was done about it."""

from sqlalchemy import BigInteger, Column, Index, PrimaryKeyConstraint, Table, Text
from sqlalchemy.dialects.postgresql import UUID

from services.commerce.tables.columns import INSTANT, metadata

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
    Column("posted_at", INSTANT, nullable=False),
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
    Column("resolved_at", INSTANT, nullable=False),
    PrimaryKeyConstraint("tenant_id", "exception_id", name="exception_resolutions_key"),
)
