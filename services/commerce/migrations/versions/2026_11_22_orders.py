"""Catalogue, stock, orders, suppliers and settlement; pre-deploy, the first.

Revision ID: 2026_11_22_orders
Revises:
"""

from alembic import op

from services.runtime import schema

revision = "2026_11_22_orders"
down_revision = None
branch_labels = None
depends_on = None

SERVICE = "commerce"

LEDGERS = (
    "order_discounts", "refunds", "refund_lines", "stock_documents", "stock_lines", "split_rules",
    "settlement_entries", "parcels", "sale_exceptions",
)  # fmt: skip
STATES = (
    "member_aliases", "products", "prices", "stock", "stock_holds", "suppliers", "orders", "order_lines",
    "order_payments", "order_steps", "supplier_orders", "supplier_order_lines",
)  # fmt: skip

STATEMENTS = (
    # a merged member's orders stay under the id they came with, and are listed with the survivor's
    """
    CREATE TABLE member_aliases (
        tenant_id uuid NOT NULL,
        member_id uuid NOT NULL,
        survivor_id uuid NOT NULL,
        CONSTRAINT member_aliases_key PRIMARY KEY (tenant_id, member_id),
        CONSTRAINT member_aliases_no_loop CHECK (member_id <> survivor_id)
    )
    """,
    "CREATE INDEX member_aliases_of ON member_aliases (tenant_id, survivor_id)",
    """
    CREATE TABLE products (
        tenant_id uuid NOT NULL,
        sku text NOT NULL,
        display_name text NOT NULL,
        category text NOT NULL,
        base_unit smallint NOT NULL,
        price_quantity bigint NOT NULL,
        supplier_id text NOT NULL,
        cost_minor bigint NOT NULL,
        untracked boolean NOT NULL,
        changed_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT products_key PRIMARY KEY (tenant_id, sku),
        CONSTRAINT products_price_quantity CHECK (price_quantity >= 1)
    )
    """,
    # an empty store or channel is every one; the most particular price wins
    """
    CREATE TABLE prices (
        tenant_id uuid NOT NULL,
        sku text NOT NULL,
        store_id text NOT NULL,
        channel text NOT NULL,
        price_minor bigint NOT NULL,
        changed_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT prices_key PRIMARY KEY (tenant_id, sku, store_id, channel),
        CONSTRAINT prices_not_negative CHECK (price_minor >= 0)
    )
    """,
    # version counts the posted lines; shortfall is how far promises and off-line sales exceed the goods
    """
    CREATE TABLE stock (
        tenant_id uuid NOT NULL,
        store_id text NOT NULL,
        sku text NOT NULL,
        on_hand bigint NOT NULL,
        reserved bigint NOT NULL DEFAULT 0,
        shortfall bigint NOT NULL DEFAULT 0,
        version bigint NOT NULL DEFAULT 0,
        CONSTRAINT stock_key PRIMARY KEY (tenant_id, store_id, sku),
        CONSTRAINT stock_reserved_not_negative CHECK (reserved >= 0),
        CONSTRAINT stock_shortfall_not_negative CHECK (shortfall >= 0),
        CONSTRAINT stock_not_oversold CHECK (reserved <= on_hand + shortfall)
    ) WITH (fillfactor = 70)
    """,
    """
    CREATE TABLE stock_documents (
        tenant_id uuid NOT NULL,
        document_id uuid NOT NULL,
        kind smallint NOT NULL,
        store_id text NOT NULL,
        order_id uuid,
        refund_id uuid,
        reason text NOT NULL,
        occurred_at timestamptz NOT NULL,
        posted_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT stock_documents_key PRIMARY KEY (tenant_id, document_id)
    )
    """,
    # the key is the history of one SKU in one location: "why is it 47?"
    """
    CREATE TABLE stock_lines (
        tenant_id uuid NOT NULL,
        store_id text NOT NULL,
        sku text NOT NULL,
        version bigint NOT NULL,
        document_id uuid NOT NULL,
        change bigint NOT NULL,
        on_hand_after bigint NOT NULL,
        CONSTRAINT stock_lines_key PRIMARY KEY (tenant_id, store_id, sku, version)
    )
    """,
    # one order's reservation; states are those of services.runtime.holds
    """
    CREATE TABLE stock_holds (
        tenant_id uuid NOT NULL,
        order_id uuid NOT NULL,
        store_id text NOT NULL,
        state text NOT NULL,
        skus text[] NOT NULL,
        quantities bigint[] NOT NULL,
        expires_at timestamptz NOT NULL,
        resolved_at timestamptz,
        CONSTRAINT stock_holds_key PRIMARY KEY (tenant_id, order_id),
        CONSTRAINT stock_holds_state CHECK (state IN ('held', 'captured', 'voided', 'expired')),
        CONSTRAINT stock_holds_resolved CHECK ((state = 'held') = (resolved_at IS NULL))
    )
    """,
    "CREATE INDEX stock_holds_open ON stock_holds (tenant_id, expires_at) WHERE state = 'held'",
    """
    CREATE TABLE suppliers (
        tenant_id uuid NOT NULL,
        supplier_id text NOT NULL,
        display_name text NOT NULL,
        accept_within_s bigint NOT NULL,
        changed_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT suppliers_key PRIMARY KEY (tenant_id, supplier_id)
    )
    """,
    # shares: [[party, "percent"], ...]; versions are never changed, only followed
    """
    CREATE TABLE split_rules (
        tenant_id uuid NOT NULL,
        supplier_id text NOT NULL,
        version bigint NOT NULL,
        shares jsonb NOT NULL,
        published_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT split_rules_key PRIMARY KEY (tenant_id, supplier_id, version)
    )
    """,
    # event_xid: the transaction that wrote the order's last event, so that a wait knows when the relay has passed it
    """
    CREATE TABLE orders (
        tenant_id uuid NOT NULL,
        order_id uuid NOT NULL,
        client_id text NOT NULL,
        fingerprint bytea NOT NULL,
        goods bytea NOT NULL,
        state smallint NOT NULL,
        version bigint NOT NULL,
        store_id text NOT NULL,
        channel text NOT NULL,
        member_id uuid,
        guide_id text NOT NULL,
        currency_code text NOT NULL,
        point_currency text NOT NULL,
        shelf_minor bigint NOT NULL,
        discount_minor bigint NOT NULL,
        net_minor bigint NOT NULL,
        points_tender_minor bigint NOT NULL,
        burnt_points bigint NOT NULL,
        offline_burnt_points bigint NOT NULL,
        quoted_points bigint NOT NULL,
        points_hold_id text NOT NULL,
        benefits_hold_id text NOT NULL,
        refunded_minor bigint NOT NULL DEFAULT 0,
        refund_count integer NOT NULL DEFAULT 0,
        till_id text NOT NULL,
        sale_number text NOT NULL,
        offline boolean NOT NULL,
        occurred_at timestamptz NOT NULL,
        placed_at timestamptz NOT NULL DEFAULT now(),
        paid_at timestamptz,
        expires_at timestamptz,
        closes_at timestamptz,
        event_xid xid8,
        candidates jsonb,
        refusal jsonb,
        CONSTRAINT orders_key PRIMARY KEY (tenant_id, order_id),
        CONSTRAINT orders_total CHECK (net_minor = shelf_minor - discount_minor AND net_minor >= 0),
        CONSTRAINT orders_points_within_total CHECK (points_tender_minor BETWEEN 0 AND net_minor),
        CONSTRAINT orders_refunded_within_total CHECK (refunded_minor BETWEEN 0 AND net_minor),
        CONSTRAINT orders_pending_expires CHECK ((state = 1) = (expires_at IS NOT NULL)),
        CONSTRAINT orders_paid_at CHECK ((state IN (2, 3, 4, 5)) = (paid_at IS NOT NULL))
    ) WITH (fillfactor = 85)
    """,
    # a till's sale number is used once; an attempt that was cancelled gives it back
    """
    CREATE UNIQUE INDEX orders_till_sale ON orders (tenant_id, store_id, till_id, sale_number)
    WHERE till_id <> '' AND state <> 6
    """,
    "CREATE INDEX orders_of_store ON orders (tenant_id, store_id, occurred_at, order_id)",
    "CREATE INDEX orders_of_member ON orders (tenant_id, member_id, occurred_at, order_id) WHERE member_id IS NOT NULL",
    "CREATE INDEX orders_waiting ON orders (expires_at) WHERE state = 1",
    "CREATE INDEX orders_to_close ON orders (tenant_id, closes_at) WHERE state IN (2, 4)",
    """
    CREATE TABLE order_discounts (
        tenant_id uuid NOT NULL,
        order_id uuid NOT NULL,
        discount_no smallint NOT NULL,
        source smallint NOT NULL,
        source_id text NOT NULL,
        coupon_id uuid,
        funder text NOT NULL,
        CONSTRAINT order_discounts_key PRIMARY KEY (tenant_id, order_id, discount_no)
    )
    """,
    # discounts_minor follows order_discounts, tenders_minor order_payments: every share frozen
    """
    CREATE TABLE order_lines (
        tenant_id uuid NOT NULL,
        order_id uuid NOT NULL,
        line_no smallint NOT NULL,
        line_id text NOT NULL,
        sku text NOT NULL,
        category text NOT NULL,
        quantity bigint NOT NULL,
        price_source smallint NOT NULL,
        shelf_minor bigint NOT NULL,
        discounts_minor bigint[] NOT NULL,
        net_minor bigint NOT NULL,
        points_tender_minor bigint NOT NULL,
        burnt_points bigint NOT NULL,
        tenders_minor bigint[] NOT NULL,
        supplier_id text NOT NULL,
        rule_version bigint NOT NULL,
        from_stock boolean NOT NULL,
        refunded_quantity bigint NOT NULL DEFAULT 0,
        refunded_minor bigint NOT NULL DEFAULT 0,
        CONSTRAINT order_lines_key PRIMARY KEY (tenant_id, order_id, line_no),
        CONSTRAINT order_lines_net CHECK (net_minor BETWEEN 0 AND shelf_minor),
        CONSTRAINT order_lines_points_within_net CHECK (points_tender_minor BETWEEN 0 AND net_minor),
        CONSTRAINT order_lines_refunded_within_sold CHECK (refunded_quantity BETWEEN 0 AND quantity),
        CONSTRAINT order_lines_refunded_within_net CHECK (refunded_minor BETWEEN 0 AND net_minor)
    ) WITH (fillfactor = 85)
    """,
    """
    CREATE TABLE order_payments (
        tenant_id uuid NOT NULL,
        order_id uuid NOT NULL,
        payment_no smallint NOT NULL,
        tender smallint NOT NULL,
        amount_minor bigint NOT NULL,
        reference text NOT NULL,
        refunded_minor bigint NOT NULL DEFAULT 0,
        CONSTRAINT order_payments_key PRIMARY KEY (tenant_id, order_id, payment_no),
        CONSTRAINT order_payments_positive CHECK (amount_minor > 0),
        CONSTRAINT order_payments_refunded_within_paid CHECK (refunded_minor BETWEEN 0 AND amount_minor)
    ) WITH (fillfactor = 85)
    """,
    # the saga: one row a participant
    """
    CREATE TABLE order_steps (
        tenant_id uuid NOT NULL,
        order_id uuid NOT NULL,
        kind smallint NOT NULL,
        state smallint NOT NULL,
        member_id uuid,
        point_currency text NOT NULL,
        points bigint NOT NULL,
        coupons jsonb NOT NULL,
        budgets jsonb NOT NULL,
        ttl_s integer NOT NULL,
        attempts integer NOT NULL DEFAULT 0,
        due_at timestamptz NOT NULL DEFAULT now(),
        last_error text,
        CONSTRAINT order_steps_key PRIMARY KEY (tenant_id, order_id, kind)
    ) WITH (fillfactor = 70)
    """,
    # what the worker resumes: captures and voids that are due
    "CREATE INDEX order_steps_due ON order_steps (due_at) WHERE state IN (3, 4)",
    """
    CREATE TABLE refunds (
        tenant_id uuid NOT NULL,
        order_id uuid NOT NULL,
        refund_no integer NOT NULL,
        refund_id uuid NOT NULL,
        amount_minor bigint NOT NULL,
        tenders_minor bigint[] NOT NULL,
        returned_points bigint NOT NULL,
        whole_order boolean NOT NULL,
        reason text NOT NULL,
        occurred_at timestamptz NOT NULL,
        posted_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT refunds_key PRIMARY KEY (tenant_id, order_id, refund_no)
    )
    """,
    """
    CREATE TABLE refund_lines (
        tenant_id uuid NOT NULL,
        order_id uuid NOT NULL,
        refund_no integer NOT NULL,
        line_no smallint NOT NULL,
        quantity bigint NOT NULL,
        refunded_before bigint NOT NULL,
        amount_minor bigint NOT NULL,
        points_tender_minor bigint NOT NULL,
        returned_points bigint NOT NULL,
        discounts_minor bigint[] NOT NULL,
        tenders_minor bigint[] NOT NULL,
        restock boolean NOT NULL,
        CONSTRAINT refund_lines_key PRIMARY KEY (tenant_id, order_id, refund_no, line_no),
        CONSTRAINT refund_lines_quantity CHECK (quantity > 0)
    )
    """,
    # double entry: the parties' shares and the customer's payment (party_kind 0) of a line and refund sum to zero
    """
    CREATE TABLE settlement_entries (
        tenant_id uuid NOT NULL,
        order_id uuid NOT NULL,
        refund_no integer NOT NULL,
        line_no smallint NOT NULL,
        entry_no smallint NOT NULL,
        line_id text NOT NULL,
        refund_id uuid,
        party_kind smallint NOT NULL,
        party_id text NOT NULL,
        amount_minor bigint NOT NULL,
        rule_version bigint NOT NULL,
        occurred_at timestamptz NOT NULL,
        posted_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT settlement_entries_key PRIMARY KEY (tenant_id, order_id, refund_no, line_no, entry_no)
    )
    """,
    """
    CREATE INDEX settlement_entries_of_party
    ON settlement_entries (tenant_id, party_kind, party_id, occurred_at, order_id, refund_no, line_no, entry_no)
    WHERE party_kind <> 0
    """,
    """
    CREATE TABLE supplier_orders (
        tenant_id uuid NOT NULL,
        supplier_order_id uuid NOT NULL,
        order_id uuid NOT NULL,
        supplier_id text NOT NULL,
        state smallint NOT NULL,
        version bigint NOT NULL,
        requested_at timestamptz,
        accept_by timestamptz,
        reason text NOT NULL DEFAULT '',
        posted_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT supplier_orders_key PRIMARY KEY (tenant_id, supplier_order_id)
    ) WITH (fillfactor = 85)
    """,
    "CREATE INDEX supplier_orders_of_order ON supplier_orders (tenant_id, order_id)",
    "CREATE INDEX supplier_orders_of_supplier ON supplier_orders (tenant_id, supplier_id, supplier_order_id)",
    # state 2 is REQUESTED: what may time out
    "CREATE INDEX supplier_orders_due ON supplier_orders (tenant_id, accept_by) WHERE state = 2",
    """
    CREATE TABLE supplier_order_lines (
        tenant_id uuid NOT NULL,
        supplier_order_id uuid NOT NULL,
        line_no smallint NOT NULL,
        line_id text NOT NULL,
        sku text NOT NULL,
        quantity bigint NOT NULL,
        accepted_quantity bigint NOT NULL DEFAULT 0,
        shipped_quantity bigint NOT NULL DEFAULT 0,
        refunded_quantity bigint NOT NULL DEFAULT 0,
        CONSTRAINT supplier_order_lines_key PRIMARY KEY (tenant_id, supplier_order_id, line_no),
        CONSTRAINT supplier_order_lines_accepted CHECK (accepted_quantity BETWEEN 0 AND quantity),
        CONSTRAINT supplier_order_lines_shipped CHECK (shipped_quantity BETWEEN 0 AND accepted_quantity),
        CONSTRAINT supplier_order_lines_whole CHECK (
            refunded_quantity >= 0 AND shipped_quantity + refunded_quantity <= quantity
        )
    ) WITH (fillfactor = 85)
    """,
    """
    CREATE TABLE parcels (
        tenant_id uuid NOT NULL,
        supplier_order_id uuid NOT NULL,
        parcel_no bigint NOT NULL,
        carrier text NOT NULL,
        tracking_number text NOT NULL,
        line_nos smallint[] NOT NULL,
        quantities bigint[] NOT NULL,
        shipped_at timestamptz NOT NULL,
        CONSTRAINT parcels_key PRIMARY KEY (tenant_id, supplier_order_id, parcel_no)
    )
    """,
    # ids are UUIDv7, so that they sort by time
    """
    CREATE TABLE sale_exceptions (
        tenant_id uuid NOT NULL,
        exception_id uuid NOT NULL,
        store_id text NOT NULL,
        order_id uuid NOT NULL,
        line_id text NOT NULL,
        reason text NOT NULL,
        difference bigint NOT NULL,
        detail text NOT NULL,
        posted_at timestamptz NOT NULL,
        CONSTRAINT sale_exceptions_key PRIMARY KEY (tenant_id, exception_id)
    )
    """,
    "CREATE INDEX sale_exceptions_of_store ON sale_exceptions (tenant_id, store_id, exception_id)",
    "CREATE INDEX sale_exceptions_of_order ON sale_exceptions (tenant_id, order_id)",
)


def upgrade() -> None:
    for statement in schema.version_1(SERVICE):
        op.execute(statement)
    for statement in STATEMENTS:
        op.execute(statement)
    for table in (*STATES, *LEDGERS):
        for statement in schema.rls(SERVICE, table):
            op.execute(statement)
    for table in LEDGERS:
        for statement in schema.append_only(SERVICE, table):
            op.execute(statement)


def downgrade() -> None:
    raise AssertionError("the first migration of a ledger is not undone; restore a backup instead")
