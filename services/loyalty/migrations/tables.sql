-- The points ledger. Every primary key leads with the tenant; balances leave room for HOT updates.

-- Versions of a programme are never changed, only followed. `body` is the domain's own JSON form.
CREATE TABLE programmes (
    tenant_id uuid NOT NULL,
    point_currency text NOT NULL,
    programme_version bigint NOT NULL,
    effective_at timestamptz NOT NULL,
    grace_days integer NOT NULL,
    debt_forbidden boolean NOT NULL,
    body jsonb NOT NULL,
    posted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, point_currency, programme_version)
);

-- What makes a pool besides its member: currency, funder, and the rule that gives the expiry date.
-- A changed rule is a new row, so that points never change their expiry.
CREATE TABLE point_classes (
    tenant_id uuid NOT NULL,
    class_no integer NOT NULL,
    point_currency text NOT NULL,
    funder text NOT NULL,
    expiry_class text NOT NULL,
    expiry_rule text NOT NULL,
    PRIMARY KEY (tenant_id, class_no),
    CONSTRAINT point_classes_by_rule UNIQUE (tenant_id, point_currency, funder, expiry_class, expiry_rule)
);

-- One member's points in one currency: the row that serialises everything that happens to them.
CREATE TABLE accounts (
    tenant_id uuid NOT NULL,
    member_id uuid NOT NULL,
    point_currency text NOT NULL,
    account_version bigint NOT NULL DEFAULT 0,
    available_points bigint NOT NULL DEFAULT 0,
    pending_points bigint NOT NULL DEFAULT 0,
    held_points bigint NOT NULL DEFAULT 0,
    debt_points bigint NOT NULL DEFAULT 0,
    -- the earliest maturing or expiry that is not posted yet
    due_at timestamptz,
    -- the survivor of a merge; this account is then empty for ever
    merged_into uuid,
    PRIMARY KEY (tenant_id, member_id, point_currency),
    CONSTRAINT accounts_available_not_negative CHECK (available_points >= 0),
    CONSTRAINT accounts_pending_not_negative CHECK (pending_points >= 0),
    CONSTRAINT accounts_held_not_negative CHECK (held_points >= 0),
    CONSTRAINT accounts_debt_not_negative CHECK (debt_points >= 0)
) WITH (fillfactor = 70);
CREATE INDEX accounts_due ON accounts (tenant_id, due_at) WHERE due_at IS NOT NULL;

-- A pool is two running totals; its lots are the entries with an expiry, each ending at `end_points` of all earned.
-- `consumed_points` and `floor_points` do not count holes: a lot is gone if its end less the holes up to it is consumed.
CREATE TABLE pools (
    tenant_id uuid NOT NULL,
    -- who earned; with class_no the pool's name for ever
    member_id uuid NOT NULL,
    class_no integer NOT NULL,
    -- whose it is, which a merge changes
    owner_id uuid NOT NULL,
    point_currency text NOT NULL,
    earned_points bigint NOT NULL,
    hole_points bigint NOT NULL DEFAULT 0,
    consumed_points bigint NOT NULL DEFAULT 0,
    -- where the newest expired lot ends: in all earned, and less the holes
    floor_end bigint NOT NULL DEFAULT 0,
    floor_points bigint NOT NULL DEFAULT 0,
    last_expires_at timestamptz NOT NULL,
    next_expires_at timestamptz,
    PRIMARY KEY (tenant_id, member_id, class_no),
    CONSTRAINT pools_not_overdrawn CHECK (consumed_points + hole_points <= earned_points),
    CONSTRAINT pools_floor_is_consumed CHECK (floor_points <= consumed_points)
) WITH (fillfactor = 70);
CREATE INDEX pools_of_owner ON pools (tenant_id, owner_id, point_currency);

-- What a refund took from the unspent part of one lot.
CREATE TABLE holes (
    tenant_id uuid NOT NULL,
    member_id uuid NOT NULL,
    class_no integer NOT NULL,
    end_points bigint NOT NULL,
    points bigint NOT NULL,
    PRIMARY KEY (tenant_id, member_id, class_no, end_points)
);

