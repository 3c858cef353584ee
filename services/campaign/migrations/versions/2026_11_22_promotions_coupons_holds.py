"""Promotions, member prices, coupons, holds of both, usage facts and aliases, beside the runtime's own tables.

Runs before the deployment (pre). Revision ID: campaign_0001
"""

from alembic import op

from services.runtime import schema

revision = "campaign_0001"
down_revision = None
branch_labels = None
depends_on = None

SERVICE = "campaign"

PROMOTIONS = (
    # rises with every change of a promotion: processes keep definitions as long as it stands still
    """
    CREATE TABLE campaign.catalogues (
        tenant_id uuid NOT NULL,
        version bigint NOT NULL,
        CONSTRAINT catalogues_key PRIMARY KEY (tenant_id)
    ) WITH (fillfactor = 50)
    """,
    # the head of a promotion and its budget's counters; only unindexed columns change
    """
    CREATE TABLE campaign.promotions (
        tenant_id uuid NOT NULL,
        promotion_id text NOT NULL,
        version bigint NOT NULL,
        budget_minor bigint NOT NULL,
        held_minor bigint NOT NULL DEFAULT 0,
        captured_minor bigint NOT NULL DEFAULT 0,
        uncovered_minor bigint NOT NULL DEFAULT 0,
        given_minor bigint NOT NULL DEFAULT 0,
        refunded_minor bigint NOT NULL DEFAULT 0,
        CONSTRAINT promotions_key PRIMARY KEY (tenant_id, promotion_id),
        CONSTRAINT promotions_budget CHECK (budget_minor >= 0),
        CONSTRAINT promotions_held CHECK (held_minor >= 0),
        CONSTRAINT promotions_counted CHECK (
            captured_minor >= 0 AND uncovered_minor >= 0 AND given_minor >= 0 AND refunded_minor >= 0)
    ) WITH (fillfactor = 50)
    """,
    # a version never changes; an order keeps what it was given by the version of its day
    """
    CREATE TABLE campaign.promotion_versions (
        tenant_id uuid NOT NULL,
        promotion_id text NOT NULL,
        version bigint NOT NULL,
        display_name text NOT NULL,
        kind text NOT NULL,
        valid_from timestamptz NOT NULL,
        valid_until timestamptz,
        priority integer NOT NULL,
        exclusivity_group text NOT NULL,
        percent numeric(7, 4) NOT NULL,
        amount_minor bigint NOT NULL,
        threshold_minor bigint NOT NULL,
        skus text[] NOT NULL,
        categories text[] NOT NULL,
        store_ids text[] NOT NULL,
        members_only boolean NOT NULL,
        funder text NOT NULL,
        budget_minor bigint NOT NULL,
        posted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT promotion_versions_key PRIMARY KEY (tenant_id, promotion_id, version),
        CONSTRAINT promotion_versions_window CHECK (valid_until IS NULL OR valid_until > valid_from)
    )
    """,
    # by SKU first: a quote asks for its basket's SKUs over all promotions
    """
    CREATE TABLE campaign.member_prices (
        tenant_id uuid NOT NULL,
        sku text NOT NULL,
        promotion_id text NOT NULL,
        amount_off_minor bigint NOT NULL,
        CONSTRAINT member_prices_key PRIMARY KEY (tenant_id, sku, promotion_id),
        CONSTRAINT member_prices_off CHECK (amount_off_minor >= 0)
    )
    """,
)

