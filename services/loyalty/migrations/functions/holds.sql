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

-- Makes the holds that can be made at once, and answers their requests. Their accounts are locked and not due (`p_rows`)
-- and have all their points in one pool. That pool's end may be the account's tail: it is folded here, so that both rows
-- are written once.
-- Of an account that several items hold of, each comes with what the `p_earlier` ones take, which is all made, and with
-- its number; the last one writes the rows. Null: there is none. `p_late`: items that are left alone whatever they are.
-- `p_look`: looks up which requests were answered and which names are taken. Else they are a unique violation; but a
-- name is looked up for who has not the points, as it is told first.
-- Returns refusals and what is available after each, the places of those that were left alone, and whether some were
-- answered before.
CREATE OR REPLACE FUNCTION hold_at_once(
    p_tenant uuid, p_now timestamptz, p_first boolean[], p_clients text[], p_requests text[], p_prints bytea[],
    p_holds text[], p_members uuid[], p_currencies text[], p_points bigint[], p_expires timestamptz[], p_orders text[],
    p_too_old boolean[], p_debt_classes integer[], p_rows tid[], p_late boolean[], p_earlier bigint[], p_numbers bigint[],
    p_lasts boolean[], p_look boolean,
    OUT refusals text[], OUT available bigint[], OUT late integer[], OUT repeats boolean
) LANGUAGE plpgsql AS $$
DECLARE
    -- the ids of a batch's entries end with the place: a random one each took a tenth of the hold's time
    v_stem text := left(replace(uuidv7()::text, '-', ''), 28);
BEGIN
    WITH item AS MATERIALIZED (
        SELECT j.*, j.fresh AND NOT j.is_late AND j.refusal IS NULL AS is_made,
               CASE WHEN j.refusal IS NULL THEN j.before - j.points ELSE j.before END AS left_points
        FROM (
            SELECT i.*, i.is_first AND q.request_id IS NULL AS fresh, l.before, s.*,
                   a.account_version + coalesce(i.number, 1) AS version,
                   CASE WHEN i.too_old THEN 'HOLD_TOO_OLD' WHEN h.state IS NOT NULL THEN hold_refusal(h.state)
                        WHEN l.before < i.points THEN 'INSUFFICIENT_POINTS' END AS refusal,
                   i.late IS TRUE OR i.debt_class IS NOT NULL
                   OR s.pool_row IS NULL AND l.before >= i.points AND h.state IS NULL AND NOT i.too_old AS is_late
            FROM unnest(p_first, p_clients, p_requests, p_prints, p_holds, p_members, p_currencies, p_points, p_expires,
                        p_orders, p_too_old, p_debt_classes, p_rows, p_late, p_earlier, p_numbers, p_lasts)
                 WITH ORDINALITY
                 AS i(is_first, client_id, request_id, print, hold_id, owner_id, point_currency, points, expires_at,
                      order_id, too_old, debt_class, account_row, late, earlier, number, is_last, ord)
            CROSS JOIN LATERAL (
                SELECT account_version, available_points, tail_class, tail_end, tail_expires_at
                FROM accounts
                WHERE tenant_id = p_tenant AND ctid = i.account_row
                LIMIT 1
            ) a
            CROSS JOIN LATERAL (SELECT a.available_points - coalesce(i.earlier, 0) AS before) l
            LEFT JOIN LATERAL (
                SELECT request_id FROM point_requests
                WHERE p_look AND tenant_id = p_tenant AND client_id = i.client_id AND family = 'loyalty.holds'
                  AND request_id = i.request_id
                LIMIT 1
            ) q ON true
            LEFT JOIN LATERAL (
                SELECT state FROM holds
                WHERE (p_look OR l.before < i.points)
                  AND tenant_id = p_tenant AND hold_id = i.hold_id AND client_id = i.client_id
                LIMIT 1
            ) h ON true
            LEFT JOIN LATERAL (
                -- the one that has all there is, if there is such
                SELECT p.ctid AS pool_row, p.member_id AS pool_member, p.class_no, e.*
                FROM pools p
                CROSS JOIN LATERAL (
                    SELECT CASE WHEN t.is_tail THEN a.tail_end ELSE p.earned_points END AS end_points,
                           CASE WHEN t.is_tail THEN a.tail_expires_at ELSE p.last_expires_at END AS last_expires_at
                    FROM (
                        SELECT p.class_no = a.tail_class AND p.member_id = i.owner_id
                               AND a.tail_end > p.earned_points AS is_tail
                    ) t
                ) e
                WHERE l.before >= i.points
                  AND p.tenant_id = p_tenant AND p.owner_id = i.owner_id AND p.point_currency = i.point_currency
                  AND e.end_points - p.hole_points - p.consumed_points = a.available_points
                LIMIT 1
            ) s ON true
            -- always so: rows are updated by their ctid (see batches.sql)
            WHERE i.ord BETWEEN 1 AND 1000000
        ) j
    ), written AS (
        INSERT INTO entries (tenant_id, member_id, class_no, end_points, account_version, owner_id, entry_id, kind,
                             source, target, points, occurred_at, order_id, reason)
        SELECT p_tenant, pool_member, class_no, end_points, version, owner_id,
               (v_stem || lpad(to_hex(ord), 4, '0'))::uuid, 3, 2, 3, points, p_now, order_id, 'held'
        FROM item WHERE is_made
    ), consumed AS (
        -- what is left there is all that is left
        UPDATE pools p SET consumed_points = i.end_points - p.hole_points - i.left_points, earned_points = i.end_points,
                           last_expires_at = greatest(p.last_expires_at, i.last_expires_at)
        FROM item i
        WHERE p.tenant_id = p_tenant AND p.ctid = i.pool_row AND i.is_made AND i.is_last IS NOT FALSE
    ), counted AS (
        UPDATE accounts a SET available_points = i.left_points, account_version = i.version,
                              held_points = a.held_points + a.available_points - i.left_points
        FROM item i
        WHERE a.tenant_id = p_tenant AND a.ctid = i.account_row AND i.is_made AND i.is_last IS NOT FALSE
    ), made AS (
        INSERT INTO holds (tenant_id, client_id, hold_id, member_id, point_currency, order_id, state, held_points,
                           draw_members, draw_classes, draw_points, expires_at)
        SELECT p_tenant, client_id, hold_id, owner_id, point_currency, order_id, 1, points,
               ARRAY[pool_member], ARRAY[class_no], ARRAY[points], expires_at
        FROM item WHERE is_made
    ), answered AS (
        -- the last is written first: a request that was answered before stops all early
        INSERT INTO point_requests (tenant_id, client_id, family, request_id, fingerprint, refusal, available_points,
                                    hold_state, held_points, captured_points, expires_at)
        SELECT p_tenant, client_id, 'loyalty.holds', request_id, print, refusal, left_points, 1, points, 0, expires_at
        FROM item WHERE fresh AND NOT is_late
    )
    SELECT array_agg(refusal ORDER BY ord), array_agg(left_points ORDER BY ord),
           array_agg(ord ORDER BY ord) FILTER (WHERE fresh AND is_late), bool_or(NOT fresh)
    INTO refusals, available, late, repeats
    FROM item;
