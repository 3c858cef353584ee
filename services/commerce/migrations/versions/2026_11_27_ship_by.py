"""What a supplier accepted is to be shipped in time; pre-deploy: older code leaves the new columns at their defaults.

Revision ID: 2026_11_27_ship_by
Revises: 2026_11_27_orders_in_state
"""

from alembic import op

revision = "2026_11_27_ship_by"
down_revision = "2026_11_27_orders_in_state"
branch_labels = None
depends_on = None

STATEMENTS = (
    "SET LOCAL lock_timeout = '5s'",
    "ALTER TABLE suppliers ADD COLUMN ship_within_s bigint NOT NULL DEFAULT 604800",
    """
    ALTER TABLE supplier_orders
        ADD COLUMN ship_within_s bigint NOT NULL DEFAULT 604800,
        ADD COLUMN ship_by timestamptz,
        ADD COLUMN late_told boolean NOT NULL DEFAULT false
    """,
    # ACCEPTED and PARTLY_ACCEPTED: what was accepted already has seven days from when it was asked for
    """
    UPDATE supplier_orders
    SET ship_by = requested_at + interval '7 days'
    WHERE state IN (3, 4)
    """,
    # what becomes an exception by itself
    """
    CREATE INDEX supplier_orders_to_ship ON supplier_orders (tenant_id, ship_by)
    WHERE state IN (3, 4) AND NOT late_told
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise AssertionError("of whom people were told cannot be known without its column; restore a backup instead")
