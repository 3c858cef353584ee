"""The points ledger, its functions, orders as accrued, tiers and programmes, beside the runtime's own tables.

Runs before the deployment (pre). Revision ID: loyalty_0001
"""

from alembic import op

from services.loyalty.migrations import scripts
from services.runtime import schema

revision = "loyalty_0001"
down_revision = None
branch_labels = None
depends_on = None

SERVICE = "loyalty"

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
    scripts.run("tables.sql")
    scripts.replace_functions()
    for table in (*APPEND_ONLY, *CHANGED):
        for statement in schema.rls(SERVICE, table):
            op.execute(statement)
    for table in APPEND_ONLY:
        for statement in schema.append_only(SERVICE, table):
            op.execute(statement)
