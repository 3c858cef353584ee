-- A merge moves what a member has to the survivor by ledger transfer; nothing is recomputed, and no lot changes.

-- Moves the alias's points of one currency. Pools change their owner and keep their name, so lots, holes, earnings and
-- draws stay where they are. Both accounts are entered, and locked.
CREATE OR REPLACE FUNCTION move_account(p_tenant uuid, p_now timestamptz, p_currency text, p_alias uuid, p_survivor uuid)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_from cause;
    v_to cause;
    part record;
    v_version bigint;
BEGIN
    v_from := ROW(p_tenant, p_alias, p_currency, p_now, NULL, 'merged into ' || p_survivor, NULL, NULL);
    v_to := ROW(p_tenant, p_survivor, p_currency, p_now, NULL, 'merged from ' || p_alias, NULL, NULL);
    -- entries of one pool are told apart by version: the survivor's have to be the later ones
    UPDATE accounts SET account_version = greatest(account_version, (
        SELECT account_version + 1000000 FROM accounts
        WHERE tenant_id = p_tenant AND member_id = p_alias AND point_currency = p_currency))
    WHERE tenant_id = p_tenant AND member_id = p_survivor AND point_currency = p_currency;
    FOR part IN
        -- 2 available, 1 pending, 3 held, 4 debt
        SELECT 2::smallint AS bucket, member_id, class_no, earned_points - hole_points - consumed_points AS points
        FROM pools
        WHERE tenant_id = p_tenant AND owner_id = p_alias AND point_currency = p_currency
        UNION ALL
        SELECT 1, member_id, class_no, sum(pending_points)::bigint
        FROM earnings
        WHERE tenant_id = p_tenant AND owner_id = p_alias AND point_currency = p_currency AND pending_points > 0
        GROUP BY member_id, class_no
        UNION ALL
        SELECT 3, d.member_id, CASE WHEN d.class_no = 0 THEN h.debt_class_no ELSE d.class_no END, sum(d.points)::bigint
        FROM holds h CROSS JOIN LATERAL unnest(h.draw_members, h.draw_classes, h.draw_points)
                                        AS d(member_id, class_no, points)
        WHERE h.tenant_id = p_tenant AND h.member_id = p_alias AND h.point_currency = p_currency AND h.state = 1
        GROUP BY 2, 3
        UNION ALL
        SELECT 4, p_alias, (SELECT min(c.class_no) FROM point_classes c
                            WHERE c.tenant_id = p_tenant AND c.point_currency = p_currency AND c.funder = d.funder),
               d.debt_points
        FROM debts d
        WHERE d.tenant_id = p_tenant AND d.member_id = p_alias AND d.point_currency = p_currency
    LOOP
        CONTINUE WHEN part.points = 0;
        PERFORM book(v_from, NULL, part.member_id, part.class_no, pool_end(p_tenant, part.member_id, part.class_no),
                     11::smallint, CASE WHEN part.bucket = 4 THEN 15 ELSE part.bucket END::smallint,
                     CASE WHEN part.bucket = 4 THEN 4 ELSE 15 END::smallint, part.points, NULL);
        PERFORM book(v_to, NULL, part.member_id, part.class_no, pool_end(p_tenant, part.member_id, part.class_no),
                     11::smallint, CASE WHEN part.bucket = 4 THEN 4 ELSE 15 END::smallint,
                     CASE WHEN part.bucket = 4 THEN 15 ELSE part.bucket END::smallint, part.points, NULL);
    END LOOP;
    UPDATE pools SET owner_id = p_survivor
    WHERE tenant_id = p_tenant AND owner_id = p_alias AND point_currency = p_currency;
    UPDATE earnings SET owner_id = p_survivor
    WHERE tenant_id = p_tenant AND owner_id = p_alias AND point_currency = p_currency AND pending_points > 0;
    UPDATE holds SET member_id = p_survivor
    WHERE tenant_id = p_tenant AND member_id = p_alias AND point_currency = p_currency AND state = 1;
    INSERT INTO debts AS d (tenant_id, member_id, point_currency, funder, debt_points)
    SELECT tenant_id, p_survivor, point_currency, funder, debt_points
    FROM debts WHERE tenant_id = p_tenant AND member_id = p_alias AND point_currency = p_currency
    ON CONFLICT (tenant_id, member_id, point_currency, funder)
    DO UPDATE SET debt_points = d.debt_points + excluded.debt_points;
    DELETE FROM debts WHERE tenant_id = p_tenant AND member_id = p_alias AND point_currency = p_currency;
    UPDATE accounts s SET due_at = least(s.due_at, a.due_at)
    FROM accounts a
    WHERE s.tenant_id = p_tenant AND s.member_id = p_survivor AND s.point_currency = p_currency
      AND a.tenant_id = p_tenant AND a.member_id = p_alias AND a.point_currency = p_currency;
    UPDATE accounts SET merged_into = p_survivor, due_at = NULL, tail_class = NULL
    WHERE tenant_id = p_tenant AND member_id = p_alias AND point_currency = p_currency;
    -- one of them owed what the other has
    FOR part IN
        SELECT p.member_id, p.class_no, p.earned_points - p.hole_points - p.consumed_points AS points
        FROM pools p
        JOIN point_classes c ON c.tenant_id = p_tenant AND c.class_no = p.class_no
        JOIN debts d ON d.tenant_id = p_tenant AND d.member_id = p_survivor AND d.point_currency = p_currency
                    AND d.funder = c.funder AND d.debt_points > 0
        WHERE p.tenant_id = p_tenant AND p.owner_id = p_survivor AND p.point_currency = p_currency
          AND p.consumed_points + p.hole_points < p.earned_points
        ORDER BY p.next_expires_at, p.member_id, p.class_no
    LOOP
        PERFORM repay(v_to, part.member_id, part.class_no, part.points);
    END LOOP;
