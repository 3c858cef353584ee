"""A party's share of a line, by payment; pre-deploy: older code leaves it null.

Revision ID: 2026_11_22_shares_of_payments
Revises: 2026_11_22_orders
"""

from alembic import op

revision = "2026_11_22_shares_of_payments"
down_revision = "2026_11_22_orders"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # null for what was posted before: a ledger is not rewritten, and such an entry counts as paid in one
    op.execute("ALTER TABLE settlement_entries ADD COLUMN tenders_minor bigint[]")


def downgrade() -> None:
    op.execute("ALTER TABLE settlement_entries DROP COLUMN tenders_minor")
