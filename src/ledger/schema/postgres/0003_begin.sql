-- The ledger of quotas, version 3. A function locks the accounts of a batch and reads them, in one round trip.

-- Returns a row for each account that is locked (what = 6; b1: it was created), and then what the statement of unlocked reads
-- returns. It is VOLATILE, so that each of its statements has a snapshot of its own: the second one sees what the previous
-- holders of the locks have committed. $6 is 'wait', or else 'skip' or 'existing': these skip accounts that other
-- transactions hold.
CREATE FUNCTION quota_begin(text[], timestamptz[], text[], text[], timestamptz, text)
RETURNS TABLE (tenant text, limit_id text, quota_type text, period text, starts timestamptz, ends timestamptz, epoch int8,
    n1 int8, n2 int8, b1 bool, b2 bool, n3 int8, n4 int8, s1 text, s2 text, job text, entry text, order_id uuid,
    fingerprint uuid, id int8, what int8)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    locked int8 := 0;
BEGIN
    what := 6;
    IF $6 = 'wait' THEN
        -- Creates missing accounts, locks the others in their order, and returns those that it created; WHERE false locks
        -- without a new row version.
        FOR tenant, b1 IN
            INSERT INTO quota_account (tenant_id) SELECT t FROM unnest($1::text[]) WITH ORDINALITY AS asked (t, n)
            ORDER BY n ON CONFLICT (tenant_id) DO UPDATE SET tenant_id = EXCLUDED.tenant_id WHERE false
            RETURNING tenant_id, true
        LOOP
            RETURN NEXT;
        END LOOP;
    ELSE
        FOR tenant, b1 IN
            SELECT tenant_id, false FROM quota_account WHERE tenant_id = ANY ($1::text[]) FOR UPDATE SKIP LOCKED
        LOOP
            locked := locked + 1;
            RETURN NEXT;
        END LOOP;
        -- A locked row can be skipped, but not one that another transaction is inserting, which no other can see: the
        -- function waits for that at most 1 ms, the shortest lock time-out.
        IF $6 = 'skip' AND locked < cardinality($1) THEN
            FOR tenant, b1 IN
                WITH added AS (
                    INSERT INTO quota_account (tenant_id) SELECT t FROM unnest($1::text[]) WITH ORDINALITY AS asked (t, n)
                    WHERE NOT EXISTS (SELECT FROM quota_account WHERE tenant_id = t)
                        AND (SELECT set_config('lock_timeout', '1ms', true)) IS NOT NULL
                    ORDER BY n ON CONFLICT (tenant_id) DO NOTHING RETURNING tenant_id)
                SELECT tenant_id, true FROM added
            LOOP
                RETURN NEXT;
            END LOOP;
        END IF;
        IF $6 = 'existing' OR locked < cardinality($1) THEN
            PERFORM set_config('lock_timeout', '500ms', true);
        END IF;
    END IF;
    RETURN QUERY
    WITH clock AS MATERIALIZED (SELECT coalesce($5::timestamptz, clock_timestamp()) AS now),
    accounts AS (SELECT t, since FROM unnest($1::text[], $2::timestamptz[]) AS asked (t, since)),
    jobs AS (SELECT t, j FROM unnest($3::text[], $4::text[]) AS asked (t, j))
    SELECT NULL::text AS tenant, current_setting('synchronous_commit') AS limit_id, NULL::text AS quota_type, NULL::text AS period,
        now AS starts,
        (SELECT sealed_until FROM quota_archive) AS ends, NULL::int8 AS epoch, NULL::int8 AS n1, NULL::int8 AS n2,
        NULL::bool AS b1, NULL::bool AS b2, NULL::int8 AS n3, NULL::int8 AS n4, NULL::text AS s1, NULL::text AS s2,
        NULL::text AS job, NULL::text AS entry, NULL::uuid AS order_id, NULL::uuid AS fingerprint, NULL::int8 AS id,
        0::int8 AS what
    FROM clock
    UNION ALL
    SELECT t, c.limit_id, c.quota_type, c.period, c.window_start, c.window_end, c.epoch, c.used, c.reserved, c.warned, c.untold, NULL,
        NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1
    FROM accounts, clock, LATERAL (
        SELECT * FROM quota_counter WHERE tenant_id = t AND window_end > least(now, since) OFFSET 0) c
    UNION ALL
    SELECT t, g.limit_id, g.quota_type, g.period, g.window_start, g.until, g.epoch, g.id, g.amount, g.ended, NULL, g.used_before,
        g.used_now, g.approver, g.reason, NULL, NULL, NULL, NULL, NULL, 2
    FROM accounts, LATERAL (
        SELECT * FROM quota_grant WHERE tenant_id = t AND (NOT ended OR used_now > 0) OFFSET 0) g
    UNION ALL
    SELECT t, q.limit_id, q.quota_type, q.period, q.window_start, q.until, q.epoch, q.attempt, q.part, NULL, NULL, q.amount, q.granted,
        q.approver, q.reason, j, q.entry, q.order_id, q.fingerprint, q.id, 3
    FROM jobs, LATERAL (
        SELECT * FROM quota_consumption WHERE tenant_id = t AND job_id = j OFFSET 0) q
    UNION ALL
    SELECT t, a.tier, NULL, NULL, a.closed_until, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        NULL, NULL, 4
    FROM accounts, clock, LATERAL (
        SELECT * FROM quota_account WHERE tenant_id = t AND (tier IS NOT NULL OR closed_until > now) OFFSET 0) a
    UNION ALL
    SELECT t, j, NULL, NULL, NULL, u.until, NULL, u.attempt, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        NULL, NULL, 5
    FROM jobs, LATERAL (
        SELECT * FROM quota_unfinished_job WHERE tenant_id = t AND job_id = j OFFSET 0) u;
END $$;
COMMENT ON FUNCTION quota_begin IS 'Locks the accounts of a batch and reads them and its jobs.';
