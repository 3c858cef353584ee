"""Tenants, stores, clients, signing keys, members, identifiers and merges, beside the runtime's own tables.

Runs before the deployment (pre). Revision ID: identity_0001
"""

from alembic import op

from services.runtime import schema

revision = "identity_0001"
down_revision = None
branch_labels = None
depends_on = None

SERVICE = "identity"
APP, SYSTEM = "siyu_identity", "siyu_identity_system"

TENANTS = (
    # here the runtime's projection of tenants is the truth itself, with what only identity knows
    """
    ALTER TABLE identity.tenants
        ADD COLUMN code text NOT NULL,
        ADD COLUMN display_name text NOT NULL,
        ADD COLUMN region_code text NOT NULL,
        ADD COLUMN created_at timestamptz NOT NULL,
        ADD CONSTRAINT tenants_code UNIQUE (code)
    """,
)

STORES = (
    """
    CREATE TABLE identity.stores (
        tenant_id uuid NOT NULL,
        store_id text NOT NULL,
        display_name text NOT NULL,
        time_zone text NOT NULL,
        active boolean NOT NULL,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT stores_key PRIMARY KEY (tenant_id, store_id)
    )
    """,
    *schema.rls(SERVICE, "stores"),
)

CLIENTS = (
    """
    CREATE TABLE identity.clients (
        tenant_id uuid NOT NULL,
        client_id uuid NOT NULL,
        display_name text NOT NULL,
        kind text NOT NULL,
        scopes text[] NOT NULL,
        store_id text,
        supplier_id text,
        verifier bytea NOT NULL,
        created_at timestamptz NOT NULL,
        revoked_at timestamptz,
        CONSTRAINT clients_key PRIMARY KEY (tenant_id, client_id),
        CONSTRAINT clients_id UNIQUE (client_id),
        CONSTRAINT clients_store FOREIGN KEY (tenant_id, store_id) REFERENCES identity.stores (tenant_id, store_id),
        CONSTRAINT clients_kind CHECK (kind IN ('pos', 'backend', 'supplier', 'partner', 'staff')),
        CONSTRAINT clients_pos_has_store CHECK (kind <> 'pos' OR store_id IS NOT NULL),
        CONSTRAINT clients_supplier CHECK ((kind = 'supplier') = (supplier_id IS NOT NULL))
    )
    """,
    *schema.rls(SERVICE, "clients"),
    # Who asks for a token says which client it is, and only the client's row says of which tenant: row-level security
    # would hide that row from a call that has no tenant yet. This function is the one way around: it runs as the
    # owner, takes one id, answers one row that is in force, and has no way to list anything.
    """
    CREATE FUNCTION identity.client_for_token(wanted uuid)
    RETURNS TABLE (
        tenant_id uuid, kind text, scopes text[], store_id text, supplier_id text, verifier bytea,
        time_zone text, currency_code text, has_test_clock boolean
    )
    LANGUAGE sql STABLE SECURITY DEFINER ROWS 1
    SET search_path = identity, pg_temp
    AS $$
        SELECT c.tenant_id, c.kind, c.scopes, c.store_id, c.supplier_id, c.verifier,
               t.time_zone, t.currency_code, t.test_clock_at IS NOT NULL
        FROM identity.clients AS c
        JOIN identity.tenants AS t ON t.tenant_id = c.tenant_id
        WHERE c.client_id = wanted AND c.revoked_at IS NULL
    $$
    """,
    "REVOKE ALL ON FUNCTION identity.client_for_token(uuid) FROM PUBLIC",
    # of no tenant: the installation's keys, their private halves sealed
    """
    CREATE TABLE identity.signing_keys (
        kid text PRIMARY KEY,
        sealed_private bytea NOT NULL,
        public_x text NOT NULL,
        public_y text NOT NULL,
        signs_from timestamptz NOT NULL,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
    """,
    f"REVOKE UPDATE, DELETE ON identity.signing_keys FROM {APP}",
    f"REVOKE UPDATE ON identity.signing_keys FROM {SYSTEM}",
)

