-- How one account changes, one step at a time. The batch functions lock, settle, and call these where an item is not
-- on their fast path. They must equal the reference model (tests/unit/loyalty/points_model.py).
--
-- Buckets: 1 pending, 2 available, 3 held, 4 debt; the outside: 11 issued, 12 burnt, 13 expired, 14 shortfall, 15 moved.
-- Kinds: 1 earn, 2 mature, 3 hold, 4 burn, 5 release, 6 take back, 7 give back, 8 expire, 9 debt, 10 repay, 11 transfer.

-- Moves points between two buckets of the account and writes the entry; returns the account's new version.
CREATE OR REPLACE FUNCTION book(
    w cause, p_entry uuid, p_member uuid, p_class integer, p_end bigint, p_kind smallint,
    p_source smallint, p_target smallint, p_points bigint, p_expires timestamptz
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_version bigint;
BEGIN
    UPDATE accounts SET
        account_version = account_version + 1,
        pending_points = pending_points + p_points * ((p_target = 1)::int - (p_source = 1)::int),
        available_points = available_points + p_points * ((p_target = 2)::int - (p_source = 2)::int),
        held_points = held_points + p_points * ((p_target = 3)::int - (p_source = 3)::int),
        debt_points = debt_points - p_points * ((p_target = 4)::int - (p_source = 4)::int)
    WHERE tenant_id = w.tenant_id AND member_id = w.owner_id AND point_currency = w.point_currency
    RETURNING account_version INTO STRICT v_version;
    INSERT INTO entries (tenant_id, member_id, class_no, end_points, account_version, owner_id, entry_id, kind,
                         source, target, points, expires_at, occurred_at, order_id, reason, store_id, channel)
    VALUES (w.tenant_id, p_member, p_class, p_end, v_version, w.owner_id, coalesce(p_entry, gen_random_uuid()), p_kind,
            p_source, p_target, p_points, p_expires, w.occurred_at, w.order_id, w.reason, w.store_id, w.channel);
    RETURN v_version;
END $$;

-- Where the pool stands: all that was earned in it. 0 for a pool that is not there yet.
CREATE OR REPLACE FUNCTION pool_end(p_tenant uuid, p_member uuid, p_class integer) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT earned_points FROM pools
                     WHERE tenant_id = p_tenant AND member_id = p_member AND class_no = p_class), 0)
$$;

-- The next points of the debt's funder that become available repay it; returns what they repaid.
CREATE OR REPLACE FUNCTION repay(w cause, p_member uuid, p_class integer, p_points bigint)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_repaid bigint;
BEGIN
    UPDATE debts d SET debt_points = d.debt_points - least(d.debt_points, p_points)
    FROM debts old JOIN point_classes c ON c.tenant_id = w.tenant_id AND c.class_no = p_class AND c.funder = old.funder
    WHERE old.tenant_id = w.tenant_id AND old.member_id = w.owner_id AND old.point_currency = w.point_currency
      AND d.tenant_id = w.tenant_id AND d.member_id = w.owner_id AND d.point_currency = w.point_currency
      AND d.funder = old.funder AND old.debt_points > 0
    RETURNING least(old.debt_points, p_points) INTO v_repaid;
    IF coalesce(v_repaid, 0) = 0 THEN
        RETURN 0;
    END IF;
    UPDATE pools SET consumed_points = consumed_points + v_repaid
    WHERE tenant_id = w.tenant_id AND member_id = p_member AND class_no = p_class;
    PERFORM book(w, NULL, p_member, p_class, pool_end(w.tenant_id, p_member, p_class),
                 10::smallint, 2::smallint, 4::smallint, v_repaid, NULL);
    RETURN v_repaid;
END $$;

-- Adds a lot at the end of its pool: it never expires before the one already there. Returns where the lot ends.
CREATE OR REPLACE FUNCTION post_lot(
    w cause, p_entry uuid, p_member uuid, p_class integer, p_kind smallint, p_source smallint,
    p_points bigint, p_expires timestamptz, OUT end_points bigint, OUT repaid_points bigint
) LANGUAGE plpgsql AS $$
DECLARE
    v_expires timestamptz;
