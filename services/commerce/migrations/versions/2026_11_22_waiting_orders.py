"""A member's waiting orders are counted, and a tenant's orders listed, by an index; pre-deploy: nothing else changes.

Revision ID: 2026_11_22_waiting_orders
Revises: 2026_11_22_statements
"""

from alembic import op

revision = "2026_11_22_waiting_orders"
down_revision = "2026_11_22_statements"
branch_labels = None
depends_on = None

STATEMENTS = (
    "SET LOCAL lock_timeout = '5s'",
    "CREATE INDEX orders_waiting_of_member ON orders (tenant_id, member_id) WHERE state = 1 AND member_id IS NOT NULL",
    "CREATE INDEX orders_in_order ON orders (tenant_id, occurred_at, order_id)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP INDEX orders_waiting_of_member")
    op.execute("DROP INDEX orders_in_order")