-- The ledger: append-only; points leave `source` and arrive in `target` (see functions/ledger.sql).
-- The key finds a lot by its end and reads a pool's history in order.
CREATE TABLE entries (
    tenant_id uuid NOT NULL,
    member_id uuid NOT NULL,
    class_no integer NOT NULL,
    end_points bigint NOT NULL,
    account_version bigint NOT NULL,
    owner_id uuid NOT NULL,
    entry_id uuid NOT NULL,
    kind smallint NOT NULL,
    source smallint NOT NULL,
    target smallint NOT NULL,
    points bigint NOT NULL,
    -- set on lots only
    expires_at timestamptz,
    occurred_at timestamptz NOT NULL,
    posted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    order_id text,
    reason text NOT NULL,
    store_id text,
    channel text,
    PRIMARY KEY (tenant_id, member_id, class_no, end_points, account_version),
    CONSTRAINT entries_points_positive CHECK (points > 0),
    CONSTRAINT entries_two_sides CHECK (source <> target)
);

-- The answer to every request id, kept for ever; refusals for a day.
CREATE TABLE point_requests (
    tenant_id uuid NOT NULL,
    client_id text NOT NULL,
    family text NOT NULL,
    request_id text NOT NULL,
    fingerprint bytea NOT NULL,
    refusal text,
    entry_id uuid,
    available_points bigint,
    repaid_points bigint,
    hold_state smallint,
    held_points bigint,
    captured_points bigint,
    expires_at timestamptz,
    stored_at timestamptz NOT NULL DEFAULT now(),
    -- request ids first: they differ, and so a search compares two columns a step and not four
    PRIMARY KEY (tenant_id, request_id, client_id, family)
);
CREATE INDEX point_requests_refused ON point_requests (stored_at) WHERE refusal IS NOT NULL;

-- Owed points, by who funded them; repaid by the next points of that funder.
CREATE TABLE debts (
    tenant_id uuid NOT NULL,
    member_id uuid NOT NULL,
    point_currency text NOT NULL,
    funder text NOT NULL,
    debt_points bigint NOT NULL,
    PRIMARY KEY (tenant_id, member_id, point_currency, funder),
    CONSTRAINT debts_not_negative CHECK (debt_points >= 0)
) WITH (fillfactor = 70);

-- Draws in draw order: pool member, class and points; class 0 was drawn as debt. Returns shorten them from the end.
CREATE TABLE holds (
    tenant_id uuid NOT NULL,
    client_id text NOT NULL,
    hold_id text NOT NULL,
    member_id uuid,
    point_currency text,
    order_id text,
    state smallint NOT NULL,
    held_points bigint NOT NULL,
    captured_points bigint NOT NULL DEFAULT 0,
    draw_members uuid[] NOT NULL,
    draw_classes integer[] NOT NULL,
    draw_points bigint[] NOT NULL,
    debt_class_no integer,
    expires_at timestamptz NOT NULL,
    resolved_at timestamptz,
    PRIMARY KEY (tenant_id, hold_id, client_id),
    CONSTRAINT holds_captured_within_held CHECK (captured_points BETWEEN 0 AND held_points)
) WITH (fillfactor = 70);
CREATE INDEX holds_open ON holds (expires_at) WHERE state = 1;
CREATE INDEX holds_tombstones ON holds (expires_at) WHERE state = 5;

-- One rule's points of one order, to be matured, and taken back unit by unit.
CREATE TABLE earnings (
    tenant_id uuid NOT NULL,
    earning_id uuid NOT NULL,
    -- the pool
    member_id uuid NOT NULL,
    class_no integer NOT NULL,
    owner_id uuid NOT NULL,
    point_currency text NOT NULL,
    order_id text,
    points bigint NOT NULL,
    pending_points bigint NOT NULL,
    taken_points bigint NOT NULL DEFAULT 0,
    matures_at timestamptz,
    expires_at timestamptz NOT NULL,
    earned_version bigint NOT NULL,
    -- where its lot ends in the pool, once posted
    end_points bigint,
    PRIMARY KEY (tenant_id, earning_id),
    CONSTRAINT earnings_taken_within_points CHECK (taken_points BETWEEN 0 AND points),
    CONSTRAINT earnings_pending_within_points CHECK (pending_points BETWEEN 0 AND points)
) WITH (fillfactor = 70);
CREATE INDEX earnings_pending ON earnings (tenant_id, owner_id, point_currency, matures_at) WHERE pending_points > 0;