END $$;

-- Makes the holds and answers their requests, one by one those that could not be made at once. The accounts are locked
-- and not due; `p_rows` are theirs, in the order of their first items (`p_firsts`). `p_look`: see above.
-- Returns refusals, what is available after each, and whether some requests were answered before.
CREATE OR REPLACE FUNCTION make_holds(
    p_tenant uuid, p_now timestamptz, p_first boolean[], p_clients text[], p_requests text[], p_prints bytea[],
    p_holds text[], p_members uuid[], p_currencies text[], p_points bigint[], p_expires timestamptz[], p_orders text[],
    p_too_old boolean[], p_debt_classes integer[], p_firsts bigint[], p_rows tid[], p_look boolean,
    OUT refusals text[], OUT available bigint[], OUT repeats boolean
) LANGUAGE plpgsql AS $$
DECLARE
    n integer;
    x record;
    v_rows tid[] := p_rows;
    v_several uuid[];
    v_late boolean[];
    v_earlier bigint[];
    v_numbers bigint[];
    v_lasts boolean[];
    r record;
    v_state smallint;
    v_available bigint;
    w cause;
BEGIN
    IF cardinality(p_firsts) < cardinality(p_members) THEN
        v_rows := array_fill(NULL::tid, ARRAY[cardinality(p_members)]);
        FOR n IN 1 .. cardinality(p_firsts) LOOP
            v_rows[p_firsts[n]] := p_rows[n];
        END LOOP;
        v_several := (SELECT array_agg(m) FROM unnest(p_members, v_rows) AS i(m, account_row) WHERE account_row IS NULL);
        v_late := array_fill(false, ARRAY[cardinality(p_members)]);
        v_earlier := array_fill(0::bigint, ARRAY[cardinality(p_members)]);
        v_numbers := array_fill(1::bigint, ARRAY[cardinality(p_members)]);
        v_lasts := array_fill(true, ARRAY[cardinality(p_members)]);
        -- what an account's items ask for together is held at once if it is there and nothing else is in the way
        FOR x IN
            SELECT i.ord, a.account_row, row_number() OVER items AS number,
                   (sum(i.points) OVER items)::bigint - i.points AS earlier, lead(i.ord) OVER items IS NULL AS is_last,
                   count(*) OVER account > 1
                   AND (sum(i.points) OVER account > a.available_points
                        OR bool_or(NOT i.is_first OR i.too_old OR i.debt_class IS NOT NULL OR q.request_id IS NOT NULL
                                   OR h.state IS NOT NULL) OVER account) AS late
            FROM unnest(p_first, p_clients, p_requests, p_holds, p_members, p_currencies, p_points, p_too_old,
                        p_debt_classes) WITH ORDINALITY
                 AS i(is_first, client_id, request_id, hold_id, member_id, point_currency, points, too_old, debt_class,
                      ord)
            CROSS JOIN LATERAL (
                SELECT ctid AS account_row, available_points FROM accounts
                WHERE tenant_id = p_tenant AND member_id = i.member_id AND point_currency = i.point_currency
                LIMIT 1
            ) a
            LEFT JOIN LATERAL (
                SELECT request_id FROM point_requests
                WHERE p_look AND tenant_id = p_tenant AND client_id = i.client_id AND family = 'loyalty.holds'
                  AND request_id = i.request_id
                LIMIT 1
            ) q ON true
            LEFT JOIN LATERAL (
                SELECT state FROM holds
                WHERE p_look AND tenant_id = p_tenant AND hold_id = i.hold_id AND client_id = i.client_id
                LIMIT 1
            ) h ON true
            WHERE i.member_id = ANY (v_several)
            WINDOW account AS (PARTITION BY i.member_id, i.point_currency),
                   items AS (PARTITION BY i.member_id, i.point_currency ORDER BY i.ord)
        LOOP
            v_rows[x.ord] := x.account_row; v_late[x.ord] := x.late; v_earlier[x.ord] := x.earlier;
            v_numbers[x.ord] := x.number; v_lasts[x.ord] := x.is_last;
        END LOOP;
    END IF;
    r := hold_at_once(p_tenant, p_now, p_first, p_clients, p_requests, p_prints, p_holds, p_members, p_currencies,
                      p_points, p_expires, p_orders, p_too_old, p_debt_classes, v_rows, v_late, v_earlier, v_numbers,
                      v_lasts, p_look);
    refusals := r.refusals; available := r.available; repeats := r.repeats;

    FOREACH n IN ARRAY coalesce(r.late, '{}') LOOP
        v_state := (SELECT state FROM holds
                    WHERE tenant_id = p_tenant AND hold_id = p_holds[n] AND client_id = p_clients[n]);
        v_available := (SELECT available_points FROM accounts
                        WHERE tenant_id = p_tenant AND member_id = p_members[n] AND point_currency = p_currencies[n]);
        refusals[n] := CASE WHEN p_too_old[n] THEN 'HOLD_TOO_OLD' WHEN v_state IS NOT NULL THEN hold_refusal(v_state)
                            WHEN v_available < p_points[n] AND p_debt_classes[n] IS NULL THEN 'INSUFFICIENT_POINTS' END;
        IF refusals[n] IS NULL THEN
            PERFORM fold(p_tenant, p_members[n:n], p_currencies[n:n]);
            w := ROW(p_tenant, p_members[n], p_currencies[n], p_now, p_orders[n], 'held', NULL, NULL);
            v_available := draw_hold(w, p_clients[n], p_holds[n], p_points[n], p_expires[n], p_debt_classes[n]);
        END IF;
        available[n] := v_available;
        INSERT INTO point_requests (tenant_id, client_id, family, request_id, fingerprint, refusal, available_points,
                                    hold_state, held_points, captured_points, expires_at)
        VALUES (p_tenant, p_clients[n], 'loyalty.holds', p_requests[n], p_prints[n], refusals[n], v_available, 1,
                p_points[n], 0, p_expires[n]);
    END LOOP;
