"""A supplier's orders in one state are found by an index; pre-deploy: nothing else changes.

Revision ID: 2026_11_27_orders_in_state
Revises: 2026_11_27_parked_by_queue
"""

from alembic import op

revision = "2026_11_27_orders_in_state"
down_revision = "2026_11_27_parked_by_queue"
branch_labels = None
depends_on = None

STATEMENTS = (
    "SET LOCAL lock_timeout = '5s'",
    # a supplier asks for what it must answer again and again, and its history grows
    """
    CREATE INDEX supplier_orders_in_state ON supplier_orders (tenant_id, supplier_id, state, supplier_order_id)
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP INDEX supplier_orders_in_state")
