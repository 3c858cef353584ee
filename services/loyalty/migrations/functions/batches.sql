-- Many accounts in one transaction. Statements are separate on purpose: each sees what was committed before the locks.
-- Plans are pinned: with statistics that lag behind (a new tenant, an empty table) the planner reads all of a tenant's
-- rows for every item, which was up to a hundred times slower. A LATERAL with LIMIT 1 is one probe of the primary key
-- whatever the planner thinks, and rows that were read under lock are updated by their ctid: items are `BETWEEN 1 AND
-- 1000000`, which always holds, so that it expects one of them and goes by the ctid even if it takes the table for empty.

-- Makes the accounts that are missing and locks the others, all in one order.
CREATE OR REPLACE FUNCTION open_accounts(p_tenant uuid, p_members uuid[], p_currencies text[]) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO accounts AS a (tenant_id, member_id, point_currency, merged_into)
    SELECT p_tenant, x.m, x.c, l.member_id
    FROM (SELECT DISTINCT m, c FROM unnest(p_members, p_currencies) AS x(m, c)) x
    LEFT JOIN aliases l ON l.tenant_id = p_tenant AND l.alias_id = x.m
    ORDER BY x.m, x.c
    -- no more than locked
    ON CONFLICT (tenant_id, member_id, point_currency) DO UPDATE SET account_version = a.account_version
$$;

-- Whose points the members' are now.
CREATE OR REPLACE FUNCTION survivors_of(p_tenant uuid, p_members uuid[]) RETURNS uuid[] LANGUAGE sql AS $$
    SELECT array_agg(coalesce(l.member_id, x.m) ORDER BY x.ord)
    FROM unnest(p_members) WITH ORDINALITY AS x(m, ord)
    LEFT JOIN LATERAL (
        SELECT member_id FROM aliases WHERE tenant_id = p_tenant AND alias_id = x.m LIMIT 1
    ) l ON true
$$;

-- Locks the members' accounts in one fixed order, by member and currency, makes those that are missing, and follows
-- merges. What was locked before an account turns out to be missing or merged is given up: a new account's or a
-- survivor's turn may have been before it, and who waits must hold nothing that comes later.
-- Returns the members whose accounts they are now; whether one of them is due, owes or has a tail; and the accounts as
-- they are, in the order of their first items (`firsts`).
CREATE OR REPLACE FUNCTION lock_accounts(
    p_tenant uuid, p_now timestamptz, p_currencies text[], INOUT members uuid[], OUT due boolean, OUT owing boolean,
    OUT tailed boolean, OUT firsts bigint[], OUT account_rows tid[], OUT versions bigint[], OUT available bigint[]
)
LANGUAGE plpgsql AS $$
DECLARE
    v_wanted bigint;
    v_found bigint;
    v_merged boolean;
    v_missing boolean := false;
BEGIN
    LOOP
        BEGIN
            IF v_missing THEN
                PERFORM open_accounts(p_tenant, members, p_currencies);
            END IF;
            WITH wanted AS MATERIALIZED (
                SELECT m, c, min(ord) AS ord FROM unnest(members, p_currencies) WITH ORDINALITY AS x(m, c, ord)
                GROUP BY m, c ORDER BY m, c
            ), locked AS MATERIALIZED (
                SELECT w.ord, a.* FROM wanted w CROSS JOIN LATERAL (
                    SELECT ctid AS account_row, account_version, available_points, merged_into, due_at, debt_points,
                           tail_class
                    FROM accounts
                    WHERE tenant_id = p_tenant AND member_id = w.m AND point_currency = w.c
                    LIMIT 1 FOR UPDATE
                ) a
            )
            SELECT (SELECT count(*) FROM wanted), count(*), bool_or(merged_into IS NOT NULL), bool_or(due_at <= p_now),
                   bool_or(debt_points > 0), bool_or(tail_class IS NOT NULL), array_agg(ord ORDER BY ord),
                   array_agg(account_row ORDER BY ord), array_agg(account_version ORDER BY ord),
                   array_agg(available_points ORDER BY ord)
            INTO v_wanted, v_found, v_merged, due, owing, tailed, firsts, account_rows, versions, available
            FROM locked;
            IF v_found < v_wanted OR v_merged THEN
                RAISE SQLSTATE 'SY001';
            END IF;
            RETURN;
        EXCEPTION WHEN SQLSTATE 'SY001' THEN
            v_missing := v_missing OR v_found < v_wanted;
            members := survivors_of(p_tenant, members);
        END;
    END LOOP;
