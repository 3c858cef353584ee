"""Accounts are locked in one order whoever calls, merged members' as well; pre-deploy.

Functions only, with the arguments that they had. The build before locks the merges of one batch one by one, and so may
deadlock for as long as it runs.

Revision ID: loyalty_lock_order
Revises: loyalty_swept_refusals
"""

from alembic import op

from services.loyalty.migrations import scripts

revision = "loyalty_lock_order"
down_revision = "loyalty_swept_refusals"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    scripts.replace_functions()
