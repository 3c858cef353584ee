"""Exceptions of sales are resolved; pre-deploy: a new table.

Revision ID: 2026_11_22_resolutions
Revises: 2026_11_22_deliveries
"""

from alembic import op

from services.runtime import schema

revision = "2026_11_22_resolutions"
down_revision = "2026_11_22_deliveries"
branch_labels = None
depends_on = None

SERVICE = "commerce"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # the key makes it once; the exception itself stays as it was found
    op.execute(
        """
        CREATE TABLE exception_resolutions (
            tenant_id uuid NOT NULL,
            exception_id uuid NOT NULL,
            note text NOT NULL,
            resolved_by text NOT NULL,
            resolved_at timestamptz NOT NULL,
            CONSTRAINT exception_resolutions_key PRIMARY KEY (tenant_id, exception_id)
        )
        """
    )
    for statement in (
        *schema.rls(SERVICE, "exception_resolutions"),
        *schema.append_only(SERVICE, "exception_resolutions"),
    ):
        op.execute(statement)


def downgrade() -> None:
    raise AssertionError("a ledger is not dropped; restore a backup instead")
