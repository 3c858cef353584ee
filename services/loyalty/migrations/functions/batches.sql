-- Many accounts in one transaction. Statements are separate on purpose: each sees what was committed before the locks.
-- Plans are pinned: with statistics that lag behind (a new tenant, an empty table) the planner reads all of a tenant's
-- rows for every item, which was up to a hundred times slower. A LATERAL with LIMIT 1 is one probe of the primary key
-- whatever the planner thinks, and rows that were read under lock are updated by their ctid: items are `BETWEEN 1 AND
-- 1000000`, which always holds, so that it expects one of them and goes by the ctid even if it takes the table for empty.

-- Makes the accounts that are missing, each with the survivor of its member.
CREATE OR REPLACE FUNCTION open_accounts(p_tenant uuid, p_members uuid[], p_currencies text[]) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO accounts (tenant_id, member_id, point_currency, merged_into)
    SELECT p_tenant, x.m, x.c, l.member_id
    FROM (SELECT DISTINCT m, c FROM unnest(p_members, p_currencies) AS x(m, c)) x
    LEFT JOIN aliases l ON l.tenant_id = p_tenant AND l.alias_id = x.m
    ORDER BY x.m, x.c
    ON CONFLICT (tenant_id, member_id, point_currency) DO NOTHING
$$;

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

-- Locks the members' accounts in one fixed order, makes those that are missing, follows merges, folds tails, posts what
-- is due.
-- Returns the members whose accounts they are now, and whether one of them has debt.
CREATE OR REPLACE FUNCTION enter(
    p_tenant uuid, p_now timestamptz, p_currencies text[], INOUT members uuid[], OUT owing boolean
)
LANGUAGE plpgsql AS $$
DECLARE
    v_wanted bigint;
    v_found bigint;
    v_merged boolean;
    v_due boolean;
    v_tailed boolean;
    v_account record;
