"""Balances settle the accounts that are due, and neither lock nor make the others; pre-deploy.

Functions only, with the arguments that they had.

Revision ID: loyalty_balances_of_many
Revises: loyalty_holds_at_once
"""

from alembic import op

from services.loyalty.migrations import scripts

revision = "loyalty_balances_of_many"
down_revision = "loyalty_holds_at_once"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    scripts.replace_functions()
