"""Parcels arrive; pre-deploy: older code leaves the new columns at their defaults.

Revision ID: 2026_11_22_deliveries
Revises: 2026_11_22_shares_of_payments
"""

from alembic import op

from services.runtime import schema

revision = "2026_11_22_deliveries"
down_revision = "2026_11_22_shares_of_payments"
branch_labels = None
depends_on = None

SERVICE = "commerce"

STATEMENTS = (
    "SET LOCAL lock_timeout = '5s'",
    # one row a parcel: whoever tells first, tells when
    """
    CREATE TABLE parcel_deliveries (
        tenant_id uuid NOT NULL,
        supplier_order_id uuid NOT NULL,
        parcel_no bigint NOT NULL,
        delivered_at timestamptz NOT NULL,
        told_by text NOT NULL,
        posted_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT parcel_deliveries_key PRIMARY KEY (tenant_id, supplier_order_id, parcel_no)
    )
    """,
    "ALTER TABLE suppliers ADD COLUMN deliver_within_s bigint NOT NULL DEFAULT 864000",
    "ALTER TABLE supplier_orders ADD COLUMN deliver_within_s bigint NOT NULL DEFAULT 864000",
    "ALTER TABLE supplier_orders ADD COLUMN deliver_by timestamptz",
    # what is on its way already has ten days from its last parcel
    """
    UPDATE supplier_orders AS s
    SET deliver_by = p.shipped_at + interval '10 days'
    FROM (
        SELECT tenant_id, supplier_order_id, max(shipped_at) AS shipped_at FROM parcels GROUP BY 1, 2
    ) AS p
    WHERE s.tenant_id = p.tenant_id AND s.supplier_order_id = p.supplier_order_id
    """,
    # state 7 is SHIPPED: what will count as delivered by itself
    "CREATE INDEX supplier_orders_under_way ON supplier_orders (tenant_id, deliver_by) WHERE state = 7",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
    for statement in (*schema.rls(SERVICE, "parcel_deliveries"), *schema.append_only(SERVICE, "parcel_deliveries")):
        op.execute(statement)


def downgrade() -> None:
    raise AssertionError("a ledger is not dropped; restore a backup instead")