END $$;

-- Gives the pools what their members' accounts have kept of them as tails: what reads pools after it reads all.
CREATE OR REPLACE FUNCTION fold(p_tenant uuid, p_members uuid[], p_currencies text[]) RETURNS void
LANGUAGE sql AS $$
    WITH stale AS MATERIALIZED (
        SELECT x.ord, p.ctid AS pool_row, a.tail_end, a.tail_expires_at
        FROM (
            SELECT m, c, min(ord) AS ord FROM unnest(p_members, p_currencies) WITH ORDINALITY AS x(m, c, ord)
            GROUP BY m, c
        ) x
        CROSS JOIN LATERAL (
            SELECT member_id, tail_class, tail_end, tail_expires_at FROM accounts
            WHERE tenant_id = p_tenant AND member_id = x.m AND point_currency = x.c
            LIMIT 1
        ) a
        CROSS JOIN LATERAL (
            SELECT ctid FROM pools
            WHERE tenant_id = p_tenant AND member_id = a.member_id AND class_no = a.tail_class
              AND earned_points < a.tail_end
            LIMIT 1
        ) p
    )
    UPDATE pools p SET earned_points = s.tail_end, last_expires_at = greatest(p.last_expires_at, s.tail_expires_at)
    FROM stale s
    -- always so: rows are updated by their ctid (see the top)
    WHERE p.tenant_id = p_tenant AND p.ctid = s.pool_row AND s.ord BETWEEN 1 AND 1000000
$$;

-- Locks the members' accounts (`lock_accounts`), folds tails, and posts what is due.
-- Returns the members whose accounts they are now, and whether one of them has debt.
CREATE OR REPLACE FUNCTION enter(
    p_tenant uuid, p_now timestamptz, p_currencies text[], INOUT members uuid[], OUT owing boolean
)
LANGUAGE plpgsql AS $$
DECLARE
    v_locked record;
    v_account record;
BEGIN
    v_locked := lock_accounts(p_tenant, p_now, p_currencies, members);
    members := v_locked.members; owing := v_locked.owing;
    IF v_locked.tailed THEN
        PERFORM fold(p_tenant, members, p_currencies);
    END IF;
    IF v_locked.due THEN
        FOR v_account IN
            SELECT DISTINCT a.member_id, a.point_currency
            FROM unnest(members, p_currencies) AS x(m, c)
            JOIN accounts a ON a.tenant_id = p_tenant AND a.member_id = x.m AND a.point_currency = x.c
            WHERE a.due_at <= p_now
            ORDER BY 1, 2
        LOOP
            PERFORM settle(p_tenant, v_account.member_id, v_account.point_currency, p_now);
        END LOOP;
    END IF;
END $$;

