"""A worker's look at its parked events, each second, no longer reads all of them; pre-deploy: an index.

Revision ID: loyalty_parked_by_queue
Revises: loyalty_late_holds
"""

from alembic import op

from services.runtime import schema

revision = "loyalty_parked_by_queue"
down_revision = "loyalty_late_holds"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for statement in schema.version_3("loyalty"):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP INDEX parked_events_of_queue")
