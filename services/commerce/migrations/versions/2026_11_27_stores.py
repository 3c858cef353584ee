"""Stores are known: who sells, prices or stocks in one that is not there is refused; pre-deploy: a new table only.

It starts empty, also where there are stores: the first call that names one asks identity. Until the last `members`
worker of the build before has stopped, a store's change may pass unheard; change the store once more after it.

Revision ID: 2026_11_27_stores
Revises: 2026_11_27_parked_events
"""

from alembic import op

from services.runtime import schema

revision = "2026_11_27_stores"
down_revision = "2026_11_27_parked_events"
branch_labels = None
depends_on = None

SERVICE = "commerce"

STATEMENTS = (
    "SET LOCAL lock_timeout = '5s'",
    """
    CREATE TABLE stores (
        tenant_id uuid NOT NULL,
        store_id text NOT NULL,
        active boolean NOT NULL,
        version bigint NOT NULL,
        changed_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT stores_key PRIMARY KEY (tenant_id, store_id)
    )
    """,
)


def upgrade() -> None:
    for statement in (*STATEMENTS, *schema.rls(SERVICE, "stores")):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE stores")
