-- Refusals of a known form only, and one row that has another form stops no other. Frozen once merged.

-- End the windows of an hour that are over: each with more refusals than have entries of their own gets one entry with the
-- count of the rest. Returns the number of windows. A window that somebody is just counting in is left for the next time.
--
-- The rows here are locked before the log's chain, and nobody who has the chain's lock waits for one.
--
-- As audit_refusals_end_v1, and stops at no row: a refusal of before that is no code becomes `unreadable`.
CREATE FUNCTION audit_refusals_end_v2() RETURNS bigint
    LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    WITH due AS MATERIALIZED (
        SELECT r.actor_id, r.action FROM audit_refusals r
        WHERE r.began_at <= clock_timestamp() - interval '1 hour' FOR UPDATE SKIP LOCKED
    ), ended AS (
        DELETE FROM audit_refusals r USING due d WHERE r.actor_id = d.actor_id AND r.action = d.action
        RETURNING r.actor_id, r.actor_kind, r.action, r.refusal, r.refused, r.began_at, r.latest_at
    ), noted AS (
        INSERT INTO audit_log (actor_id, actor_kind, action, subject, refusal, after)
        SELECT e.actor_id, e.actor_kind, 'requests.refused', e.action,
            CASE WHEN e.refusal ~ '^[a-z0-9_]{1,64}$' THEN e.refusal ELSE 'unreadable' END, jsonb_build_object(
            'counted', e.refused - 10,
            'from', to_char(e.began_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
            'until', to_char(e.latest_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
        FROM ended e WHERE e.refused > 10
    ) SELECT count(*) FROM ended;
$$;

-- Write the entry of a request that was refused to its caller for want of a right. Of one caller and action the first ten
-- in an hour have entries of their own, and all further ones are counted. So the log's growth is bounded, and what is
-- tried once in a while is seen singly. p_entry is as in audit_note_v2.
--
-- The caller's own count comes first: it is the only one that this waits for, and whoever has it may wait for the chain. So
-- the first refusal after the hour still belongs to it.
--
-- As audit_refused_v1, and refuses a refusal that the log would refuse when the window ends: from the eleventh on, no entry
-- is written that would check it. It is no CHECK of the table: rows of before stay as they are, also in a restored tenant.
CREATE FUNCTION audit_refused_v2(p_entry jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    count  bigint;
    action text := p_entry ->> 'action';
    broken text := CASE
        WHEN action !~ '^[a-z][a-z0-9_]*([.][a-z0-9_]+)*$' OR length(action) > 64 THEN 'audit_log_action_is_name'
        WHEN p_entry ->> 'refusal' !~ '^[a-z0-9_]{1,64}$' THEN 'audit_log_refusal_is_code'
        WHEN p_entry ->> 'actor_kind' NOT IN ('user', 'operator', 'api_key', 'system') THEN 'audit_log_actor_kind_known'
    END;
BEGIN
    IF broken IS NOT NULL THEN
        RAISE EXCEPTION 'new row of audit_refusals violates %', broken
            USING ERRCODE = 'check_violation', CONSTRAINT = broken, TABLE = 'audit_refusals';
    END IF;
    INSERT INTO audit_refusals AS r (actor_id, action, actor_kind, refusal)
        VALUES ((p_entry ->> 'actor_id')::uuid, action, p_entry ->> 'actor_kind', p_entry ->> 'refusal')
        ON CONFLICT ON CONSTRAINT audit_refusals_pkey DO UPDATE
            SET refused = r.refused + 1, refusal = excluded.refusal, latest_at = clock_timestamp()
        RETURNING r.refused INTO count;
    IF count <= 10 THEN
        PERFORM audit_note_v2(p_entry);
    END IF;
    PERFORM audit_refusals_end_v2();
END $$;

CREATE OR REPLACE FUNCTION audit_refused_v1(p_entry jsonb) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT audit_refused_v2(p_entry);
END;

CREATE OR REPLACE FUNCTION audit_refusals_end_v1() RETURNS bigint
    LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT audit_refusals_end_v2();
END;

DO $$
BEGIN
    EXECUTE format('GRANT EXECUTE ON FUNCTION audit_refused_v2, audit_refusals_end_v2 TO %I',
        current_setting('tenant_schemas.tenant_role'));
END $$;