BEGIN
    INSERT INTO pools AS p (tenant_id, member_id, class_no, owner_id, point_currency, earned_points,
                            last_expires_at, next_expires_at)
    VALUES (w.tenant_id, p_member, p_class, w.owner_id, w.point_currency, p_points, p_expires, p_expires)
    ON CONFLICT (tenant_id, member_id, class_no) DO UPDATE SET
        earned_points = p.earned_points + p_points,
        last_expires_at = greatest(p.last_expires_at, p_expires),
        next_expires_at = coalesce(p.next_expires_at, greatest(p.last_expires_at, p_expires))
    RETURNING p.earned_points, p.last_expires_at INTO end_points, v_expires;
    PERFORM book(w, p_entry, p_member, p_class, end_points, p_kind, p_source, 2::smallint, p_points, v_expires);
    -- a tail would not know of this lot
    UPDATE accounts SET due_at = least(due_at, v_expires), tail_class = NULL
    WHERE tenant_id = w.tenant_id AND member_id = w.owner_id AND point_currency = w.point_currency
      AND (due_at IS NULL OR due_at > v_expires OR tail_class IS NOT NULL);
    repaid_points := repay(w, p_member, p_class, p_points);
END $$;

-- Points that lots of the pool ending in (p_after, p_end] have lost to take-backs.
CREATE OR REPLACE FUNCTION holes_between(p_tenant uuid, p_member uuid, p_class integer, p_after bigint, p_end bigint)
RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(points), 0)::bigint FROM holes
    WHERE tenant_id = p_tenant AND member_id = p_member AND class_no = p_class
      AND end_points > p_after AND end_points <= p_end
$$;

-- Posts what is due by business time: pending points mature, then lots past their expiry expire.
CREATE OR REPLACE FUNCTION settle(p_tenant uuid, p_owner uuid, p_currency text, p_now timestamptz)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    w cause;
    e record;
    p record;
    v_end bigint;
    v_floor bigint;
    v_next timestamptz;
BEGIN
    w.tenant_id := p_tenant; w.owner_id := p_owner; w.point_currency := p_currency; w.reason := 'matured';
    FOR e IN
        SELECT earning_id, member_id, class_no, pending_points, matures_at, expires_at, order_id
        FROM earnings
        WHERE tenant_id = p_tenant AND owner_id = p_owner AND point_currency = p_currency
          AND pending_points > 0 AND matures_at <= p_now
        ORDER BY matures_at, earned_version
    LOOP
        w.occurred_at := e.matures_at; w.order_id := e.order_id;
        v_end := (post_lot(w, NULL, e.member_id, e.class_no, 2::smallint, 1::smallint, e.pending_points, e.expires_at)).end_points;
        UPDATE earnings SET pending_points = 0, end_points = v_end
        WHERE tenant_id = p_tenant AND earning_id = e.earning_id;
    END LOOP;
    w.order_id := NULL; w.reason := 'expired';
    FOR p IN
        SELECT member_id, class_no, earned_points, consumed_points, floor_end, floor_points, next_expires_at
        FROM pools
        WHERE tenant_id = p_tenant AND owner_id = p_owner AND point_currency = p_currency AND next_expires_at <= p_now
        ORDER BY member_id, class_no
    LOOP
        -- the first lot that lives on begins where the last expired one ends
        SELECT l.end_points - l.points, l.expires_at INTO v_end, v_next
        FROM entries l
        WHERE l.tenant_id = p_tenant AND l.member_id = p.member_id AND l.class_no = p.class_no
          AND l.end_points > p.floor_end AND l.expires_at > p_now
        ORDER BY l.end_points LIMIT 1;
        IF NOT FOUND THEN
            v_end := p.earned_points; v_next := NULL;
        END IF;
        v_floor := p.floor_points + v_end - p.floor_end
                   - holes_between(p_tenant, p.member_id, p.class_no, p.floor_end, v_end);
        UPDATE pools SET floor_end = v_end, floor_points = v_floor, next_expires_at = v_next,
                         consumed_points = greatest(consumed_points, v_floor)
        WHERE tenant_id = p_tenant AND member_id = p.member_id AND class_no = p.class_no;
        IF v_floor > p.consumed_points THEN
            w.occurred_at := p.next_expires_at;
            PERFORM book(w, NULL, p.member_id, p.class_no, p.earned_points, 8::smallint, 2::smallint, 13::smallint,
                         v_floor - p.consumed_points, NULL);
            INSERT INTO expiries (tenant_id, member_id, class_no, end_points, points)
            VALUES (p_tenant, p.member_id, p.class_no, v_end, v_floor - p.consumed_points);
        END IF;
    END LOOP;
    UPDATE accounts SET due_at = least(
        (SELECT min(matures_at) FROM earnings
         WHERE tenant_id = p_tenant AND owner_id = p_owner AND point_currency = p_currency AND pending_points > 0),
        (SELECT min(next_expires_at) FROM pools
         WHERE tenant_id = p_tenant AND owner_id = p_owner AND point_currency = p_currency)),
        -- a pool without a next expiry would not be told of the next lot's
        tail_class = NULL
    WHERE tenant_id = p_tenant AND member_id = p_owner AND point_currency = p_currency;
