"""Events that can't be handled are parked per tenant instead of stopping their partition; pre-deploy: a new table only.

Until the last worker of the build before has stopped, it may handle an event that belongs behind a parked one.

Revision ID: campaign_parking
Revises: campaign_0001
"""

from alembic import op

from services.runtime import schema

revision = "campaign_parking"
down_revision = "campaign_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for statement in schema.version_2("campaign"):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE parked_events")
