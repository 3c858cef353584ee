-- Refunds of sales: each gives back what the sale burnt, then takes back what it earned.

-- `p_gives`/`p_takes` name the item (from 1) of each hold and earning. Accounts are entered here. A hold is its client's:
-- another client may have one of the same name. Returns, item by item, the shortfall of the take-back (debt forbidden),
-- what is available and the account's version.
CREATE OR REPLACE FUNCTION refund_points(
    p_tenant uuid, p_now timestamptz, p_members uuid[], p_currencies text[], p_occurred timestamptz[], p_orders text[],
    p_reasons text[], p_debt_allowed boolean[],
    p_gives integer[], p_give_clients text[], p_give_holds text[], p_give_points bigint[],
    p_takes integer[], p_take_earnings uuid[], p_take_points bigint[],
    OUT shortfalls bigint[], OUT available bigint[], OUT versions bigint[]
) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan
SET enable_mergejoin = off SET enable_seqscan = off AS $$
DECLARE
    v_members uuid[];
    w cause;
    i integer;
    g integer := 1;
    t integer := 1;
    h record;
    d record;
BEGIN
    PERFORM set_config('siyu.tenant', p_tenant::text, true);
    v_members := (enter(p_tenant, p_now, p_currencies, p_members)).members;
    FOR i IN 1 .. cardinality(v_members) LOOP
        w := ROW(p_tenant, v_members[i], p_currencies[i], p_occurred[i], p_orders[i], p_reasons[i], NULL, NULL);
        shortfalls[i] := 0;
        WHILE p_gives[g] = i LOOP
            SELECT state, held_points INTO h FROM holds
            WHERE tenant_id = p_tenant AND hold_id = p_give_holds[g] AND client_id = p_give_clients[g];
            IF h.state = 1 THEN
                -- the order is paid, and its capture is on the way: it will find this
                w.reason := 'spent';
                PERFORM end_hold(w, p_give_clients[g], p_give_holds[g], 2::smallint, h.held_points, clock_timestamp());
                w.reason := p_reasons[i];
            ELSIF h.state IS DISTINCT FROM 2 THEN
                -- the hold was lost before its capture, which the order's exception tells: nothing was spent
                g := g + 1;
                CONTINUE;
            END IF;
            SELECT debt_class_no, draw_members, draw_classes, draw_points INTO STRICT h FROM holds
            WHERE tenant_id = p_tenant AND hold_id = p_give_holds[g] AND client_id = p_give_clients[g];
            d := put_back(w, 7::smallint, 12::smallint, p_give_points[g], h.debt_class_no,
                          h.draw_members, h.draw_classes, h.draw_points);
            UPDATE holds SET draw_members = d.members, draw_classes = d.classes, draw_points = d.points
            WHERE tenant_id = p_tenant AND hold_id = p_give_holds[g] AND client_id = p_give_clients[g];
            g := g + 1;
        END LOOP;
        WHILE p_takes[t] = i LOOP
            shortfalls[i] := shortfalls[i] + take_back(w, p_take_earnings[t], p_take_points[t], p_debt_allowed[i]);
            t := t + 1;
        END LOOP;
        SELECT a.available_points, a.account_version INTO h FROM accounts a
        WHERE a.tenant_id = p_tenant AND a.member_id = v_members[i] AND a.point_currency = p_currencies[i];
        available[i] := h.available_points; versions[i] := h.account_version;
    END LOOP;
END $$;

-- Settles a bounded number of the tenant's accounts that are due by business time; returns how many.
CREATE OR REPLACE FUNCTION settle_due(p_tenant uuid, p_now timestamptz, p_limit integer)
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_members uuid[];
    v_currencies text[];
    i integer;
BEGIN
    PERFORM set_config('siyu.tenant', p_tenant::text, true);
    -- the rows are locked while they are picked, skipping those at work: a sweeper never waits and never deadlocks
    SELECT array_agg(member_id), array_agg(point_currency) INTO v_members, v_currencies
    FROM (
        SELECT member_id, point_currency FROM accounts
        WHERE tenant_id = p_tenant AND due_at <= p_now AND merged_into IS NULL
        ORDER BY due_at LIMIT p_limit FOR UPDATE SKIP LOCKED
    ) due;
    PERFORM fold(p_tenant, v_members, v_currencies);
    FOR i IN 1 .. coalesce(cardinality(v_members), 0) LOOP
        PERFORM settle(p_tenant, v_members[i], v_currencies[i], p_now);
    END LOOP;
    RETURN coalesce(cardinality(v_members), 0);
END $$;

-- What of the owner's points expires first, and when. Without holes it reads two lots a pool, however many there are.
-- Nothing is locked and folded for it, so the account's tail is told.
CREATE OR REPLACE FUNCTION next_expiry(
    p_tenant uuid, p_owner uuid, p_currency text, p_tail_class integer, p_tail_end bigint,
    OUT expires_at timestamptz, OUT points bigint
)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    p record;
    v_expires timestamptz;
    v_start bigint;
