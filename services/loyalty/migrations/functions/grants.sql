-- Grants outside an order: many callers' in one transaction, each under its request id. Plans are pinned as in batches.sql.

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

-- Posts grants of different members, sorted by member, none of which was answered before, all in one statement. It
-- locks their accounts, in this order, and makes those that are missing. An account keeps the end of the pool that was
-- earned in last, its tail, so that the pool's own row rests until something else asks for it (`fold`).
-- Returns what is available after each; the places of the items that it could not post, since their accounts are not
-- plain (merged, due or owing) or their pool is not the tail; and the places of those whose accounts are new.
-- Its plan is pinned by what statistics are told of a tenant's accounts: n_distinct of accounts.tenant_id, which the
-- revision loyalty_at_once sets.
CREATE OR REPLACE FUNCTION grant_at_once(
    p_tenant uuid, p_now timestamptz, t_clients text[], t_currencies text[], t_classes integer[],
    t_expires timestamptz[], t_reasons text[], t_stores text[], t_channels text[], p_terms smallint[],
    p_requests text[], p_prints bytea[], p_members uuid[], p_entries uuid[], p_points bigint[],
    p_occurred timestamptz[], OUT available bigint[], OUT late integer[], OUT opened integer[]
) LANGUAGE plpgsql SET enable_memoize = off SET enable_material = off SET enable_hashjoin = off AS $$
BEGIN
    WITH item AS (
        MERGE INTO accounts a
        USING unnest(p_members, p_terms, p_requests, p_prints, p_entries, p_points, p_occurred) WITH ORDINALITY
              AS i(member_id, t, request_id, print, entry_id, points, occurred_at, ord)
        ON a.tenant_id = p_tenant AND a.member_id = i.member_id AND a.point_currency = t_currencies[i.t]
        WHEN MATCHED AND a.tail_class = t_classes[i.t] AND a.merged_into IS NULL AND a.debt_points = 0
                     AND (a.due_at > p_now) IS NOT FALSE THEN UPDATE SET
            account_version = a.account_version + 1,
            available_points = a.available_points + i.points,
            tail_end = a.tail_end + i.points,
            -- a late sale never expires before one already posted there
            tail_expires_at = greatest(a.tail_expires_at, t_expires[i.t])
        -- no more than locked
        WHEN MATCHED THEN UPDATE SET account_version = a.account_version
        WHEN NOT MATCHED THEN INSERT (tenant_id, member_id, point_currency, account_version, available_points, due_at,
                                      tail_class, tail_end, tail_expires_at)
            VALUES (p_tenant, i.member_id, t_currencies[i.t], 1, i.points, t_expires[i.t],
                    t_classes[i.t], i.points, t_expires[i.t])
        RETURNING i.*, a.account_version AS version, a.available_points AS left_points, a.tail_end AS end_points,
                  a.tail_expires_at AS expires_at, old.member_id IS NULL AS is_new,
                  old.account_version = a.account_version AS is_late
    ), answered AS (
        INSERT INTO point_requests (tenant_id, client_id, family, request_id, fingerprint, entry_id, available_points,
                                    repaid_points)
        SELECT p_tenant, t_clients[t], 'loyalty.accrue', request_id, print, entry_id, left_points, 0
        FROM item WHERE is_late IS NOT TRUE
    ), written AS (
        INSERT INTO entries (tenant_id, member_id, class_no, end_points, account_version, owner_id, entry_id, kind,
                             source, target, points, expires_at, occurred_at, reason, store_id, channel)
        SELECT p_tenant, member_id, t_classes[t], end_points, version, member_id, entry_id, 1, 11, 2, points,
               expires_at, coalesce(occurred_at, p_now), t_reasons[t], t_stores[t], t_channels[t]
        FROM item WHERE is_late IS NOT TRUE
    )
    SELECT array_agg(left_points ORDER BY ord), array_agg(ord ORDER BY ord) FILTER (WHERE is_late),
           array_agg(ord ORDER BY ord) FILTER (WHERE is_new)
    INTO available, late, opened
    FROM item;
    IF opened IS NOT NULL THEN
        INSERT INTO pools (tenant_id, member_id, class_no, owner_id, point_currency, earned_points, last_expires_at,
                           next_expires_at)
        SELECT p_tenant, p_members[n], t_classes[p_terms[n]], p_members[n], t_currencies[p_terms[n]], p_points[n],
               t_expires[p_terms[n]], t_expires[p_terms[n]]
        FROM unnest(opened) AS n;
    END IF;