BEGIN
    LOOP
        BEGIN
            WITH wanted AS MATERIALIZED (
                SELECT DISTINCT m, c FROM unnest(members, p_currencies) AS x(m, c) ORDER BY m, c
            ), locked AS MATERIALIZED (
                SELECT a.* FROM wanted CROSS JOIN LATERAL (
                    SELECT merged_into, due_at, debt_points, tail_class FROM accounts
                    WHERE tenant_id = p_tenant AND member_id = m AND point_currency = c
                    LIMIT 1 FOR UPDATE
                ) a
            )
            SELECT (SELECT count(*) FROM wanted), count(*), bool_or(merged_into IS NOT NULL), bool_or(due_at <= p_now),
                   bool_or(debt_points > 0), bool_or(tail_class IS NOT NULL)
            INTO v_wanted, v_found, v_merged, v_due, owing, v_tailed
            FROM locked;
            IF v_found < v_wanted THEN
                -- the locks go before accounts are made: who waits for a new account must hold no old one
                RAISE SQLSTATE 'SY001';
            END IF;
        EXCEPTION WHEN SQLSTATE 'SY001' THEN
            PERFORM open_accounts(p_tenant, members, p_currencies);
            CONTINUE;
        END;
        EXIT WHEN v_merged IS NOT TRUE;
        SELECT array_agg(coalesce(a.merged_into, x.m) ORDER BY x.ord) INTO members
        FROM unnest(members, p_currencies) WITH ORDINALITY AS x(m, c, ord)
        JOIN accounts a ON a.tenant_id = p_tenant AND a.member_id = x.m AND a.point_currency = x.c;
    END LOOP;
    IF v_tailed THEN
        PERFORM fold(p_tenant, members, p_currencies);
    END IF;
    IF v_due THEN
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
               min(CASE WHEN is_lot THEN lot_expires_at ELSE matures END) AS due_at
        FROM posted GROUP BY account_row
    ), counted AS (
        UPDATE accounts a SET
            account_version = a.account_version + s.entries,
            available_points = a.available_points + s.lots,
            pending_points = a.pending_points + s.pending,
            due_at = least(a.due_at, s.due_at),
            tail_class = NULL
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

-- Tells the grants of each partition together; nothing of a partition that has none.
CREATE OR REPLACE FUNCTION tell_grants(
    p_tenant uuid, p_now timestamptz, p_trace text, p_events uuid[], p_told bytea[]
) RETURNS void LANGUAGE sql AS $$
    INSERT INTO outbox (tenant_id, event_id, type, aggregate_type, aggregate_id, version, partition, payload,
                        occurred_at, trace)
    SELECT p_tenant, e.event_id, 'loyalty.PointsGranted', 'grants', e.event_id::text, 1, e.place - 1, e.payload,
           p_now, p_trace
    FROM unnest(p_events, p_told) WITH ORDINALITY AS e(event_id, payload, place)
    WHERE e.payload IS NOT NULL
$$;

-- Writes grants of different members whose accounts are locked and plain, at `p_rows` and of `p_versions`. An account
-- keeps the end of the pool that was earned in last, its tail, so that the pool's own row rests until something else asks
-- for it (`fold`). `p_ends` and `p_expires` say where each lot ends, and when; no end where the pool is no tail yet.
CREATE OR REPLACE FUNCTION grant_distinct(
    p_tenant uuid, p_now timestamptz, t_currencies text[], t_classes integer[], t_expires timestamptz[],
    t_reasons text[], t_stores text[], t_channels text[], p_terms smallint[], p_members uuid[], p_entries uuid[],
    p_points bigint[], p_occurred timestamptz[], p_rows tid[], p_versions bigint[], p_ends bigint[],
    p_expires timestamptz[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_ends bigint[] := p_ends;
    v_expires timestamptz[] := p_expires;
    r record;
BEGIN
    UPDATE accounts a SET
        account_version = a.account_version + 1,
        available_points = a.available_points + i.points,
        tail_end = coalesce(i.end_points, a.tail_end),
        tail_expires_at = CASE WHEN i.end_points IS NULL THEN a.tail_expires_at ELSE i.expires_at END
    FROM (
        SELECT * FROM unnest(p_rows, p_points, p_ends, p_expires) WITH ORDINALITY
                      AS i(account_row, points, end_points, expires_at, ord)
        WHERE ord BETWEEN 1 AND 1000000
    ) i
    WHERE a.tenant_id = p_tenant AND a.ctid = i.account_row;

    IF array_position(p_ends, NULL) IS NOT NULL THEN
        FOR i IN 1 .. cardinality(p_ends) LOOP
            CONTINUE WHEN p_ends[i] IS NOT NULL;
            INSERT INTO pools AS p (tenant_id, member_id, class_no, owner_id, point_currency, earned_points,
                                    last_expires_at, next_expires_at)
            VALUES (p_tenant, p_members[i], t_classes[p_terms[i]], p_members[i], t_currencies[p_terms[i]], p_points[i],
                    t_expires[p_terms[i]], t_expires[p_terms[i]])
            ON CONFLICT (tenant_id, member_id, class_no) DO UPDATE SET
                earned_points = p.earned_points + excluded.earned_points,
                last_expires_at = greatest(p.last_expires_at, excluded.last_expires_at),
                next_expires_at = coalesce(p.next_expires_at, greatest(p.last_expires_at, excluded.last_expires_at))
            RETURNING p.earned_points, p.last_expires_at INTO r;
            v_ends[i] := r.earned_points; v_expires[i] := r.last_expires_at;
            UPDATE accounts SET
                due_at = least(due_at, r.last_expires_at),
                tail_class = coalesce(tail_class, t_classes[p_terms[i]]),
                tail_end = CASE WHEN tail_class IS NULL THEN r.earned_points ELSE tail_end END,
                tail_expires_at = CASE WHEN tail_class IS NULL THEN r.last_expires_at ELSE tail_expires_at END
            WHERE tenant_id = p_tenant AND member_id = p_members[i] AND point_currency = t_currencies[p_terms[i]];
        END LOOP;
    END IF;

    INSERT INTO entries (tenant_id, member_id, class_no, end_points, account_version, owner_id, entry_id, kind,
                         source, target, points, expires_at, occurred_at, reason, store_id, channel)
    SELECT p_tenant, i.member_id, t_classes[i.t], i.end_points, i.version + 1, i.member_id, i.entry_id, 1,
           11, 2, i.points, i.expires_at, coalesce(i.occurred_at, p_now), t_reasons[i.t], t_stores[i.t],
           t_channels[i.t]
    FROM unnest(p_members, p_terms, p_entries, p_points, p_occurred, p_versions, v_ends, v_expires)
         AS i(member_id, t, entry_id, points, occurred_at, version, end_points, expires_at);
END $$;

-- Grants, each under its request id. An item that is not the first of its request in the batch gets the first's verdict.
-- What many items share comes once, as terms (`t_...`), and each item says which are its own (`p_terms`). What is granted
-- is told by one event a partition: protobuf's repeated fields are joined by joining their bytes, and `p_events` has an
-- event id for each partition. Nearly always all items are new: the caller sends each partition's grants joined
-- (`p_told`), and only if some are not, and `again` says so, each item's own (`p_partitions`, `p_payloads`).
-- `p_distinct`: no two items are of one member, and they are sorted by member. `p_first` null: all items are; an item that
-- `p_occurred` has no time for happens now. Returns arrays in the order of the items: what was available `before` each or,
-- off the short way, is `available` after it; no ids and no `repaid` where all are new and nothing was owed.
--
-- Accounts that are plain (not merged, nothing due, no debt) take short ways, where there is nothing to settle or repay:
-- * `p_distinct` and no request that was answered before: all is written at once (`grant_distinct`), and undone if a
--   request turns out to be known;
-- * else what was answered is looked up, and window functions number an account's several items.
-- All others go by `enter` and `post_points`.
CREATE OR REPLACE FUNCTION accrue(
    p_tenant uuid, p_now timestamptz, p_trace text, t_clients text[], t_currencies text[], t_classes integer[],
    t_expires timestamptz[], t_reasons text[], t_stores text[], t_channels text[],
    p_terms smallint[], p_first boolean[], p_requests text[], p_prints bytea[], p_members uuid[], p_entries uuid[],
    p_points bigint[], p_occurred timestamptz[], p_distinct boolean, p_events uuid[], p_told bytea[],
    p_partitions smallint[], p_payloads bytea[],
    OUT again boolean, OUT reused boolean[], OUT entry_ids uuid[], OUT before bigint[], OUT available bigint[],
    OUT repaid bigint[]
) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan
SET enable_mergejoin = off SET enable_seqscan = off AS $$
DECLARE
    v_plain boolean := false;
    v_wanted bigint;
    v_found bigint;
    v_tailed boolean;
    -- where each item's lot ends in the pool that is its account's tail
    v_ends bigint[];
    -- the accounts in the order of their first items; of all items, where an account has several
    v_firsts bigint[];
    v_rows tid[];
    v_versions bigint[];
    -- what earlier items of the batch add to the item's pool, and the latest expiry so far there
    v_pool_before bigint[];
    v_expires timestamptz[];
    v_fresh boolean[];
    v_all_fresh boolean;
    v_in record;
    x record;
    r record;
BEGIN
    PERFORM set_config('siyu.tenant', p_tenant::text, true);
    WHILE p_now < ALL (t_expires) LOOP
        BEGIN
          -- in one fixed order: two batches must not deadlock
          IF p_distinct THEN
            v_wanted := cardinality(p_members);
            SELECT count(*), bool_and(a.is_plain), bool_or(a.tail_class IS NOT NULL), array_agg(a.account_row),
                   array_agg(a.account_version), array_agg(a.available_points),
                   array_agg(CASE WHEN a.tail_class = t_classes[i.t] THEN a.tail_end + i.points END),
                   -- a late sale never expires before one already posted there
                   array_agg(greatest(a.tail_expires_at, t_expires[i.t]))
            INTO v_found, v_plain, v_tailed, v_rows, v_versions, before, v_ends, v_expires
            FROM unnest(p_members, p_terms, p_points) AS i(m, t, points) CROSS JOIN LATERAL (
                SELECT ctid AS account_row, account_version, available_points, tail_class, tail_end, tail_expires_at,
                       merged_into IS NULL AND debt_points = 0 AND (due_at > p_now) IS NOT FALSE AS is_plain
                FROM accounts
                WHERE tenant_id = p_tenant AND member_id = i.m AND point_currency = t_currencies[i.t]
                LIMIT 1 FOR UPDATE
            ) a;
          ELSE
            WITH wanted AS MATERIALIZED (
                SELECT m, c, min(ord) AS ord
                FROM (SELECT m, t_currencies[t] AS c, ord FROM unnest(p_members, p_terms) WITH ORDINALITY AS i(m, t, ord)) i
                GROUP BY m, c ORDER BY m, c
            ), locked AS MATERIALIZED (
                SELECT w.ord, a.* FROM wanted w CROSS JOIN LATERAL (
                    SELECT ctid AS account_row, account_version, available_points,
                           merged_into IS NULL AND debt_points = 0 AND (due_at > p_now) IS NOT FALSE AS is_plain,
                           tail_class IS NOT NULL AS is_tailed
                    FROM accounts
                    WHERE tenant_id = p_tenant AND member_id = w.m AND point_currency = w.c
                    LIMIT 1 FOR UPDATE
                ) a
            )
            SELECT (SELECT count(*) FROM wanted), count(*), bool_and(is_plain), array_agg(ord ORDER BY ord),
                   array_agg(account_row ORDER BY ord), array_agg(account_version ORDER BY ord),
                   array_agg(available_points ORDER BY ord), bool_or(is_tailed)
            INTO v_wanted, v_found, v_plain, v_firsts, v_rows, v_versions, before, v_tailed
            FROM locked;
          END IF;
          IF v_found < v_wanted THEN
            -- the locks go before accounts are made: who waits for a new account must hold no old one
            RAISE SQLSTATE 'SY001';
          END IF;
          EXIT;
        EXCEPTION WHEN SQLSTATE 'SY001' THEN
            PERFORM open_accounts(p_tenant, p_members, (SELECT array_agg(t_currencies[t] ORDER BY ord)
                                                        FROM unnest(p_terms) WITH ORDINALITY AS i(t, ord)));
        END;
    END LOOP;
    IF p_distinct AND p_first IS NULL AND v_plain THEN
        BEGIN
            INSERT INTO point_requests (tenant_id, client_id, family, request_id, fingerprint, entry_id,
                                        available_points, repaid_points)
            SELECT p_tenant, t_clients[i.t], 'loyalty.accrue', i.request_id, i.print, i.entry_id, i.before + i.points, 0
            FROM unnest(p_terms, p_requests, p_prints, p_entries, p_points, before)
                 AS i(t, request_id, print, entry_id, points, before);
            PERFORM grant_distinct(p_tenant, p_now, t_currencies, t_classes, t_expires, t_reasons, t_stores, t_channels,
                                   p_terms, p_members, p_entries, p_points, p_occurred, v_rows, v_versions, v_ends,
                                   v_expires);
            PERFORM tell_grants(p_tenant, p_now, p_trace, p_events, p_told);
            again := false;
            RETURN;
        EXCEPTION WHEN unique_violation THEN
            NULL; -- some were answered before: which, is looked up
        END;
    END IF;
    v_expires := NULL;
    IF NOT v_plain THEN
        SELECT array_agg(t_currencies[t] ORDER BY ord) AS currencies, array_agg(t_classes[t] ORDER BY ord) AS classes,
               array_agg(t_expires[t] ORDER BY ord) AS expires, array_agg(t_reasons[t] ORDER BY ord) AS reasons,
               array_agg(t_stores[t] ORDER BY ord) AS stores, array_agg(t_channels[t] ORDER BY ord) AS channels,
               array_agg(coalesce(occurred_at, p_now) ORDER BY ord) AS occurred
        INTO x FROM unnest(p_terms, p_occurred) WITH ORDINALITY AS i(t, occurred_at, ord);
        v_in := enter(p_tenant, p_now, x.currencies, p_members);
    END IF;

    SELECT array_agg(i.is_first IS NOT FALSE AND q.request_id IS NULL ORDER BY i.ord),
           bool_and(i.is_first IS NOT FALSE AND q.request_id IS NULL)
    INTO v_fresh, v_all_fresh
    FROM unnest(p_first, p_terms, p_requests) WITH ORDINALITY AS i(is_first, t, request_id, ord)
    LEFT JOIN LATERAL (
        SELECT request_id FROM point_requests
        WHERE tenant_id = p_tenant AND client_id = t_clients[i.t] AND family = 'loyalty.accrue'
          AND request_id = i.request_id
        LIMIT 1
    ) q ON true;
    again := NOT v_all_fresh AND p_payloads IS NULL;
    IF again THEN
        RETURN;
    END IF;

    IF NOT v_plain THEN
        r := post_points(p_tenant, p_now, v_in.owing, v_fresh, v_in.members, x.currencies, x.classes, p_entries, p_points,
                         x.expires, NULL, x.occurred, array_fill(NULL::text, ARRAY[cardinality(p_members)]), x.reasons,
                         x.stores, x.channels, NULL);
        available := r.available; repaid := r.repaid; before := NULL;
    ELSE
        IF v_tailed THEN
            PERFORM fold(p_tenant, p_members, (SELECT array_agg(t_currencies[t] ORDER BY ord)
                                               FROM unnest(p_terms) WITH ORDINALITY AS i(t, ord)));
        END IF;
        IF v_wanted < cardinality(p_members) THEN
            SELECT array_agg(a.account_row ORDER BY i.ord), array_agg(a.version + i.nth - 1 ORDER BY i.ord),
                   array_agg(a.before + i.account_points - i.points ORDER BY i.ord),
                   array_agg(i.pool_points - i.points ORDER BY i.ord), array_agg(i.expires_at ORDER BY i.ord)
            INTO v_rows, v_versions, before, v_pool_before, v_expires
            FROM (
                SELECT i.ord, i.points, first_value(i.ord) OVER account AS first_ord,
                       count(*) FILTER (WHERE i.fresh) OVER account AS nth,
                       sum(i.points) FILTER (WHERE i.fresh) OVER account AS account_points,
                       sum(i.points) FILTER (WHERE i.fresh) OVER pool AS pool_points,
                       max(t_expires[i.t]) FILTER (WHERE i.fresh) OVER pool AS expires_at
                FROM unnest(v_fresh, p_members, p_terms, p_points) WITH ORDINALITY AS i(fresh, m, t, points, ord)
                WINDOW account AS (PARTITION BY i.m, t_currencies[i.t] ORDER BY i.ord),
                       pool AS (PARTITION BY i.m, t_classes[i.t] ORDER BY i.ord)
            ) i
            JOIN unnest(v_firsts, v_rows, v_versions, before) AS a(first_ord, account_row, version, before)
                 USING (first_ord);
        END IF;

        WITH item AS MATERIALIZED (
            SELECT i.*, t_classes[i.t] AS class_no, p.ctid AS pool_row,
                   coalesce(p.earned_points, 0) + coalesce(i.pool_before, 0) + i.points AS end_points,
                   -- a late sale never expires before one already posted there
                   greatest(p.last_expires_at, i.expires_at, t_expires[i.t]) AS lot_expires_at
            FROM unnest(v_fresh, p_members, p_terms, p_entries, p_points, p_occurred, v_rows, v_versions,
                        v_pool_before, v_expires) WITH ORDINALITY
                 AS i(fresh, member_id, t, entry_id, points, occurred_at, account_row, version,
                      pool_before, expires_at, ord)
            LEFT JOIN LATERAL (
                SELECT ctid, earned_points, last_expires_at FROM pools
                WHERE tenant_id = p_tenant AND member_id = i.member_id AND class_no = t_classes[i.t]
                LIMIT 1
            ) p ON true
            WHERE i.fresh AND i.ord BETWEEN 1 AND 1000000
        ), written AS (
            INSERT INTO entries (tenant_id, member_id, class_no, end_points, account_version, owner_id, entry_id, kind,
                                 source, target, points, expires_at, occurred_at, reason, store_id, channel)
            SELECT p_tenant, member_id, class_no, end_points, version + 1, member_id, entry_id, 1,
                   11, 2, points, lot_expires_at, coalesce(occurred_at, p_now), t_reasons[t], t_stores[t], t_channels[t]
            FROM item
        ), pooled AS MATERIALIZED (
            SELECT member_id, class_no, t_currencies[min(t)] AS point_currency, pool_row,
                   max(end_points) AS earned_points, max(lot_expires_at) AS last_expires_at,
                   min(lot_expires_at) AS first_expires_at
            FROM item
            GROUP BY member_id, class_no, pool_row
        ), grown AS (
            UPDATE pools p SET earned_points = n.earned_points, last_expires_at = n.last_expires_at,
                               next_expires_at = coalesce(p.next_expires_at, n.first_expires_at)
            FROM pooled n
            WHERE p.tenant_id = p_tenant AND p.ctid = n.pool_row
        ), opened AS (
            INSERT INTO pools (tenant_id, member_id, class_no, owner_id, point_currency, earned_points,
                               last_expires_at, next_expires_at)
            SELECT p_tenant, member_id, class_no, member_id, point_currency, earned_points, last_expires_at,
                   first_expires_at
            FROM pooled WHERE pool_row IS NULL
        )
        UPDATE accounts a SET
            account_version = s.version + 1,
            available_points = a.available_points + s.points,
            due_at = least(a.due_at, s.due_at),
            tail_class = CASE WHEN s.pools = 1 THEN s.class_no END,
            tail_end = s.end_points,
            tail_expires_at = s.last_expires_at
        FROM (
            SELECT account_row, max(version) AS version, sum(points) AS points, min(lot_expires_at) AS due_at,
                   count(DISTINCT class_no) AS pools, min(class_no) AS class_no, max(end_points) AS end_points,
                   max(lot_expires_at) AS last_expires_at
            FROM item GROUP BY account_row
        ) s
        WHERE a.tenant_id = p_tenant AND a.ctid = s.account_row;
    END IF;

    INSERT INTO point_requests (tenant_id, client_id, family, request_id, fingerprint, entry_id, available_points,
                                repaid_points)
    SELECT p_tenant, t_clients[i.t], 'loyalty.accrue', i.request_id, i.print, i.entry_id,
           coalesce(i.before + i.points, i.left_points), coalesce(i.repaid_points, 0)
    FROM unnest(v_fresh, p_terms, p_requests, p_prints, p_entries, p_points, before, available, repaid)
         AS i(fresh, t, request_id, print, entry_id, points, before, left_points, repaid_points)
    WHERE i.fresh;

    IF v_all_fresh THEN
        PERFORM tell_grants(p_tenant, p_now, p_trace, p_events, p_told);
    ELSE
        INSERT INTO outbox (tenant_id, event_id, type, aggregate_type, aggregate_id, version, partition, payload,
                            occurred_at, trace)
        SELECT p_tenant, p_events[i.partition + 1], 'loyalty.PointsGranted', 'grants',
               p_events[i.partition + 1]::text, 1, i.partition, string_agg(i.payload, ''::bytea ORDER BY i.ord),
               p_now, p_trace
        FROM unnest(v_fresh, p_partitions, p_payloads) WITH ORDINALITY AS i(fresh, partition, payload, ord)
        WHERE i.fresh
        GROUP BY i.partition;

        before := NULL;
        SELECT array_agg(q.fingerprint <> i.print ORDER BY i.ord), array_agg(q.entry_id ORDER BY i.ord),
               array_agg(q.available_points ORDER BY i.ord), array_agg(q.repaid_points ORDER BY i.ord)
        INTO reused, entry_ids, available, repaid
        FROM unnest(p_terms, p_requests, p_prints) WITH ORDINALITY AS i(t, request_id, print, ord)
        CROSS JOIN LATERAL (
            SELECT fingerprint, entry_id, available_points, repaid_points FROM point_requests
            WHERE tenant_id = p_tenant AND client_id = t_clients[i.t] AND family = 'loyalty.accrue'
              AND request_id = i.request_id
            LIMIT 1
        ) q;
    END IF;
END $$;
