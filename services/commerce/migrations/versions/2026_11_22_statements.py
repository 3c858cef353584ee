"""Statements are closed once and paid out; pre-deploy: new tables.

Revision ID: 2026_11_22_statements
Revises: 2026_11_22_sources
"""

from alembic import op

from services.runtime import schema

revision = "2026_11_22_statements"
down_revision = "2026_11_22_sources"
branch_labels = None
depends_on = None

SERVICE = "commerce"

STATEMENTS = (
    "SET LOCAL lock_timeout = '5s'",
    # a party's row is what two who close at once wait for
    """
    CREATE TABLE settlement_accounts (
        tenant_id uuid NOT NULL,
        party_kind smallint NOT NULL,
        party_id text NOT NULL,
        statement_no bigint NOT NULL,
        closed_to_day date,
        carried_minor bigint NOT NULL,
        CONSTRAINT settlement_accounts_key PRIMARY KEY (tenant_id, party_kind, party_id),
        CONSTRAINT settlement_accounts_carried CHECK (carried_minor <= 0)
    ) WITH (fillfactor = 70)
    """,
    # a negative is carried and never paid
    """
    CREATE TABLE statements (
        tenant_id uuid NOT NULL,
        statement_id uuid NOT NULL,
        party_kind smallint NOT NULL,
        party_id text NOT NULL,
        statement_no bigint NOT NULL,
        from_day date,
        to_day date NOT NULL,
        carried_in_minor bigint NOT NULL,
        earned_minor bigint NOT NULL,
        clawed_back_minor bigint NOT NULL,
        payable_minor bigint NOT NULL,
        carried_out_minor bigint NOT NULL,
        line_count bigint NOT NULL,
        currency_code text NOT NULL,
        closed_at timestamptz NOT NULL,
        closed_by text NOT NULL,
        posted_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT statements_key PRIMARY KEY (tenant_id, statement_id),
        CONSTRAINT statements_sum CHECK (
            payable_minor + carried_out_minor = carried_in_minor + earned_minor - clawed_back_minor
        ),
        CONSTRAINT statements_carry CHECK (
            carried_in_minor <= 0 AND carried_out_minor <= 0 AND payable_minor >= 0
            AND (payable_minor = 0 OR carried_out_minor = 0)
        )
    )
    """,
    "CREATE UNIQUE INDEX statements_of_party ON statements (tenant_id, party_kind, party_id, statement_no)",
    # the entry's own key: an entry is on one statement at most
    """
    CREATE TABLE statement_lines (
        tenant_id uuid NOT NULL,
        order_id uuid NOT NULL,
        refund_no integer NOT NULL,
        line_no smallint NOT NULL,
        entry_no smallint NOT NULL,
        statement_id uuid NOT NULL,
        claw_back boolean NOT NULL,
        CONSTRAINT statement_lines_key PRIMARY KEY (tenant_id, order_id, refund_no, line_no, entry_no)
    )
    """,
    """
    CREATE INDEX statement_lines_of
    ON statement_lines (tenant_id, statement_id, order_id, refund_no, line_no, entry_no)
    """,
    # what was told of a payout, in the order of the telling: 3 paid, 4 returned
    """
    CREATE TABLE payouts (
        tenant_id uuid NOT NULL,
        statement_id uuid NOT NULL,
        payout_no integer NOT NULL,
        state smallint NOT NULL,
        reference text NOT NULL,
        told_by text NOT NULL,
        occurred_at timestamptz NOT NULL,
        posted_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT payouts_key PRIMARY KEY (tenant_id, statement_id, payout_no),
        CONSTRAINT payouts_state CHECK (state IN (3, 4))
    )
    """,
)
LEDGERS = ("statements", "statement_lines", "payouts")


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
    for table in ("settlement_accounts", *LEDGERS):
        for statement in schema.rls(SERVICE, table):
            op.execute(statement)
    for table in LEDGERS:
        for statement in schema.append_only(SERVICE, table):
            op.execute(statement)


def downgrade() -> None:
    raise AssertionError("a ledger is not dropped; restore a backup instead")
