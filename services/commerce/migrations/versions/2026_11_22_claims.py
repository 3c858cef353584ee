"""A request id is claimed by the order that it places; pre-deploy: a column without values, and an index on it.

Revision ID: 2026_11_22_claims
Revises: 2026_11_22_waiting_orders
"""

from alembic import op

revision = "2026_11_22_claims"
down_revision = "2026_11_22_waiting_orders"
branch_labels = None
depends_on = None

STATEMENTS = (
    "SET LOCAL lock_timeout = '5s'",
    # only an order that is placed before its request is answered has one; any other is made with its answer
    "ALTER TABLE orders ADD COLUMN request_key uuid",
    "CREATE UNIQUE INDEX orders_of_request ON orders (tenant_id, request_key) WHERE request_key IS NOT NULL",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP INDEX orders_of_request")
    op.execute("ALTER TABLE orders DROP COLUMN request_key")