END $$;

-- The lots of the owner with something left, as (expires, age, pool, left): what a draw over several pools goes by.
CREATE OR REPLACE FUNCTION live_lots(p_tenant uuid, p_owner uuid, p_currency text)
RETURNS TABLE (expires_at timestamptz, lot_version bigint, member_id uuid, class_no integer, end_points bigint, left_points bigint)
LANGUAGE sql STABLE AS $$
    SELECT l.expires_at, l.account_version, l.member_id, l.class_no, l.end_points,
           least(h.own_end - p.consumed_points, l.points - h.own)
    FROM pools p
    JOIN entries l ON l.tenant_id = p_tenant AND l.member_id = p.member_id AND l.class_no = p.class_no
                  AND l.end_points > p.consumed_points AND l.end_points > p.floor_end AND l.expires_at IS NOT NULL
    -- where the lot ends less the holes up to it, and its own hole
    CROSS JOIN LATERAL (
        SELECT p.floor_points + l.end_points - p.floor_end
               - CASE WHEN p.hole_points = 0 THEN 0
                      ELSE holes_between(p_tenant, p.member_id, p.class_no, p.floor_end, l.end_points) END AS own_end,
               CASE WHEN p.hole_points = 0 THEN 0
                    ELSE holes_between(p_tenant, p.member_id, p.class_no, l.end_points - 1, l.end_points) END AS own
    ) h
    WHERE p.tenant_id = p_tenant AND p.owner_id = p_owner AND p.point_currency = p_currency
      AND h.own_end > p.consumed_points AND l.points > h.own
$$;

