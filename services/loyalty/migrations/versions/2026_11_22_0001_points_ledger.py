"""The points ledger, its functions, orders as accrued, tiers and programmes, beside the runtime's own tables.

Runs before the deployment (pre). Revision ID: loyalty_0001
"""

from pathlib import Path

from alembic import op

from services.runtime import schema

revision = "loyalty_0001"
down_revision = None
branch_labels = None
depends_on = None

SERVICE = "loyalty"
SQL = Path(__file__).parent.parent / "sql"

APPEND_ONLY = ("programmes", "entries", "tier_changes")
CHANGED = (
    "point_classes",
    "accounts",
    "pools",
    "holes",
    "point_requests",
    "debts",
    "holds",
    "earnings",
    "aliases",
    "orders",
    "tier_days",
    "member_tiers",
)


def upgrade() -> None:
    """Makes everything."""
    for statement in schema.version_1(SERVICE):
        op.execute(statement)
    for name in ("0001_tables", "0001_ledger", "0001_batches", "0001_holds", "0001_refunds", "0001_merges"):
        for statement in _statements((SQL / f"{name}.sql").read_text()):
            # the driver prepares what it runs, so no colon may look like a parameter to SQLAlchemy
            op.get_bind().exec_driver_sql(statement)
    for table in (*APPEND_ONLY, *CHANGED):
        for statement in schema.rls(SERVICE, table):
            op.execute(statement)
    for table in APPEND_ONLY:
        for statement in schema.append_only(SERVICE, table):
            op.execute(statement)


def _statements(script: str) -> list[str]:
    """The script's statements: a semicolon at a line's end closes one, unless a function's body is open."""
    statements: list[str] = []
    lines: list[str] = []
    for line in script.splitlines():
        lines.append(line)
        text = "\n".join(lines)
        if line.rstrip().endswith(";") and text.count("$$") % 2 == 0:
            statements.append(text)
            lines = []
    return statements
