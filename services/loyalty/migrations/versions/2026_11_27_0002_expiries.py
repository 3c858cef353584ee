"""What expired unused is known by lot, so that its sale's refund takes it back at no cost; pre-deploy: a new table.

The functions come with it and take the arguments that they took: the build before goes on with them. Lots that expired
before have no row here, and their refunds take from other points what they took before.

Revision ID: loyalty_0002
Revises: loyalty_parking
"""

from alembic import op

from services.loyalty.migrations import scripts
from services.runtime import schema

revision = "loyalty_0002"
down_revision = "loyalty_parking"
branch_labels = None
depends_on = None

SERVICE = "loyalty"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # An expiry of a pool: of its points up to `end_points`, holes not counted, the last `points` were never spent. One
    # row whatever the number of lots, as a year's may expire at once.
    op.execute(
        """
        CREATE TABLE expiries (
            tenant_id uuid NOT NULL,
            member_id uuid NOT NULL,
            class_no integer NOT NULL,
            end_points bigint NOT NULL,
            points bigint NOT NULL,
            PRIMARY KEY (tenant_id, member_id, class_no, end_points),
            CONSTRAINT expiries_points_positive CHECK (points > 0)
        )
        """
    )
    for statement in (*schema.rls(SERVICE, "expiries"), *schema.append_only(SERVICE, "expiries")):
        op.execute(statement)
    scripts.replace_functions()


def downgrade() -> None:
    raise AssertionError("a ledger is not dropped; restore a backup instead")