-- Takes points from the lots that expire first, over all pools, ties to the older lot, and books them to the target.
-- The account has them. Returns the draws in draw order, neighbours in one pool as one.
CREATE OR REPLACE FUNCTION draw(
    w cause, p_kind smallint, p_target smallint, p_points bigint,
    OUT members uuid[], OUT classes integer[], OUT points bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    l record;
    v_left bigint := p_points;
    v_drawn bigint;
    n integer := 0;
    i integer;
BEGIN
    members := '{}'; classes := '{}'; points := '{}';
    IF p_points = 0 THEN
        RETURN;
    END IF;
    -- one pool: the watermark says it all
    SELECT count(*) AS pools, min(p.member_id::text)::uuid AS member_id, min(p.class_no) AS class_no INTO l
    FROM pools p
    WHERE p.tenant_id = w.tenant_id AND p.owner_id = w.owner_id AND p.point_currency = w.point_currency
      AND p.consumed_points + p.hole_points < p.earned_points;
    IF l.pools = 1 THEN
        members := ARRAY[l.member_id]; classes := ARRAY[l.class_no]; points := ARRAY[p_points];
    ELSE
        FOR l IN
            SELECT t.member_id, t.class_no, t.left_points FROM live_lots(w.tenant_id, w.owner_id, w.point_currency) t
            ORDER BY t.expires_at, t.lot_version
        LOOP
            v_drawn := least(l.left_points, v_left);
            v_left := v_left - v_drawn;
            IF n > 0 AND members[n] = l.member_id AND classes[n] = l.class_no THEN
                points[n] := points[n] + v_drawn;
            ELSE
                n := n + 1;
                members[n] := l.member_id; classes[n] := l.class_no; points[n] := v_drawn;
            END IF;
            EXIT WHEN v_left = 0;
        END LOOP;
        ASSERT v_left = 0, 'the pools hold less than the account says';
    END IF;
    FOR i IN 1 .. cardinality(points) LOOP
        UPDATE pools p SET consumed_points = p.consumed_points + points[i]
        WHERE p.tenant_id = w.tenant_id AND p.member_id = members[i] AND p.class_no = classes[i];
        PERFORM book(w, NULL, members[i], classes[i], pool_end(w.tenant_id, members[i], classes[i]),
                     p_kind, 2::smallint, p_target, points[i], NULL);
    END LOOP;
END $$;

-- How long returned points live whose lot has expired meanwhile, by the programme in force: the rule that names their
-- class, and the end of the last day in the brand's time zone. Before the first version it is as that one says.
CREATE OR REPLACE FUNCTION grace(p_tenant uuid, p_currency text, p_at timestamptz, OUT rule text, OUT expires_at timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT 'days:' || g.days,
           (date_trunc('day', p_at AT TIME ZONE g.zone) + make_interval(days => g.days + 1)) AT TIME ZONE g.zone
    FROM (
        SELECT coalesce((SELECT grace_days FROM programmes
                         WHERE tenant_id = p_tenant AND point_currency = p_currency AND effective_at <= p_at
                         ORDER BY programme_version DESC LIMIT 1),
                        (SELECT grace_days FROM programmes
                         WHERE tenant_id = p_tenant AND point_currency = p_currency
                         ORDER BY effective_at, programme_version LIMIT 1), 30) AS days,
               coalesce((SELECT time_zone FROM tenants WHERE tenant_id = p_tenant), 'Asia/Shanghai') AS zone
    ) g
$$;

-- The number of a class, the same for ever.
CREATE OR REPLACE FUNCTION class_for(p_tenant uuid, p_currency text, p_funder text, p_class text, p_rule text)
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_class integer;
BEGIN
    SELECT class_no INTO v_class FROM point_classes
    WHERE tenant_id = p_tenant AND point_currency = p_currency AND funder = p_funder
      AND expiry_class = p_class AND expiry_rule = p_rule;
    IF FOUND THEN
        RETURN v_class;
    END IF;
    -- numbers are dense per tenant, so makers take turns
    PERFORM pg_advisory_xact_lock(hashtextextended('point_classes:' || p_tenant, 0));
    SELECT class_no INTO v_class FROM point_classes
    WHERE tenant_id = p_tenant AND point_currency = p_currency AND funder = p_funder
      AND expiry_class = p_class AND expiry_rule = p_rule;
    IF NOT FOUND THEN
        INSERT INTO point_classes (tenant_id, class_no, point_currency, funder, expiry_class, expiry_rule)
        SELECT p_tenant, coalesce(max(class_no), 0) + 1, p_currency, p_funder, p_class, p_rule
        FROM point_classes WHERE tenant_id = p_tenant
        RETURNING class_no INTO v_class;
    END IF;
    RETURN v_class;
END $$;

-- Posts points that came back too late for their lot.
CREATE OR REPLACE FUNCTION post_grace(w cause, p_funder text, p_kind smallint, p_source smallint, p_points bigint)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    g record;
BEGIN
    IF p_points > 0 THEN
        g := grace(w.tenant_id, w.point_currency, w.occurred_at);
        PERFORM post_lot(w, NULL, w.owner_id, class_for(w.tenant_id, w.point_currency, p_funder, 'grace', g.rule),
                         p_kind, p_source, p_points, g.expires_at);
    END IF;
END $$;

-- Puts drawn points back where they came from, last drawn first: the earliest lots count as spent.
-- What would land in an expired lot becomes a new lot in the grace class. Returns the draws that remain.
CREATE OR REPLACE FUNCTION put_back(
    w cause, p_kind smallint, p_source smallint, p_points bigint, p_debt_class integer,
    INOUT members uuid[], INOUT classes integer[], INOUT points bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    n integer := cardinality(points);
    v_left bigint := p_points;
    v_returned bigint;
    v_placed bigint;
    v_end bigint;
    v_funder text;
    v_class integer;
BEGIN
    WHILE v_left > 0 LOOP
        ASSERT n > 0, 'more comes back than was drawn';
        v_returned := least(points[n], v_left);
        v_left := v_left - v_returned;
        v_class := CASE WHEN classes[n] = 0 THEN p_debt_class ELSE classes[n] END;
        SELECT funder INTO STRICT v_funder FROM point_classes WHERE tenant_id = w.tenant_id AND class_no = v_class;
        IF classes[n] = 0 THEN
            -- drawn as debt: lowers it; what was repaid meanwhile becomes a new lot
            UPDATE debts d SET debt_points = d.debt_points - least(d.debt_points, v_returned)
            FROM debts old
            WHERE old.tenant_id = w.tenant_id AND old.member_id = w.owner_id
              AND old.point_currency = w.point_currency AND old.funder = v_funder
              AND d.tenant_id = w.tenant_id AND d.member_id = w.owner_id
              AND d.point_currency = w.point_currency AND d.funder = v_funder
            RETURNING least(old.debt_points, v_returned) INTO v_placed;
            v_placed := coalesce(v_placed, 0);
            IF v_placed > 0 THEN
                PERFORM book(w, NULL, w.owner_id, v_class, pool_end(w.tenant_id, w.owner_id, v_class),
                             p_kind, p_source, 4::smallint, v_placed, NULL);
            END IF;
        ELSE
            UPDATE pools p SET consumed_points = p.consumed_points - least(p.consumed_points - p.floor_points, v_returned)
            FROM pools old
            WHERE old.tenant_id = w.tenant_id AND old.member_id = members[n] AND old.class_no = v_class
              AND p.tenant_id = w.tenant_id AND p.member_id = members[n] AND p.class_no = v_class
            RETURNING least(old.consumed_points - old.floor_points, v_returned), p.earned_points
            INTO STRICT v_placed, v_end;
            IF v_placed > 0 THEN
                PERFORM book(w, NULL, members[n], v_class, v_end, p_kind, p_source, 2::smallint, v_placed, NULL);
                PERFORM repay(w, members[n], v_class, v_placed);
            END IF;
        END IF;
        PERFORM post_grace(w, v_funder, p_kind, p_source, v_returned - v_placed);
        IF v_returned = points[n] THEN
            n := n - 1;
            members := members[1:n]; classes := classes[1:n]; points := points[1:n];
        ELSE
            points[n] := points[n] - v_returned;
        END IF;
    END LOOP;
END $$;

-- The member owes points that were funded by the class's funder.
CREATE OR REPLACE FUNCTION owe(w cause, p_class integer, p_kind smallint, p_target smallint, p_points bigint)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO debts AS d (tenant_id, member_id, point_currency, funder, debt_points)
    SELECT w.tenant_id, w.owner_id, w.point_currency, c.funder, p_points
    FROM point_classes c WHERE c.tenant_id = w.tenant_id AND c.class_no = p_class
    ON CONFLICT (tenant_id, member_id, point_currency, funder)
    DO UPDATE SET debt_points = d.debt_points + excluded.debt_points;
    PERFORM book(w, NULL, w.owner_id, p_class, pool_end(w.tenant_id, w.owner_id, p_class),
                 p_kind, 4::smallint, p_target, p_points, NULL);
END $$;

-- What of the lot that ends at `p_end` expired unused, less what was taken back of it since.
-- An expiry ends the life of its pool's points in a row, holes not counted: how many of its last ones up to `end_points`
-- are the lot's? Holes below a floor never change, so the answer is the same whenever it is asked.
CREATE OR REPLACE FUNCTION expired_unused(p_tenant uuid, p_member uuid, p_class integer, p_end bigint)
RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce((
        SELECT greatest(0, least(
            l.points - holes_between(p_tenant, p_member, p_class, p_end - 1, p_end),
            x.points - (x.end_points - p_end - holes_between(p_tenant, p_member, p_class, p_end, x.end_points))
        ))
        -- the first expiry that reached the lot; if the lot's own left nothing and so no row, this one is all behind it
        FROM (
            SELECT end_points, points FROM expiries
            WHERE tenant_id = p_tenant AND member_id = p_member AND class_no = p_class AND end_points >= p_end
            ORDER BY end_points LIMIT 1
        ) x
        JOIN entries l ON l.tenant_id = p_tenant AND l.member_id = p_member AND l.class_no = p_class
                      AND l.end_points = p_end AND l.expires_at IS NOT NULL
    ), 0) - (
        -- what is taken back of it is booked where the lot ends
        SELECT coalesce(sum(points), 0)::bigint FROM entries
        WHERE tenant_id = p_tenant AND member_id = p_member AND class_no = p_class AND end_points = p_end AND source = 13
    )
$$;

-- Takes back what a refunded sale earned: its pending points, then what of its own lot was never spent, left or
-- expired, then the points that expire first, then as debt. Returns the shortfall where debt is forbidden.
CREATE OR REPLACE FUNCTION take_back(w cause, p_earning uuid, p_points bigint, p_debt_allowed boolean)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    e earnings;
    v_reason text := w.reason;
    v_left bigint := p_points;
    v_taken bigint;
BEGIN
    UPDATE earnings SET taken_points = taken_points + p_points,
                        pending_points = pending_points - least(pending_points, p_points)
    WHERE tenant_id = w.tenant_id AND earning_id = p_earning
    RETURNING * INTO STRICT e;
    IF e.end_points IS NULL THEN
        -- not posted: all of it that is not taken yet is pending
        IF p_points > 0 THEN
            PERFORM book(w, NULL, e.member_id, e.class_no, pool_end(w.tenant_id, e.member_id, e.class_no),
                         6::smallint, 1::smallint, 11::smallint, p_points, NULL);
        END IF;
        RETURN 0;
    END IF;
    SELECT least(l.left_points, v_left) INTO v_taken
    FROM live_lots(w.tenant_id, w.owner_id, w.point_currency) l
    WHERE l.member_id = e.member_id AND l.class_no = e.class_no AND l.end_points = e.end_points;
    IF coalesce(v_taken, 0) > 0 THEN
        INSERT INTO holes AS h (tenant_id, member_id, class_no, end_points, points)
        VALUES (w.tenant_id, e.member_id, e.class_no, e.end_points, v_taken)
        ON CONFLICT (tenant_id, member_id, class_no, end_points) DO UPDATE SET points = h.points + excluded.points;
        UPDATE pools SET hole_points = hole_points + v_taken
        WHERE tenant_id = w.tenant_id AND member_id = e.member_id AND class_no = e.class_no;
        PERFORM book(w, NULL, e.member_id, e.class_no, pool_end(w.tenant_id, e.member_id, e.class_no),
                     6::smallint, 2::smallint, 11::smallint, v_taken, NULL);
        v_left := v_left - v_taken;
    END IF;
    v_taken := CASE WHEN v_left = 0 THEN 0
                    ELSE least(expired_unused(w.tenant_id, e.member_id, e.class_no, e.end_points), v_left) END;
    IF v_taken > 0 THEN
        w.reason := w.reason || ': had expired unused';
        PERFORM book(w, NULL, e.member_id, e.class_no, e.end_points, 6::smallint, 13::smallint, 11::smallint, v_taken, NULL);
        w.reason := v_reason;
        v_left := v_left - v_taken;
    END IF;
    SELECT least(available_points, v_left) INTO v_taken FROM accounts
    WHERE tenant_id = w.tenant_id AND member_id = w.owner_id AND point_currency = w.point_currency;
    PERFORM draw(w, 6::smallint, 11::smallint, v_taken);
    v_left := v_left - v_taken;
    IF v_left > 0 AND p_debt_allowed THEN
        PERFORM owe(w, e.class_no, 9::smallint, 11::smallint, v_left);
        RETURN 0;
    ELSIF v_left > 0 THEN
        PERFORM book(w, NULL, e.member_id, e.class_no, pool_end(w.tenant_id, e.member_id, e.class_no),
                     6::smallint, 14::smallint, 11::smallint, v_left, NULL);
    END IF;
    RETURN v_left;
END $$;
