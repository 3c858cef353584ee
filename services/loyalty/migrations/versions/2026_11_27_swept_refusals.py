"""A refusal that is swept while its request is repeated is a lost race, and the batch runs again; pre-deploy.

Functions only, with the arguments that they had: the build before runs such a batch again too.

Revision ID: loyalty_swept_refusals
Revises: loyalty_at_once
"""

from alembic import op

from services.loyalty.migrations import scripts

revision = "loyalty_swept_refusals"
down_revision = "loyalty_at_once"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    scripts.replace_functions()