-- Members that a merge made another's.
CREATE TABLE aliases (
    tenant_id uuid NOT NULL,
    alias_id uuid NOT NULL,
    member_id uuid NOT NULL,
    merge_id uuid NOT NULL,
    merged_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, alias_id)
);

-- One paid order, frozen as it was accrued: what its refunds invert. Arrays are in line order; `line_points` has one
-- row of lines for each earning.
CREATE TABLE orders (
    tenant_id uuid NOT NULL,
    order_id uuid NOT NULL,
    member_id uuid NOT NULL,
    point_currency text NOT NULL,
    store_id text NOT NULL,
    occurred_at timestamptz NOT NULL,
    sold_on date NOT NULL,
    programme_version bigint NOT NULL,
    base_minor bigint NOT NULL,
    refunded_base_minor bigint NOT NULL DEFAULT 0,
    line_ids text[] NOT NULL,
    quantities bigint[] NOT NULL,
    refunded_quantities bigint[] NOT NULL,
    line_bases bigint[] NOT NULL,
    earning_ids uuid[] NOT NULL,
    line_points bigint[] NOT NULL,
    burnt_points bigint NOT NULL,
    returned_points bigint NOT NULL DEFAULT 0,
    hold_id text,
    shortfall_points bigint NOT NULL DEFAULT 0,
    -- the part of burnt_points that was not there, off-line, and may be no debt: given back first, and to nobody
    undrawn_points bigint NOT NULL DEFAULT 0,
    wholly_refunded boolean NOT NULL DEFAULT false,
    order_version bigint NOT NULL DEFAULT 1,
    posted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, order_id),
    CONSTRAINT orders_refunded_within_base CHECK (refunded_base_minor BETWEEN 0 AND base_minor),
    CONSTRAINT orders_returned_within_burnt CHECK (returned_points BETWEEN 0 AND burnt_points)
) WITH (fillfactor = 85);

-- What counts for tiers, by the brand's local day of the sale.
CREATE TABLE tier_days (
    tenant_id uuid NOT NULL,
    member_id uuid NOT NULL,
    point_currency text NOT NULL,
    day date NOT NULL,
    amount_minor bigint NOT NULL,
    orders bigint NOT NULL,
    activity bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, member_id, point_currency, day),
    CONSTRAINT tier_days_amount_not_negative CHECK (amount_minor >= 0),
    CONSTRAINT tier_days_orders_not_negative CHECK (orders >= 0)
) WITH (fillfactor = 85);

-- The member's tier; no row is the lowest. `until` is when it has to be judged again.
CREATE TABLE member_tiers (
    tenant_id uuid NOT NULL,
    member_id uuid NOT NULL,
    point_currency text NOT NULL,
    tier_id text NOT NULL,
    since timestamptz NOT NULL,
    until timestamptz,
    tier_version bigint NOT NULL,
    PRIMARY KEY (tenant_id, member_id, point_currency)
) WITH (fillfactor = 85);
CREATE INDEX member_tiers_until ON member_tiers (tenant_id, until) WHERE until IS NOT NULL;

-- Every change of tier with its reason and figures.
CREATE TABLE tier_changes (
    tenant_id uuid NOT NULL,
    member_id uuid NOT NULL,
    point_currency text NOT NULL,
    tier_version bigint NOT NULL,
    from_tier_id text NOT NULL,
    to_tier_id text NOT NULL,
    changed_at timestamptz NOT NULL,
    why text NOT NULL,
    posted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, member_id, point_currency, tier_version)
);

-- What the entries of one step share: where they come from, and the words for "why".
CREATE TYPE cause AS (
    tenant_id uuid,
    owner_id uuid,
    point_currency text,
    occurred_at timestamptz,
    order_id text,
    reason text,
    store_id text,
    channel text
);
