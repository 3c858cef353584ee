"""Refused units go to the next source; pre-deploy: older code leaves the new columns at their defaults.

Revision ID: 2026_11_22_sources
Revises: 2026_11_22_resolutions
"""

from alembic import op

from services.runtime import schema

revision = "2026_11_22_sources"
down_revision = "2026_11_22_resolutions"
branch_labels = None
depends_on = None

SERVICE = "commerce"

STATEMENTS = (
    "SET LOCAL lock_timeout = '5s'",
    # 1 refunds, 2 re-routes; a brand without a row refunds
    """
    CREATE TABLE supply_policies (
        tenant_id uuid NOT NULL,
        on_unfilled smallint NOT NULL,
        changed_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT supply_policies_key PRIMARY KEY (tenant_id)
    )
    """,
    """
    CREATE TABLE sku_sources (
        tenant_id uuid NOT NULL,
        sku text NOT NULL,
        place smallint NOT NULL,
        supplier_id text NOT NULL,
        cost_minor bigint NOT NULL,
        CONSTRAINT sku_sources_key PRIMARY KEY (tenant_id, sku, place),
        CONSTRAINT sku_sources_cost CHECK (cost_minor >= 0)
    )
    """,
    # a supplier is asked once for a SKU
    "CREATE UNIQUE INDEX sku_sources_once ON sku_sources (tenant_id, sku, supplier_id)",
    "ALTER TABLE supplier_orders ADD COLUMN replaces uuid",
    """
    ALTER TABLE supplier_order_lines
        ADD COLUMN rerouted_quantity bigint NOT NULL DEFAULT 0,
        ADD COLUMN returned_quantity bigint NOT NULL DEFAULT 0,
        ADD COLUMN cost_minor bigint NOT NULL DEFAULT 0,
        DROP CONSTRAINT supplier_order_lines_whole
    """,
    # a shipped unit that was refunded came back; until now every line had one supplier
    """
    UPDATE supplier_order_lines AS n
    SET returned_quantity = l.refunded_quantity - n.refunded_quantity
    FROM supplier_orders AS s
    JOIN order_lines AS l ON l.tenant_id = s.tenant_id AND l.order_id = s.order_id
    WHERE s.tenant_id = n.tenant_id AND s.supplier_order_id = n.supplier_order_id AND l.line_no = n.line_no
      AND l.refunded_quantity > n.refunded_quantity
    """,
    """
    ALTER TABLE supplier_order_lines
        ADD CONSTRAINT supplier_order_lines_whole CHECK (
            refunded_quantity >= 0 AND rerouted_quantity >= 0
            AND shipped_quantity + refunded_quantity + rerouted_quantity <= quantity
        ),
        ADD CONSTRAINT supplier_order_lines_returned CHECK (returned_quantity BETWEEN 0 AND shipped_quantity)
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
    for table in ("supply_policies", "sku_sources"):
        for statement in schema.rls(SERVICE, table):
            op.execute(statement)


def downgrade() -> None:
    raise AssertionError("what was re-routed cannot be told without its columns; restore a backup instead")
