"""An account keeps the end of the pool that was earned in last, so that a grant need not write the pool's row as well.

Runs before the deployment (pre): the functions begin and fold tails, whichever build calls them. Only the audit of the
build before reads pools by itself, and is red until its last process has stopped.

Revision ID: loyalty_tails
Revises: loyalty_0002
"""

from alembic import op

from services.loyalty.migrations import scripts

revision = "loyalty_tails"
down_revision = "loyalty_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(
        "ALTER TABLE accounts ADD COLUMN tail_class integer, ADD COLUMN tail_end bigint,"
        " ADD COLUMN tail_expires_at timestamptz"
    )
    # it takes the tail as well now
    op.execute("DROP FUNCTION IF EXISTS next_expiry(uuid, uuid, text)")
    scripts.replace_functions()
    op.execute(
        "CREATE VIEW whole_pools WITH (security_invoker = true) AS"
        " SELECT p.tenant_id, p.member_id, p.class_no, p.owner_id, p.point_currency, p.hole_points, p.consumed_points,"
        " p.next_expires_at, greatest(p.earned_points, a.tail_end) AS earned_points,"
        " greatest(p.last_expires_at, a.tail_expires_at) AS last_expires_at"
        " FROM pools AS p LEFT JOIN accounts AS a ON a.tenant_id = p.tenant_id AND a.member_id = p.member_id"
        " AND a.point_currency = p.point_currency AND a.tail_class = p.class_no"
    )
