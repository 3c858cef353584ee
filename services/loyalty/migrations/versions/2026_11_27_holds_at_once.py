"""Holds are made in one statement, and without a look at what was answered before; pre-deploy.

Functions only: `hold_points` has the arguments that it had, and the build before calls it as this one does.

Revision ID: loyalty_holds_at_once
Revises: loyalty_lock_order
"""

from alembic import op

from services.loyalty.migrations import scripts

revision = "loyalty_holds_at_once"
down_revision = "loyalty_lock_order"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    scripts.replace_functions()