-- Posts earnings of accounts that are entered: pending where `matures` is set and not past, else as lots.
-- Those with `keeps` can be taken back. Returns, item by item, what is available right after and what repaid debt.
CREATE OR REPLACE FUNCTION post_points(
    p_tenant uuid, p_now timestamptz, p_owing boolean, p_post boolean[], p_members uuid[], p_currencies text[], p_classes integer[],
    p_entries uuid[], p_points bigint[], p_expires timestamptz[], p_matures timestamptz[], p_occurred timestamptz[],
    p_orders text[], p_reasons text[], p_stores text[], p_channels text[], p_keeps boolean[],
    OUT versions bigint[], OUT available bigint[], OUT repaid bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    v_slow boolean[];
    v_lot record;
    v_account record;
    w cause;
    i integer;
    v_end bigint;
BEGIN
    IF p_owing THEN
        -- an account with debt repays lot by lot: one item at a time
        SELECT array_agg(a.debt_points > 0 ORDER BY x.ord) INTO v_slow
        FROM unnest(p_members, p_currencies) WITH ORDINALITY AS x(m, c, ord)
        JOIN accounts a ON a.tenant_id = p_tenant AND a.member_id = x.m AND a.point_currency = x.c;
    END IF;

    WITH item AS (
        SELECT x.*, x.matures IS NULL OR x.matures <= p_now AS is_lot
        FROM unnest(p_post, v_slow, p_members, p_currencies, p_classes, p_entries, p_points, p_expires, p_matures,
                    p_occurred, p_orders, p_reasons, p_stores, p_channels, p_keeps) WITH ORDINALITY
             AS x(post, slow, member_id, point_currency, class_no, entry_id, points, expires_at, matures, occurred_at,
                  order_id, reason, store_id, channel, keeps, ord)
        WHERE x.post AND x.slow IS NOT TRUE AND x.ord BETWEEN 1 AND 1000000
    ), placed AS (
        -- where each lot ends in its pool; a late sale never expires before one already posted there
        SELECT i.*, p.ctid AS pool_row,
               coalesce(p.earned_points, 0) + coalesce(sum(i.points) FILTER (WHERE i.is_lot) OVER pool, 0) AS end_points,
               greatest(p.last_expires_at, max(i.expires_at) FILTER (WHERE i.is_lot) OVER pool) AS lot_expires_at
        FROM item i
        LEFT JOIN LATERAL (
            SELECT ctid, earned_points, last_expires_at FROM pools
            WHERE tenant_id = p_tenant AND member_id = i.member_id AND class_no = i.class_no
            LIMIT 1
        ) p ON true
        WINDOW pool AS (PARTITION BY i.member_id, i.point_currency, i.class_no ORDER BY i.ord)
    ), posted AS MATERIALIZED (
        SELECT i.*, a.ctid AS account_row, a.account_version + row_number() OVER account AS version,
               a.available_points
                   + coalesce(sum(i.points) FILTER (WHERE i.is_lot AND i.lot_expires_at > p_now) OVER account, 0)
                   AS left_points
        FROM placed i
        CROSS JOIN LATERAL (
            SELECT ctid, account_version, available_points FROM accounts
            WHERE tenant_id = p_tenant AND member_id = i.member_id AND point_currency = i.point_currency
            LIMIT 1
        ) a
        WINDOW account AS (PARTITION BY i.member_id, i.point_currency ORDER BY i.ord)
    ), written AS (
        INSERT INTO entries (tenant_id, member_id, class_no, end_points, account_version, owner_id, entry_id, kind,
                             source, target, points, expires_at, occurred_at, order_id, reason, store_id, channel)
        SELECT p_tenant, member_id, class_no, end_points, version, member_id, entry_id, 1,
               11, CASE WHEN is_lot THEN 2 ELSE 1 END, points, CASE WHEN is_lot THEN lot_expires_at END,
               occurred_at, order_id, reason, store_id, channel
        FROM posted
    ), kept AS (
        INSERT INTO earnings (tenant_id, earning_id, member_id, class_no, owner_id, point_currency, order_id, points,
                              pending_points, matures_at, expires_at, earned_version, end_points)
        SELECT p_tenant, entry_id, member_id, class_no, member_id, point_currency, order_id, points,
               CASE WHEN is_lot THEN 0 ELSE points END, matures, expires_at, version,
               CASE WHEN is_lot THEN end_points END
        FROM posted WHERE keeps
    ), pooled AS MATERIALIZED (
        SELECT member_id, class_no, point_currency, pool_row, max(end_points) AS earned_points,
               max(lot_expires_at) AS last_expires_at, min(lot_expires_at) AS first_expires_at
        FROM posted WHERE is_lot
        GROUP BY member_id, class_no, point_currency, pool_row
    ), grown AS (
        UPDATE pools p SET earned_points = n.earned_points, last_expires_at = n.last_expires_at,
                           next_expires_at = coalesce(p.next_expires_at, n.first_expires_at)
        FROM pooled n
        WHERE p.tenant_id = p_tenant AND p.ctid = n.pool_row
    ), opened AS (
        INSERT INTO pools (tenant_id, member_id, class_no, owner_id, point_currency, earned_points,
                           last_expires_at, next_expires_at)
        SELECT p_tenant, member_id, class_no, member_id, point_currency, earned_points, last_expires_at, first_expires_at
        FROM pooled WHERE pool_row IS NULL
    ), summed AS (
        SELECT account_row, count(*) AS entries,
               coalesce(sum(points) FILTER (WHERE is_lot), 0) AS lots,
               coalesce(sum(points) FILTER (WHERE NOT is_lot), 0) AS pending,
               min(CASE WHEN is_lot THEN lot_expires_at ELSE matures END) AS due_at,
               count(DISTINCT class_no) FILTER (WHERE is_lot) AS pools, min(class_no) FILTER (WHERE is_lot) AS class_no,
               max(end_points) FILTER (WHERE is_lot) AS end_points,
               max(lot_expires_at) FILTER (WHERE is_lot) AS last_expires_at
        FROM posted GROUP BY account_row
    ), counted AS (
        UPDATE accounts a SET
            account_version = a.account_version + s.entries,
            available_points = a.available_points + s.lots,
            pending_points = a.pending_points + s.pending,
            due_at = least(a.due_at, s.due_at),
            -- the pool that was earned in last is the next tail; pending points leave the one there is
            tail_class = CASE s.pools WHEN 0 THEN a.tail_class WHEN 1 THEN s.class_no END,
            tail_end = coalesce(s.end_points, a.tail_end),
            tail_expires_at = coalesce(s.last_expires_at, a.tail_expires_at)
        FROM summed s
        WHERE a.tenant_id = p_tenant AND a.ctid = s.account_row
    )
    SELECT array_agg(p.version ORDER BY ord), array_agg(p.left_points ORDER BY ord)
    INTO versions, available
    FROM unnest(p_post) WITH ORDINALITY AS every(post, ord) LEFT JOIN posted p USING (ord);

    IF v_slow IS NOT NULL THEN
        repaid := array_fill(0::bigint, ARRAY[cardinality(v_slow)]);
        FOR i IN 1 .. cardinality(v_slow) LOOP
            CONTINUE WHEN NOT v_slow[i] OR NOT p_post[i];
            w := ROW(p_tenant, p_members[i], p_currencies[i], p_occurred[i], p_orders[i], p_reasons[i],
                     p_stores[i], p_channels[i]);
            IF p_matures[i] > p_now THEN
                versions[i] := book(w, p_entries[i], p_members[i], p_classes[i],
                                    pool_end(p_tenant, p_members[i], p_classes[i]), 1::smallint, 11::smallint,
                                    1::smallint, p_points[i], NULL);
                UPDATE accounts SET due_at = least(due_at, p_matures[i])
                WHERE tenant_id = p_tenant AND member_id = p_members[i] AND point_currency = p_currencies[i];
                v_end := NULL;
                repaid[i] := 0;
            ELSE
                SELECT * INTO v_lot FROM post_lot(w, p_entries[i], p_members[i], p_classes[i], 1::smallint,
                                                  11::smallint, p_points[i], p_expires[i]);
                v_end := v_lot.end_points; repaid[i] := v_lot.repaid_points;
                IF p_expires[i] <= p_now THEN
                    PERFORM settle(p_tenant, p_members[i], p_currencies[i], p_now);
                END IF;
            END IF;
            SELECT account_version, available_points INTO v_account FROM accounts
            WHERE tenant_id = p_tenant AND member_id = p_members[i] AND point_currency = p_currencies[i];
            versions[i] := v_account.account_version; available[i] := v_account.available_points;
            IF p_keeps[i] THEN
                INSERT INTO earnings (tenant_id, earning_id, member_id, class_no, owner_id, point_currency, order_id,
                                      points, pending_points, matures_at, expires_at, earned_version, end_points)
                VALUES (p_tenant, p_entries[i], p_members[i], p_classes[i], p_members[i], p_currencies[i], p_orders[i],
                        p_points[i], CASE WHEN v_end IS NULL THEN p_points[i] ELSE 0 END, p_matures[i], p_expires[i],
                        versions[i], v_end);
            END IF;
        END LOOP;
    END IF;

    -- a late item may be past its expiry the moment it is posted
    FOR w IN
        SELECT DISTINCT p_tenant, x.m, x.c, NULL::timestamptz, NULL, NULL, NULL, NULL
        FROM unnest(p_post, p_members, p_currencies, p_expires, p_matures) AS x(post, m, c, e, t)
        WHERE x.post AND x.e <= p_now AND (x.t IS NULL OR x.t <= p_now)
    LOOP
        PERFORM settle(p_tenant, w.owner_id, w.point_currency, p_now);
    END LOOP;
END $$;