END $$;

-- Posts the grants at the places `p_late`, whose accounts are locked already and not merged: what is due there first, and
-- debt repaid.
-- Sets what is available after each; `repaid` is null where nothing was owed.
CREATE OR REPLACE FUNCTION grant_late(
    p_tenant uuid, p_now timestamptz, t_clients text[], t_currencies text[], t_classes integer[],
    t_expires timestamptz[], t_reasons text[], t_stores text[], t_channels text[], p_terms smallint[],
    p_requests text[], p_prints bytea[], p_members uuid[], p_entries uuid[], p_points bigint[],
    p_occurred timestamptz[], p_late integer[], INOUT available bigint[], OUT repaid bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    v_nothing text[] := array_fill(NULL::text, ARRAY[cardinality(p_late)]);
    v_all boolean[] := array_fill(true, ARRAY[cardinality(p_late)]);
    x record;
    v_in record;
    r record;
BEGIN
    SELECT array_agg(p_members[n]) AS members, array_agg(p_entries[n]) AS entries, array_agg(p_points[n]) AS points,
           array_agg(coalesce(p_occurred[n], p_now)) AS occurred, array_agg(t_currencies[p_terms[n]]) AS currencies,
           array_agg(t_classes[p_terms[n]]) AS classes, array_agg(t_expires[p_terms[n]]) AS expires,
           array_agg(t_reasons[p_terms[n]]) AS reasons, array_agg(t_stores[p_terms[n]]) AS stores,
           array_agg(t_channels[p_terms[n]]) AS channels
    INTO x FROM unnest(p_late) AS n;
    v_in := enter(p_tenant, p_now, x.currencies, x.members);
    r := post_points(p_tenant, p_now, v_in.owing, v_all, v_in.members, x.currencies, x.classes, x.entries, x.points,
                     x.expires, NULL, x.occurred, v_nothing, x.reasons, x.stores, x.channels, NULL);
    INSERT INTO point_requests (tenant_id, client_id, family, request_id, fingerprint, entry_id, available_points,
                                repaid_points)
    SELECT p_tenant, t_clients[p_terms[i.n]], 'loyalty.accrue', p_requests[i.n], p_prints[i.n], p_entries[i.n],
           i.left_points, coalesce(i.repaid_points, 0)
    FROM unnest(p_late, r.available, r.repaid) AS i(n, left_points, repaid_points);
    IF r.repaid IS NOT NULL THEN
        repaid := array_fill(0::bigint, ARRAY[cardinality(p_members)]);
    END IF;
    FOR i IN 1 .. cardinality(p_late) LOOP
        available[p_late[i]] := r.available[i];
        IF r.repaid IS NOT NULL THEN
            repaid[p_late[i]] := coalesce(r.repaid[i], 0);
        END IF;
    END LOOP;
END $$;

-- Grants, each under its request id. An item that is not the first of its request in the batch gets the first's verdict.
-- What many items share comes once, as terms (`t_...`), and each item says which are its own (`p_terms`). What is granted
-- is told by one event a partition: protobuf's repeated fields are joined by joining their bytes, and `p_events` has an
-- event id for each partition. Nearly always all items are new: the caller sends each partition's grants joined
-- (`p_told`), and only if some are not, as `again` says or is to be expected, each item's own (`p_partitions`,
-- `p_payloads`).
-- `p_distinct`: no two items are of one member, and they are sorted by member. `p_first` null: all items are; an item
-- that `p_occurred` has no time for happens now. Returns arrays in the order of the items: what is `available` after each or
-- was `before` it; no ids and no `repaid` where all are new and nothing was owed.
--
-- `p_distinct` without payloads: all is written at once, and those whose accounts are not plain (due or owing) after
-- the others; all of it is undone if a request turns out to be known or a member to be merged. Else, and then, what was
-- answered is looked up first. If all accounts are plain, window functions number an account's several items; else they
-- go by `enter` and `post_points`.
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
    v_currencies text[];
    v_plain boolean;
    v_tailed boolean;
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
    IF p_distinct AND p_first IS NULL AND p_payloads IS NULL AND p_now < ALL (t_expires) THEN
        BEGIN
            r := grant_at_once(p_tenant, p_now, t_clients, t_currencies, t_classes, t_expires, t_reasons, t_stores,
                               t_channels, p_terms, p_requests, p_prints, p_members, p_entries, p_points, p_occurred);
            IF (r.opened IS NOT NULL OR r.late IS NOT NULL) AND EXISTS (
                SELECT FROM unnest(r.opened || r.late) AS n CROSS JOIN LATERAL (
                    SELECT FROM aliases WHERE tenant_id = p_tenant AND alias_id = p_members[n] LIMIT 1
                ) l
            ) THEN
                -- all locks go: the survivor's turn may have been before them
                RAISE unique_violation;
            END IF;
            available := r.available;
            IF r.late IS NOT NULL THEN
                x := grant_late(p_tenant, p_now, t_clients, t_currencies, t_classes, t_expires, t_reasons, t_stores,
                                t_channels, p_terms, p_requests, p_prints, p_members, p_entries, p_points, p_occurred,
                                r.late, available);
                available := x.available; repaid := x.repaid;
            END IF;
            PERFORM tell_grants(p_tenant, p_now, p_trace, p_events, p_told);
            again := false;
            RETURN;
        EXCEPTION WHEN unique_violation THEN
            -- some were answered before, or are merged: which, is looked up
            available := NULL; repaid := NULL;
        END;
    END IF;
    v_currencies := (SELECT array_agg(t_currencies[t] ORDER BY ord) FROM unnest(p_terms) WITH ORDINALITY AS i(t, ord));
    v_in := lock_accounts(p_tenant, p_now, v_currencies, p_members);
    v_tailed := v_in.tailed; v_firsts := v_in.firsts; v_rows := v_in.account_rows; v_versions := v_in.versions;
    before := v_in.available;
    v_plain := p_now < ALL (t_expires) AND v_in.due IS NOT TRUE AND NOT v_in.owing AND v_in.members = p_members;
    IF NOT v_plain THEN
        SELECT array_agg(t_classes[t] ORDER BY ord) AS classes, array_agg(t_expires[t] ORDER BY ord) AS expires,
               array_agg(t_reasons[t] ORDER BY ord) AS reasons, array_agg(t_stores[t] ORDER BY ord) AS stores,
               array_agg(t_channels[t] ORDER BY ord) AS channels,
               array_agg(coalesce(occurred_at, p_now) ORDER BY ord) AS occurred
        INTO x FROM unnest(p_terms, p_occurred) WITH ORDINALITY AS i(t, occurred_at, ord);
        v_in := enter(p_tenant, p_now, v_currencies, v_in.members);
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
        r := post_points(p_tenant, p_now, v_in.owing, v_fresh, v_in.members, v_currencies, x.classes, p_entries, p_points,
                         x.expires, NULL, x.occurred, array_fill(NULL::text, ARRAY[cardinality(p_members)]), x.reasons,
                         x.stores, x.channels, NULL);
        available := r.available; repaid := r.repaid; before := NULL;
    ELSE
        IF v_tailed THEN
            PERFORM fold(p_tenant, p_members, v_currencies);
        END IF;
        IF cardinality(v_firsts) < cardinality(p_members) THEN
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
        IF cardinality(entry_ids) IS DISTINCT FROM cardinality(p_requests) THEN
            RAISE serialization_failure USING MESSAGE = 'a refusal was swept after it had been looked up';
        END IF;
    END IF;
END $$;
