"""Waiting orders without a member are counted by an index; pre-deploy: nothing else changes.

Revision ID: 2026_11_27_waiting_guests
Revises: 2026_11_27_stores
"""

from alembic import op

revision = "2026_11_27_waiting_guests"
down_revision = "2026_11_27_stores"
branch_labels = None
depends_on = None

STATEMENTS = (
    "SET LOCAL lock_timeout = '5s'",
    """
    CREATE INDEX orders_waiting_of_guests ON orders (tenant_id, client_id, store_id)
    WHERE state = 1 AND member_id IS NULL AND till_id = ''
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP INDEX orders_waiting_of_guests")