END $$;

-- Enters all accounts of the members in one order: one in each currency that a programme or a member has. Whoever makes
-- a member's first account at this moment is waited for, or waits for us and finds it merged.
-- Returns whose points the members' are now, and the currencies.
CREATE OR REPLACE FUNCTION enter_members(p_tenant uuid, p_now timestamptz, INOUT members uuid[], OUT currencies text[])
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('siyu.tenant', p_tenant::text, true);
    -- first, as an account that is merged is not to be waited for by who has others
    members := survivors_of(p_tenant, members);
    SELECT coalesce(array_agg(point_currency ORDER BY point_currency), '{}') INTO currencies
    FROM (
        SELECT point_currency FROM programmes WHERE tenant_id = p_tenant
        UNION
        SELECT point_currency FROM accounts WHERE tenant_id = p_tenant AND member_id = ANY (members)
    ) every;
    PERFORM enter(p_tenant, p_now, array_agg(x.c), array_agg(x.m))
    FROM (SELECT c, m FROM unnest(currencies) AS c CROSS JOIN unnest(members) AS m) x
    HAVING count(*) > 0;
    members := survivors_of(p_tenant, members);
END $$;

-- Makes `p_alias` another name of `p_survivor`. Returns the currencies whose accounts it united; none if the merge was
-- known.
CREATE OR REPLACE FUNCTION merge_members(p_tenant uuid, p_now timestamptz, p_merge uuid, p_survivor uuid, p_alias uuid)
RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    x record;
    v_currency text;
BEGIN
    x := enter_members(p_tenant, p_now, ARRAY[p_survivor, p_alias]);
    IF x.members[2] <> p_alias OR x.members[1] = p_alias THEN
        RETURN '{}';
    END IF;
    FOREACH v_currency IN ARRAY x.currencies LOOP
        PERFORM move_account(p_tenant, p_now, v_currency, p_alias, x.members[1]);
    END LOOP;
    -- an account of the alias that is made from now on leads to the survivor
    UPDATE aliases SET member_id = x.members[1] WHERE tenant_id = p_tenant AND member_id = p_alias;
    INSERT INTO aliases (tenant_id, alias_id, member_id, merge_id, merged_at)
    VALUES (p_tenant, p_alias, x.members[1], p_merge, p_now);
    RETURN x.currencies;
END $$;
