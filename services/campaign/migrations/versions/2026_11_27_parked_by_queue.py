"""A worker's look at its parked events, each second, no longer reads all of them; pre-deploy: an index.

Revision ID: campaign_parked_by_queue
Revises: campaign_parking
"""

from alembic import op

from services.runtime import schema

revision = "campaign_parked_by_queue"
down_revision = "campaign_parking"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for statement in schema.version_3("campaign"):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP INDEX parked_events_of_queue")
