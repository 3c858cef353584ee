"""Grants of different members are posted in one statement, which makes missing accounts as well.

Runs before the deployment (pre): what `accrue` takes and returns stays as it was.

Revision ID: loyalty_at_once
Revises: loyalty_parked_by_queue
"""

from alembic import op

from services.loyalty.migrations import scripts

revision = "loyalty_at_once"
down_revision = "loyalty_parked_by_queue"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    scripts.replace_functions()
    # Pins the plan of `grant_at_once`: the fewer accounts statistics give a tenant, the better it looks to the planner
    # to read all of them for each item and not the one by its key. From the next ANALYZE on they count one tenant.
    op.execute("ALTER TABLE accounts ALTER COLUMN tenant_id SET (n_distinct = 1)")
    op.execute(
        "DROP FUNCTION IF EXISTS grant_distinct(uuid, timestamptz, text[], integer[], timestamptz[], text[], text[],"
        " text[], smallint[], uuid[], uuid[], bigint[], timestamptz[], tid[], bigint[], bigint[], timestamptz[])"
    )
