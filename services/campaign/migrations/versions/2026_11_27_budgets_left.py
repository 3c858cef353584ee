"""What a budget has left is told however far its counters are; pre-deploy: the function answers as it did.

Revision ID: campaign_budgets_left
Revises: campaign_parked_by_queue
"""

from alembic import op

revision = "campaign_budgets_left"
down_revision = "campaign_parked_by_queue"
branch_labels = None
depends_on = None

# counters end at 9e18 each: their sum is taken of numerics, and ends there as well
QUOTE_LOOKUP = """
    CREATE OR REPLACE FUNCTION campaign.quote_lookup(p_tenant uuid, p_skus text[], p_codes bytea[], p_members uuid[])
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
               greatest(p.budget_minor::numeric - p.held_minor - p.captured_minor - p.uncovered_minor
                        + p.refunded_minor, -9e18)::bigint,
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
    op.execute(QUOTE_LOOKUP)


def downgrade() -> None:
    """The older function answers the same, but for counters that no brand reaches."""