COUPONS = (
    # the head of a template; its row is the lock under which limits are counted
    """
    CREATE TABLE campaign.templates (
        tenant_id uuid NOT NULL,
        template_id text NOT NULL,
        version bigint NOT NULL,
        issued bigint NOT NULL DEFAULT 0,
        CONSTRAINT templates_key PRIMARY KEY (tenant_id, template_id),
        CONSTRAINT templates_issued CHECK (issued >= 0)
    ) WITH (fillfactor = 50)
    """,
    """
    CREATE TABLE campaign.template_versions (
        tenant_id uuid NOT NULL,
        template_id text NOT NULL,
        version bigint NOT NULL,
        display_name text NOT NULL,
        discount text NOT NULL,
        amount_minor bigint NOT NULL,
        percent numeric(7, 4) NOT NULL,
        cap_minor bigint NOT NULL,
        threshold_minor bigint NOT NULL,
        skus text[] NOT NULL,
        categories text[] NOT NULL,
        valid_from timestamptz NOT NULL,
        valid_until timestamptz NOT NULL,
        issue_limit bigint NOT NULL,
        member_limit integer NOT NULL,
        exclusive boolean NOT NULL,
        returnable boolean NOT NULL,
        funder text NOT NULL,
        priority integer NOT NULL,
        posted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT template_versions_key PRIMARY KEY (tenant_id, template_id, version),
        CONSTRAINT template_versions_window CHECK (valid_until > valid_from)
    )
    """,
    # holder_* and held_until name the hold while HELD; order_id is the order that used it
    """
    CREATE TABLE campaign.coupons (
        tenant_id uuid NOT NULL,
        coupon_id uuid NOT NULL,
        template_id text NOT NULL,
        template_version bigint NOT NULL,
        member_id uuid,
        code_lookup bytea NOT NULL,
        code_end text,
        state text NOT NULL DEFAULT 'issued',
        valid_from timestamptz NOT NULL,
        valid_until timestamptz NOT NULL,
        holder_client text,
        holder_hold text,
        held_until timestamptz,
        order_id text,
        version bigint NOT NULL DEFAULT 1,
        issued_at timestamptz NOT NULL,
        CONSTRAINT coupons_key PRIMARY KEY (tenant_id, coupon_id),
        CONSTRAINT coupons_code UNIQUE (tenant_id, code_lookup),
        CONSTRAINT coupons_state CHECK (state IN ('issued', 'held', 'used')),
        CONSTRAINT coupons_holder CHECK (
            (state = 'held') = (holder_client IS NOT NULL AND holder_hold IS NOT NULL AND held_until IS NOT NULL)),
        CONSTRAINT coupons_order CHECK ((state = 'used') = (order_id IS NOT NULL))
    ) WITH (fillfactor = 80)
    """,
    # a member's coupons in the order in which they are listed; a merge moves them by it
    "CREATE INDEX coupons_by_member ON campaign.coupons (tenant_id, member_id, valid_until, coupon_id)",
    # limits per member, and a template's counts
    "CREATE INDEX coupons_by_template ON campaign.coupons (tenant_id, template_id, member_id)",
)

HOLDS = (
    # held, then captured, voided or expired; a tombstone is a void that came first. expires_at is machine time
    """
    CREATE TABLE campaign.benefit_holds (
        tenant_id uuid NOT NULL,
        client_id text NOT NULL,
        hold_id text NOT NULL,
        state text NOT NULL,
        member_id uuid,
        order_id text NOT NULL,
        expires_at timestamptz NOT NULL,
        posted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        resolved_at timestamptz,
        CONSTRAINT benefit_holds_key PRIMARY KEY (tenant_id, client_id, hold_id),
        CONSTRAINT benefit_holds_state CHECK (state IN ('held', 'captured', 'voided', 'expired', 'tombstone')),
        CONSTRAINT benefit_holds_resolved CHECK ((state = 'held') = (resolved_at IS NULL))
    ) WITH (fillfactor = 70)
    """,
    # what the sweeper has to do: holds whose time is over, tombstones that may be forgotten
    "CREATE INDEX benefit_holds_due ON campaign.benefit_holds (expires_at) WHERE state IN ('held', 'tombstone')",
    "CREATE INDEX benefit_holds_by_order ON campaign.benefit_holds (tenant_id, order_id)",
    """
    CREATE TABLE campaign.coupon_claims (
        tenant_id uuid NOT NULL,
        client_id text NOT NULL,
        hold_id text NOT NULL,
        coupon_id uuid NOT NULL,
        amount_minor bigint NOT NULL,
        CONSTRAINT coupon_claims_key PRIMARY KEY (tenant_id, client_id, hold_id, coupon_id),
        CONSTRAINT coupon_claims_amount CHECK (amount_minor >= 0)
    )
    """,
    """
    CREATE TABLE campaign.budget_claims (
        tenant_id uuid NOT NULL,
        client_id text NOT NULL,
        hold_id text NOT NULL,
        promotion_id text NOT NULL,
        amount_minor bigint NOT NULL,
        CONSTRAINT budget_claims_key PRIMARY KEY (tenant_id, client_id, hold_id, promotion_id),
        CONSTRAINT budget_claims_amount CHECK (amount_minor >= 0)
    )
    """,
)

