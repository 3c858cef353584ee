"""A worker's look at its parked events, each second, no longer reads all of them; pre-deploy: an index.

Revision ID: 2026_11_27_parked_by_queue
Revises: 2026_11_27_waiting_guests
"""

from alembic import op

from services.runtime import schema

revision = "2026_11_27_parked_by_queue"
down_revision = "2026_11_27_waiting_guests"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for statement in schema.version_3("commerce"):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP INDEX parked_events_of_queue")