END $$;

-- Holds points, each under its request id. `p_expires` is machine time. `p_debt_classes` is set for off-line sales only.
-- Returns arrays in the order of the items.
-- Nearly always all items are new: they are made without a look at what was answered before or whose name is taken, and
-- all of it is undone and made again with one if some were.
CREATE OR REPLACE FUNCTION hold_points(
    p_tenant uuid, p_now timestamptz, p_first boolean[], p_clients text[], p_requests text[],
    p_prints bytea[], p_holds text[], p_members uuid[], p_currencies text[], p_points bigint[], p_expires timestamptz[],
    p_orders text[], p_too_old boolean[], p_debt_classes integer[],
    OUT reused boolean[], OUT refusals text[], OUT available bigint[], OUT expires timestamptz[]
) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan
SET enable_mergejoin = off SET enable_seqscan = off AS $$
DECLARE
    v_in record;
    r record;
BEGIN
    PERFORM set_config('siyu.tenant', p_tenant::text, true);
    v_in := lock_accounts(p_tenant, p_now, p_currencies, p_members);
    IF v_in.due THEN
        PERFORM enter(p_tenant, p_now, p_currencies, v_in.members);
        v_in := lock_accounts(p_tenant, p_now, p_currencies, v_in.members);
    END IF;
    BEGIN
        r := make_holds(p_tenant, p_now, p_first, p_clients, p_requests, p_prints, p_holds, v_in.members, p_currencies,
                        p_points, p_expires, p_orders, p_too_old, p_debt_classes, v_in.firsts, v_in.account_rows, false);
    EXCEPTION WHEN unique_violation THEN
        r := make_holds(p_tenant, p_now, p_first, p_clients, p_requests, p_prints, p_holds, v_in.members, p_currencies,
                        p_points, p_expires, p_orders, p_too_old, p_debt_classes, v_in.firsts, v_in.account_rows, true);
    END;
    refusals := r.refusals; available := r.available; expires := p_expires;
    IF r.repeats THEN
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