USAGE = (
    # paid orders as commerce told them: facts, never refused. refunded_at: since when nothing is left of it
    """
    CREATE TABLE campaign.order_usages (
        tenant_id uuid NOT NULL,
        order_id text NOT NULL,
        member_id uuid,
        store_id text NOT NULL,
        offline boolean NOT NULL,
        occurred_at timestamptz NOT NULL,
        refunded_at timestamptz,
        posted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT order_usages_key PRIMARY KEY (tenant_id, order_id)
    ) WITH (fillfactor = 90)
    """,
    # what each promotion and coupon gave to an order; `uncovered` is what no hold had claimed
    """
    CREATE TABLE campaign.discount_usages (
        tenant_id uuid NOT NULL,
        order_id text NOT NULL,
        source text NOT NULL,
        source_id text NOT NULL,
        template_id text NOT NULL,
        given_minor bigint NOT NULL,
        uncovered_minor bigint NOT NULL,
        refunded_minor bigint NOT NULL DEFAULT 0,
        excess boolean NOT NULL DEFAULT false,
        CONSTRAINT discount_usages_key PRIMARY KEY (tenant_id, order_id, source, source_id),
        CONSTRAINT discount_usages_source CHECK (source IN ('promotion', 'coupon')),
        CONSTRAINT discount_usages_amounts CHECK (given_minor >= 0 AND uncovered_minor >= 0 AND refunded_minor >= 0)
    ) WITH (fillfactor = 90)
    """,
    """
    CREATE TABLE campaign.refund_usages (
        tenant_id uuid NOT NULL,
        refund_id text NOT NULL,
        order_id text NOT NULL,
        refunded_minor bigint NOT NULL,
        whole_order boolean NOT NULL,
        occurred_at timestamptz NOT NULL,
        posted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT refund_usages_key PRIMARY KEY (tenant_id, refund_id)
    )
    """,
    # merged members keep coming under their old ids; never a chain, the survivor is always the last one
    """
    CREATE TABLE campaign.member_aliases (
        tenant_id uuid NOT NULL,
        alias_id uuid NOT NULL,
        member_id uuid NOT NULL,
        CONSTRAINT member_aliases_key PRIMARY KEY (tenant_id, alias_id)
    )
    """,
    "CREATE INDEX member_aliases_by_member ON campaign.member_aliases (tenant_id, member_id)",
)

TABLES = (
    "catalogues",
    "promotions",
    "promotion_versions",
    "member_prices",
    "templates",
    "template_versions",
    "coupons",
    "benefit_holds",
    "coupon_claims",
    "budget_claims",
    "order_usages",
    "discount_usages",
    "refund_usages",
    "member_aliases",
)

# everything that prices a basket and changes between two baskets, in one round trip; it sets the tenant itself, so that
# row-level security holds although there is no transaction around it
QUOTE_LOOKUP = """
    CREATE FUNCTION campaign.quote_lookup(p_tenant uuid, p_skus text[], p_codes bytea[], p_members uuid[])
    RETURNS TABLE (
        what text, name text, promotion_id text, amount bigint, version bigint, state text, member_id uuid,
        code bytea, starts_at timestamptz, ends_at timestamptz, held_until timestamptz
    )
    LANGUAGE plpgsql
    SET plan_cache_mode = force_generic_plan
    AS $$
    #variable_conflict use_column
    BEGIN
        PERFORM set_config('siyu.tenant', p_tenant::text, true);
        RETURN QUERY
        -- the version of the promotions: the caller reloads them if its own is older
        SELECT 'catalogue', NULL::text, NULL::text, NULL::bigint, c.version, NULL::text, NULL::uuid,
               NULL::bytea, NULL::timestamptz, NULL::timestamptz, NULL::timestamptz
        FROM catalogues c
        WHERE c.tenant_id = p_tenant
        UNION ALL
        SELECT 'price', m.sku, m.promotion_id, m.amount_off_minor, NULL, NULL, NULL, NULL, NULL, NULL, NULL
        FROM member_prices m
        WHERE m.tenant_id = p_tenant AND m.sku = ANY (p_skus)
        UNION ALL
        -- what budgets have left; promotions without one are left out
        SELECT 'budget', NULL, p.promotion_id,
               p.budget_minor - p.held_minor - p.captured_minor - p.uncovered_minor + p.refunded_minor,
               NULL, NULL, NULL, NULL, NULL, NULL, NULL
        FROM promotions p
        WHERE p.tenant_id = p_tenant AND p.budget_minor > 0
        UNION ALL
        SELECT 'coupon', c.coupon_id::text, c.template_id, NULL, c.template_version, c.state, c.member_id,
               c.code_lookup, c.valid_from, c.valid_until, c.held_until
        FROM coupons c
        WHERE c.tenant_id = p_tenant AND c.code_lookup = ANY (p_codes)
        UNION ALL
        SELECT 'alias', a.alias_id::text, NULL, NULL, NULL, NULL, a.member_id, NULL, NULL, NULL, NULL
        FROM member_aliases a
        WHERE a.tenant_id = p_tenant AND a.alias_id = ANY (p_members);
    END
    $$
"""


def upgrade() -> None:
    statements = [*schema.version_1(SERVICE), *PROMOTIONS, *COUPONS, *HOLDS, *USAGE]
    statements += [statement for table in TABLES for statement in schema.rls(SERVICE, table)]
    for table in ("promotion_versions", "template_versions", "refund_usages"):
        statements += schema.append_only(SERVICE, table)
    statements.append(QUOTE_LOOKUP)
    for statement in statements:
        op.execute(statement)
