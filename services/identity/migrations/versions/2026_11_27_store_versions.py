"""A store's changes are numbered, so that who follows them takes the latest; pre-deploy: a column with a constant.

Revision ID: identity_0002
Revises: identity_0001
"""

from alembic import op

revision = "identity_0002"
down_revision = "identity_0001"
branch_labels = None
depends_on = None

STATEMENTS = (
    "SET LOCAL lock_timeout = '5s'",
    # the stores that are there were never told of: whoever meets one asks for it, and is told version 1
    "ALTER TABLE identity.stores ADD COLUMN version bigint NOT NULL DEFAULT 1",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("ALTER TABLE identity.stores DROP COLUMN version")