MEMBERS = (
    """
    CREATE TABLE identity.members (
        tenant_id uuid NOT NULL,
        member_id uuid NOT NULL,
        merged_into uuid,
        display_name bytea,
        sign_up_channel text NOT NULL,
        sign_up_store_id text,
        signed_up_at timestamptz NOT NULL,
        posted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        version bigint NOT NULL,
        data_key bytea,
        CONSTRAINT members_key PRIMARY KEY (tenant_id, member_id),
        CONSTRAINT members_survivor FOREIGN KEY (tenant_id, merged_into)
            REFERENCES identity.members (tenant_id, member_id),
        CONSTRAINT members_sign_up_store FOREIGN KEY (tenant_id, sign_up_store_id)
            REFERENCES identity.stores (tenant_id, store_id),
        CONSTRAINT members_no_self_alias CHECK (merged_into <> member_id),
        CONSTRAINT members_version CHECK (version > 0)
    ) WITH (fillfactor = 90)
    """,
    "CREATE INDEX members_aliases ON identity.members (tenant_id, merged_into) WHERE merged_into IS NOT NULL",
    *schema.rls(SERVICE, "members"),
    f"REVOKE DELETE ON identity.members FROM {APP}, {SYSTEM}",
    """
    CREATE TABLE identity.identifiers (
        tenant_id uuid NOT NULL,
        lookup bytea NOT NULL,
        member_id uuid NOT NULL,
        type smallint NOT NULL,
        issuer text NOT NULL,
        owns boolean NOT NULL,
        verified boolean NOT NULL,
        sealed bytea NOT NULL,
        sealed_for uuid NOT NULL,
        linked_at timestamptz NOT NULL,
        CONSTRAINT identifiers_key PRIMARY KEY (tenant_id, lookup, member_id),
        CONSTRAINT identifiers_member FOREIGN KEY (tenant_id, member_id)
            REFERENCES identity.members (tenant_id, member_id),
        CONSTRAINT identifiers_claim CHECK (owns OR (type = 1 AND NOT verified)),
        CONSTRAINT identifiers_lookup CHECK (octet_length(lookup) = 16)
    ) WITH (fillfactor = 90)
    """,
    # the one truth about who owns an identifier, however many calls race for it
    "CREATE UNIQUE INDEX identifiers_one_owner ON identity.identifiers (tenant_id, lookup) WHERE owns",
    "CREATE INDEX identifiers_by_member ON identity.identifiers (tenant_id, member_id)",
    *schema.rls(SERVICE, "identifiers"),
    """
    CREATE TABLE identity.merges (
        tenant_id uuid NOT NULL,
        merge_id uuid NOT NULL,
        member_id uuid NOT NULL,
        merged_member_id uuid NOT NULL,
        evidence bytea NOT NULL,
        snapshot jsonb NOT NULL,
        merged_by text NOT NULL,
        occurred_at timestamptz NOT NULL,
        posted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT merges_key PRIMARY KEY (tenant_id, merge_id),
        CONSTRAINT merges_member FOREIGN KEY (tenant_id, member_id)
            REFERENCES identity.members (tenant_id, member_id),
        CONSTRAINT merges_merged_member FOREIGN KEY (tenant_id, merged_member_id)
            REFERENCES identity.members (tenant_id, member_id)
    )
    """,
    "CREATE INDEX merges_by_merged ON identity.merges (tenant_id, merged_member_id)",
    *schema.rls(SERVICE, "merges"),
    *schema.append_only(SERVICE, "merges"),
)

RESOLVE = (
    # The owners of a batch of identifiers, in one statement that sets its tenant itself: a till asks this at each sale.
    # One generic plan, since planning costs more than looking up; LATERAL with LIMIT, so that it stays two index
    # look-ups an identifier even on tables that were just filled and have no statistics (a join took 195 ms for 256).
    """
    CREATE FUNCTION identity.resolve_members(wanted_tenant uuid, wanted bytea[])
    RETURNS TABLE (lookup bytea, member_id uuid, version bigint)
    LANGUAGE plpgsql
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off
    AS $$
    BEGIN
        PERFORM set_config('siyu.tenant', wanted_tenant::text, true);
        RETURN QUERY
            SELECT w.lookup, m.member_id, m.version
            FROM unnest(wanted) AS w(lookup)
            CROSS JOIN LATERAL (
                SELECT i.member_id
                FROM identity.identifiers AS i
                WHERE i.tenant_id = wanted_tenant AND i.lookup = w.lookup AND i.owns
                LIMIT 1
            ) AS o
            CROSS JOIN LATERAL (
                SELECT a.member_id, a.version
                FROM identity.members AS a
                WHERE a.tenant_id = wanted_tenant AND a.member_id = o.member_id
                LIMIT 1
            ) AS m;
    END
    $$
    """,
)


def upgrade() -> None:
    for statement in (*schema.version_1(SERVICE), *TENANTS, *STORES, *CLIENTS, *MEMBERS, *RESOLVE):
        op.execute(statement)
