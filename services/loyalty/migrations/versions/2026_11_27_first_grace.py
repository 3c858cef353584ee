"""What came back before a programme's first version lives as long as that version says, not 30 days; pre-deploy.

Functions only, with the arguments that they had.

Revision ID: loyalty_first_grace
Revises: loyalty_balances_of_many
"""

from alembic import op

from services.loyalty.migrations import scripts

revision = "loyalty_first_grace"
down_revision = "loyalty_balances_of_many"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    scripts.replace_functions()
