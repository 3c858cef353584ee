"""A hold that is made while its resolution is on its way is resolved on an account that was entered; pre-deploy.

Functions only, with the arguments that they had: the build before runs a batch again that lost a race, as this one.

Revision ID: loyalty_late_holds
Revises: loyalty_tails
"""

from alembic import op

from services.loyalty.migrations import scripts

revision = "loyalty_late_holds"
down_revision = "loyalty_tails"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    scripts.replace_functions()