BEGIN
    points := 0;
    FOR p IN
        SELECT member_id, class_no, e.earned_points, consumed_points, floor_end, hole_points
        FROM pools
        CROSS JOIN LATERAL (
            SELECT CASE WHEN member_id = p_owner AND class_no = p_tail_class THEN p_tail_end ELSE pools.earned_points END
        ) e(earned_points)
        WHERE tenant_id = p_tenant AND owner_id = p_owner AND point_currency = p_currency
          AND consumed_points + hole_points < e.earned_points
    LOOP
        IF p.hole_points > 0 THEN
            -- lots have to be counted one by one
            SELECT l.expires_at, sum(l.left_points)::bigint INTO expires_at, points
            FROM live_lots(p_tenant, p_owner, p_currency) l
            GROUP BY l.expires_at ORDER BY l.expires_at LIMIT 1;
            RETURN;
        END IF;
        SELECT l.expires_at INTO v_expires FROM entries l
        WHERE l.tenant_id = p_tenant AND l.member_id = p.member_id AND l.class_no = p.class_no
          AND l.end_points > greatest(p.consumed_points, p.floor_end) AND l.expires_at IS NOT NULL
        ORDER BY l.end_points LIMIT 1;
        CONTINUE WHEN expires_at < v_expires;
        SELECT l.end_points - l.points INTO v_start FROM entries l
        WHERE l.tenant_id = p_tenant AND l.member_id = p.member_id AND l.class_no = p.class_no
          AND l.end_points > greatest(p.consumed_points, p.floor_end) AND l.expires_at > v_expires
        ORDER BY l.end_points LIMIT 1;
        points := CASE WHEN expires_at = v_expires THEN points ELSE 0 END
                  + coalesce(v_start, p.earned_points) - p.consumed_points;
        expires_at := v_expires;
    END LOOP;
END $$;

-- Balances as they are by business time. Accounts that are due are settled first, so nothing expired is told; the others
-- are neither locked nor made, since a read of many must not wait for whoever grants to one of them.
CREATE OR REPLACE FUNCTION balances(
    p_tenant uuid, p_now timestamptz, p_members uuid[], p_currencies text[],
    OUT available bigint[], OUT pending bigint[], OUT held bigint[], OUT debt bigint[], OUT next_expiry timestamptz[],
    OUT next_points bigint[]
) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan
SET enable_mergejoin = off SET enable_seqscan = off AS $$
DECLARE
    v_members uuid[];
    v_look boolean;
    v_due_members uuid[];
    v_due_currencies text[];
BEGIN
    PERFORM set_config('siyu.tenant', p_tenant::text, true);
    -- whose points they are, and whether one of them may be due
    SELECT array_agg(coalesce(l.member_id, x.m) ORDER BY x.ord), bool_or(a.due_at <= p_now OR l.member_id IS NOT NULL)
    INTO v_members, v_look
    FROM unnest(p_members, p_currencies) WITH ORDINALITY AS x(m, c, ord)
    LEFT JOIN LATERAL (
        SELECT member_id, due_at, merged_into FROM accounts
        WHERE tenant_id = p_tenant AND member_id = x.m AND point_currency = x.c
        LIMIT 1
    ) a ON true
    -- a merged member may have no account in a currency that is younger
    LEFT JOIN LATERAL (
        SELECT member_id FROM aliases
        WHERE (a.member_id IS NULL OR a.merged_into IS NOT NULL) AND tenant_id = p_tenant AND alias_id = x.m
        LIMIT 1
    ) l ON true;
    IF v_look THEN
        SELECT array_agg(x.m), array_agg(x.c) INTO v_due_members, v_due_currencies
        FROM unnest(v_members, p_currencies) AS x(m, c)
        CROSS JOIN LATERAL (
            SELECT due_at FROM accounts
            WHERE tenant_id = p_tenant AND member_id = x.m AND point_currency = x.c
            LIMIT 1
        ) a
        WHERE a.due_at <= p_now;
    END IF;
    IF v_due_members IS NOT NULL THEN
        PERFORM enter(p_tenant, p_now, v_due_currencies, v_due_members);
        -- a merge may have been waited for
        v_members := survivors_of(p_tenant, v_members);
    END IF;
    SELECT array_agg(coalesce(a.available_points, 0) ORDER BY x.ord),
           array_agg(coalesce(a.pending_points, 0) ORDER BY x.ord),
           array_agg(coalesce(a.held_points, 0) ORDER BY x.ord),
           array_agg(coalesce(a.debt_points, 0) ORDER BY x.ord),
           array_agg(n.expires_at ORDER BY x.ord), array_agg(coalesce(n.points, 0) ORDER BY x.ord)
    INTO available, pending, held, debt, next_expiry, next_points
    FROM unnest(v_members, p_currencies) WITH ORDINALITY AS x(m, c, ord)
    LEFT JOIN LATERAL (
        SELECT available_points, pending_points, held_points, debt_points, tail_class, tail_end FROM accounts
        WHERE tenant_id = p_tenant AND member_id = x.m AND point_currency = x.c
        LIMIT 1
    ) a ON true
    LEFT JOIN LATERAL next_expiry(p_tenant, x.m, x.c, a.tail_class, a.tail_end) n ON a.available_points > 0;
END $$;
