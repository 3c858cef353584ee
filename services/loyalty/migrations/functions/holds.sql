-- Holds: drawn at once, resolved exactly once. States: 1 held, 2 captured, 3 voided, 4 expired, 5 tombstone.

-- Why a hold can't be made where this state is already; NULL: it can.
CREATE OR REPLACE FUNCTION hold_refusal(p_state smallint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE p_state WHEN 1 THEN 'HOLD_EXISTS' WHEN 2 THEN 'HOLD_CAPTURED' WHEN 4 THEN 'HOLD_EXPIRED'
                        WHEN 3 THEN 'HOLD_VOIDED' WHEN 5 THEN 'HOLD_VOIDED' END
$$;

-- Draws for one hold from an account that is entered. What is not there becomes debt of the class, where one is given.
CREATE OR REPLACE FUNCTION draw_hold(
    w cause, p_client text, p_hold text, p_points bigint, p_expires timestamptz, p_debt_class integer
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_available bigint;
    d record;
BEGIN
    SELECT available_points INTO v_available FROM accounts
    WHERE tenant_id = w.tenant_id AND member_id = w.owner_id AND point_currency = w.point_currency;
    d := draw(w, 3::smallint, 3::smallint, least(p_points, v_available));
    IF p_points > v_available THEN
        PERFORM owe(w, p_debt_class, 3::smallint, 3::smallint, p_points - v_available);
        d.members := d.members || w.owner_id; d.classes := d.classes || 0; d.points := d.points || p_points - v_available;
    END IF;
    INSERT INTO holds (tenant_id, client_id, hold_id, member_id, point_currency, order_id, state, held_points,
                       draw_members, draw_classes, draw_points, debt_class_no, expires_at)
    VALUES (w.tenant_id, p_client, p_hold, w.owner_id, w.point_currency, w.order_id, 1, p_points,
            d.members, d.classes, d.points, p_debt_class, p_expires);
    RETURN greatest(v_available - p_points, 0);
END $$;

-- Holds points, each under its request id. `p_clock` is machine time, `p_expires` too. `p_debt_classes` is set for
-- off-line sales only. Returns arrays in the order of the items.
CREATE OR REPLACE FUNCTION hold_points(
    p_tenant uuid, p_now timestamptz, p_first boolean[], p_clients text[], p_requests text[],
    p_prints bytea[], p_holds text[], p_members uuid[], p_currencies text[], p_points bigint[], p_expires timestamptz[],
    p_orders text[], p_too_old boolean[], p_debt_classes integer[],
    OUT reused boolean[], OUT refusals text[], OUT available bigint[], OUT expires timestamptz[]
) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan
SET enable_mergejoin = off SET enable_seqscan = off AS $$
DECLARE
    v_members uuid[];
    v_fresh boolean[] := array_fill(false, ARRAY[cardinality(p_members)]);
    v_repeats boolean := false;
    v_member uuid;
    v_currency text;
    v_slow boolean;
    v_available bigint;
    v_version bigint;
    v_reason text;
    w cause;
    x record;
    -- holds that were drawn from the account's only pool
    d_ord bigint[] := '{}';
    d_pool uuid[] := '{}';
    d_class integer[] := '{}';
    d_end bigint[] := '{}';
    d_version bigint[] := '{}';
    d_account tid[] := '{}';
    d_row tid[] := '{}';
BEGIN
    PERFORM set_config('siyu.tenant', p_tenant::text, true);
    v_members := (enter(p_tenant, p_now, p_currencies, p_members)).members;
    refusals := array_fill(NULL::text, ARRAY[cardinality(p_members)]);
    available := array_fill(NULL::bigint, ARRAY[cardinality(p_members)]);
    expires := p_expires;

    FOR x IN
        SELECT i.ord, i.is_first, i.client_id, i.hold_id, i.member_id, i.point_currency, i.points, i.expires_at,
               i.order_id, i.too_old, i.debt_class, a.available_points, a.account_version, q.request_id AS seen,
               h.state, a.ctid AS account_row, s.pools, s.pool_member, s.class_no, s.end_points, s.pool_row,
               count(i.debt_class) OVER (PARTITION BY i.member_id, i.point_currency) AS owing
        FROM unnest(p_first, p_clients, p_requests, p_holds, v_members, p_currencies, p_points, p_expires,
                    p_orders, p_too_old, p_debt_classes) WITH ORDINALITY
             AS i(is_first, client_id, request_id, hold_id, member_id, point_currency, points, expires_at,
                  order_id, too_old, debt_class, ord)
        CROSS JOIN LATERAL (
            SELECT ctid, available_points, account_version FROM accounts
            WHERE tenant_id = p_tenant AND member_id = i.member_id AND point_currency = i.point_currency
            LIMIT 1
        ) a
        LEFT JOIN LATERAL (
            SELECT request_id FROM point_requests
            WHERE tenant_id = p_tenant AND client_id = i.client_id AND family = 'loyalty.holds'
              AND request_id = i.request_id
            LIMIT 1
        ) q ON true
        LEFT JOIN LATERAL (
            SELECT state FROM holds
            WHERE tenant_id = p_tenant AND hold_id = i.hold_id AND client_id = i.client_id
            LIMIT 1
        ) h ON true
        LEFT JOIN LATERAL (
            SELECT count(*) AS pools, min(p.member_id::text)::uuid AS pool_member, min(p.class_no) AS class_no,
                   min(p.earned_points) AS end_points, min(p.ctid) AS pool_row
            FROM pools p
            WHERE p.tenant_id = p_tenant AND p.owner_id = i.member_id AND p.point_currency = i.point_currency
              AND p.consumed_points + p.hole_points < p.earned_points
        ) s ON a.available_points > 0
        ORDER BY i.member_id, i.point_currency, i.ord
    LOOP
        IF v_member IS DISTINCT FROM x.member_id OR v_currency <> x.point_currency THEN
            v_member := x.member_id; v_currency := x.point_currency;
            v_available := x.available_points; v_version := x.account_version;
            v_slow := x.pools > 1 OR x.owing > 0;
        END IF;
        IF x.seen IS NOT NULL OR NOT x.is_first THEN
            v_repeats := true;
            CONTINUE;
        END IF;
        v_fresh[x.ord] := true;
        v_reason := CASE WHEN x.too_old THEN 'HOLD_TOO_OLD' ELSE hold_refusal(x.state) END;
        IF v_reason IS NULL AND v_available < x.points AND x.debt_class IS NULL THEN
            v_reason := 'INSUFFICIENT_POINTS';
        END IF;
        IF v_reason IS NOT NULL THEN
            refusals[x.ord] := v_reason;
        ELSIF v_slow THEN
            w := ROW(p_tenant, v_member, v_currency, p_now, x.order_id, 'held', NULL, NULL);
            v_available := draw_hold(w, x.client_id, x.hold_id, x.points, x.expires_at, x.debt_class);
        ELSE
            v_version := v_version + 1; v_available := v_available - x.points;
            d_ord := d_ord || x.ord; d_pool := d_pool || x.pool_member; d_class := d_class || x.class_no;
            d_end := d_end || x.end_points; d_version := d_version || v_version;
            d_account := d_account || x.account_row; d_row := d_row || x.pool_row;
        END IF;
        available[x.ord] := v_available;
    END LOOP;

    WITH drawn AS MATERIALIZED (
        SELECT v_members[d.ord] AS owner_id, p_currencies[d.ord] AS point_currency, p_points[d.ord] AS points,
               p_clients[d.ord] AS client_id, p_holds[d.ord] AS hold_id, p_orders[d.ord] AS order_id,
               p_expires[d.ord] AS expires_at, d.*
        FROM unnest(d_ord, d_pool, d_class, d_end, d_version, d_account, d_row)
             AS d(ord, pool_member, class_no, end_points, version, account_row, pool_row)
        -- always so: rows are updated by their ctid (see batches.sql)
        WHERE d.ord BETWEEN 1 AND 1000000
    ), written AS (
        INSERT INTO entries (tenant_id, member_id, class_no, end_points, account_version, owner_id, entry_id, kind,
                             source, target, points, occurred_at, order_id, reason)
        SELECT p_tenant, pool_member, class_no, end_points, version, owner_id, gen_random_uuid(), 3, 2, 3, points,
               p_now, order_id, 'held'
        FROM drawn
    ), made AS (
        INSERT INTO holds (tenant_id, client_id, hold_id, member_id, point_currency, order_id, state, held_points,
                           draw_members, draw_classes, draw_points, expires_at)
        SELECT p_tenant, client_id, hold_id, owner_id, point_currency, order_id, 1, points,
               ARRAY[pool_member], ARRAY[class_no], ARRAY[points], expires_at
        FROM drawn
    ), consumed AS (
        UPDATE pools p SET consumed_points = p.consumed_points + s.points
        FROM (SELECT pool_row, sum(points) AS points FROM drawn GROUP BY pool_row) s
        WHERE p.tenant_id = p_tenant AND p.ctid = s.pool_row
    ), counted AS (
        UPDATE accounts a SET available_points = a.available_points - s.points, held_points = a.held_points + s.points,
                              account_version = a.account_version + s.entries
        FROM (SELECT account_row, sum(points) AS points, count(*) AS entries FROM drawn GROUP BY account_row) s
        WHERE a.tenant_id = p_tenant AND a.ctid = s.account_row
    )
    INSERT INTO point_requests (tenant_id, client_id, family, request_id, fingerprint, refusal, available_points,
                                hold_state, held_points, captured_points, expires_at)
    SELECT p_tenant, i.client_id, 'loyalty.holds', i.request_id, i.print, i.refusal, i.left_points, 1, i.points, 0,
           i.expires_at
    FROM unnest(v_fresh, p_clients, p_requests, p_prints, refusals, available, p_points, p_expires)
         AS i(fresh, client_id, request_id, print, refusal, left_points, points, expires_at)
    WHERE i.fresh;

    IF v_repeats THEN
        SELECT array_agg(q.fingerprint <> i.print ORDER BY i.ord), array_agg(q.refusal ORDER BY i.ord),
               array_agg(q.available_points ORDER BY i.ord), array_agg(q.expires_at ORDER BY i.ord)
        INTO reused, refusals, available, expires
        FROM unnest(p_clients, p_requests, p_prints) WITH ORDINALITY AS i(client_id, request_id, print, ord)
        CROSS JOIN LATERAL (
            SELECT fingerprint, refusal, available_points, expires_at FROM point_requests
            WHERE tenant_id = p_tenant AND client_id = i.client_id AND family = 'loyalty.holds'
              AND request_id = i.request_id
            LIMIT 1
        ) q;
        IF cardinality(reused) IS DISTINCT FROM cardinality(p_requests) THEN
            RAISE serialization_failure USING MESSAGE = 'a refusal was swept after it had been looked up';
        END IF;
    END IF;
END $$;

-- Ends a hold whose account is entered: `p_points` of it are burnt, the rest goes back.
CREATE OR REPLACE FUNCTION end_hold(w cause, p_client text, p_hold text, p_state smallint, p_points bigint, p_clock timestamptz)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    h holds;
    d record;
    i integer;
    v_class integer;
BEGIN
    SELECT * INTO STRICT h FROM holds WHERE tenant_id = w.tenant_id AND hold_id = p_hold AND client_id = p_client;
    ASSERT h.state = 1, 'a hold is resolved once';
    d := put_back(w, 5::smallint, 3::smallint, h.held_points - p_points, h.debt_class_no,
                  h.draw_members, h.draw_classes, h.draw_points);
    FOR i IN 1 .. cardinality(d.points) LOOP
        v_class := CASE WHEN d.classes[i] = 0 THEN h.debt_class_no ELSE d.classes[i] END;
        PERFORM book(w, NULL, d.members[i], v_class, pool_end(w.tenant_id, d.members[i], v_class),
                     4::smallint, 3::smallint, 12::smallint, d.points[i], NULL);
    END LOOP;
    UPDATE holds SET state = p_state, captured_points = p_points, resolved_at = p_clock,
                     draw_members = d.members, draw_classes = d.classes, draw_points = d.points
    WHERE tenant_id = w.tenant_id AND hold_id = p_hold AND client_id = p_client;
END $$;

-- Captures and voids, each under its request id. `p_captures` tells which; `p_points` 0 captures all.
-- A hold past its time to live expires here, and the call is refused. Returns arrays in the order of the items. A hold
-- that is made at this moment is a lost race: the batch is to be run again, and enters its account too.
CREATE OR REPLACE FUNCTION resolve_holds(
    p_tenant uuid, p_now timestamptz, p_clock timestamptz, p_tombstone_until timestamptz, p_clients text[],
    p_requests text[], p_prints bytea[], p_holds text[], p_captures boolean[], p_points bigint[],
    OUT reused boolean[], OUT refusals text[], OUT states smallint[], OUT held bigint[], OUT captured bigint[],
    OUT expires timestamptz[]
) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan
SET enable_mergejoin = off SET enable_seqscan = off AS $$
DECLARE
    h holds;
    q point_requests;
    w cause;
    i integer;
    v_reason text;
    v_members uuid[];
    v_currencies text[];
    v_entered boolean[];
    v_kept bigint;
BEGIN
    PERFORM set_config('siyu.tenant', p_tenant::text, true);
    SELECT array_agg(o.member_id) FILTER (WHERE o.state = 1), array_agg(o.point_currency) FILTER (WHERE o.state = 1),
           array_agg(o.state IS NOT DISTINCT FROM 1 ORDER BY x.ord)
    INTO v_members, v_currencies, v_entered
    FROM unnest(p_holds, p_clients) WITH ORDINALITY AS x(hold_id, client_id, ord)
    LEFT JOIN LATERAL (
        SELECT member_id, point_currency, state FROM holds
        WHERE tenant_id = p_tenant AND hold_id = x.hold_id AND client_id = x.client_id
        LIMIT 1
    ) o ON true;
    IF v_members IS NOT NULL THEN
        PERFORM enter(p_tenant, p_now, v_currencies, v_members);
    END IF;
    FOR i IN 1 .. cardinality(p_holds) LOOP
        SELECT * INTO q FROM point_requests
        WHERE tenant_id = p_tenant AND client_id = p_clients[i] AND family = 'loyalty.holds'
          AND request_id = p_requests[i];
        IF NOT FOUND THEN
            v_reason := NULL;
            SELECT * INTO h FROM holds
            WHERE tenant_id = p_tenant AND hold_id = p_holds[i] AND client_id = p_clients[i];
            IF NOT FOUND AND p_captures[i] THEN
                v_reason := 'HOLD_NOT_FOUND';
                h := NULL;
            ELSIF NOT FOUND THEN
                INSERT INTO holds (tenant_id, client_id, hold_id, state, held_points, draw_members, draw_classes,
                                   draw_points, expires_at, resolved_at)
                VALUES (p_tenant, p_clients[i], p_holds[i], 5, 0, '{}', '{}', '{}', p_tombstone_until, p_clock)
                ON CONFLICT (tenant_id, hold_id, client_id) DO NOTHING
                RETURNING * INTO h;
                IF NOT FOUND THEN
                    RAISE serialization_failure USING MESSAGE = 'the hold was made while it was waited for';
                END IF;
            ELSIF h.state <> 1 THEN
                v_reason := hold_refusal(h.state);
            ELSIF NOT v_entered[i] THEN
                -- what is due there has to be posted first, and a lock after others' would be out of their order
                RAISE serialization_failure USING MESSAGE = 'the hold was made after the accounts were entered';
            ELSE
                w := ROW(p_tenant, account_of(p_tenant, h.member_id, h.point_currency), h.point_currency, p_now,
                         h.order_id, CASE WHEN p_captures[i] THEN 'spent' ELSE 'voided' END, NULL, NULL);
                v_kept := CASE WHEN NOT p_captures[i] THEN 0 WHEN p_points[i] = 0 THEN h.held_points
                               ELSE p_points[i] END;
                IF h.expires_at <= p_clock THEN
                    w.reason := 'hold expired';
                    PERFORM end_hold(w, p_clients[i], p_holds[i], 4::smallint, 0, p_clock);
                    v_reason := 'HOLD_EXPIRED';
                ELSIF v_kept > h.held_points THEN
                    v_reason := 'HOLD_TOO_SMALL';
                ELSE
                    PERFORM end_hold(w, p_clients[i], p_holds[i], CASE WHEN p_captures[i] THEN 2 ELSE 3 END::smallint,
                                     v_kept, p_clock);
                    h.state := CASE WHEN p_captures[i] THEN 2 ELSE 3 END; h.captured_points := v_kept;
                END IF;
            END IF;
            INSERT INTO point_requests (tenant_id, client_id, family, request_id, fingerprint, refusal, hold_state,
                                        held_points, captured_points, expires_at)
            VALUES (p_tenant, p_clients[i], 'loyalty.holds', p_requests[i], p_prints[i], v_reason, h.state,
                    h.held_points, h.captured_points, h.expires_at)
            RETURNING * INTO q;
        END IF;
        reused[i] := q.fingerprint <> p_prints[i];
        refusals[i] := q.refusal; states[i] := q.hold_state; held[i] := q.held_points;
        captured[i] := q.captured_points; expires[i] := q.expires_at;
    END LOOP;
END $$;

-- The account that a member's points are in now, merges followed.
CREATE OR REPLACE FUNCTION account_of(p_tenant uuid, p_member uuid, p_currency text) RETURNS uuid LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_member uuid := p_member;
    v_next uuid;
BEGIN
    LOOP
        SELECT merged_into INTO v_next FROM accounts
        WHERE tenant_id = p_tenant AND member_id = v_member AND point_currency = p_currency;
        IF v_next IS NULL THEN
            RETURN v_member;
        END IF;
        v_member := v_next;
    END LOOP;
END $$;

-- Expires a bounded number of the tenant's holds whose time to live ran out; returns how many.
CREATE OR REPLACE FUNCTION expire_holds(p_tenant uuid, p_now timestamptz, p_clock timestamptz, p_limit integer)
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    x record;
    h record;
    w cause;
    n integer := 0;
BEGIN
    PERFORM set_config('siyu.tenant', p_tenant::text, true);
    SELECT array_agg(client_id) AS clients, array_agg(hold_id) AS holds, array_agg(member_id) AS members,
           array_agg(point_currency) AS currencies
    INTO x
    FROM (
        SELECT client_id, hold_id, member_id, point_currency FROM holds
        WHERE tenant_id = p_tenant AND state = 1 AND expires_at <= p_clock
        ORDER BY expires_at LIMIT p_limit
    ) due;
    IF x.holds IS NULL THEN
        RETURN 0;
    END IF;
    -- all at once: one by one they would be locked in the order of their expiry
    PERFORM enter(p_tenant, p_now, x.currencies, x.members);
    FOR h IN
        SELECT i.client_id, i.hold_id, o.member_id, o.point_currency, o.order_id
        FROM unnest(x.clients, x.holds) AS i(client_id, hold_id)
        CROSS JOIN LATERAL (
            SELECT member_id, point_currency, order_id, state FROM holds
            WHERE tenant_id = p_tenant AND hold_id = i.hold_id AND client_id = i.client_id
            LIMIT 1
        ) o
        -- a capture may have come first
        WHERE o.state = 1
    LOOP
        w := ROW(p_tenant, account_of(p_tenant, h.member_id, h.point_currency), h.point_currency, p_now, h.order_id,
                 'hold expired', NULL, NULL);
        PERFORM end_hold(w, h.client_id, h.hold_id, 4::smallint, 0, p_clock);
        n := n + 1;
    END LOOP;
    RETURN n;
END $$;
