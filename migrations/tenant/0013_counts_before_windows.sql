-- A refusal counts itself before it ends the windows of others. Frozen once merged.

-- Write the entry of a request that was refused to its caller for want of a right. Of one caller and action the first ten
-- in an hour have entries of their own, and all further ones are counted. So the log's growth is bounded, and what is
-- tried once in a while is seen singly. p_entry is as in audit_note_v2.
--
-- The caller's own count comes first: it is the only one that this waits for, and whoever has it may wait for the chain. So
-- the first refusal after the hour still belongs to it.
CREATE FUNCTION audit_refused_v2(p_entry jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    count bigint;
BEGIN
    INSERT INTO audit_refusals AS r (actor_id, action, actor_kind, refusal)
        VALUES ((p_entry ->> 'actor_id')::uuid, p_entry ->> 'action', p_entry ->> 'actor_kind', p_entry ->> 'refusal')
        ON CONFLICT ON CONSTRAINT audit_refusals_pkey DO UPDATE
            SET refused = r.refused + 1, refusal = excluded.refusal, latest_at = clock_timestamp()
        RETURNING r.refused INTO count;
    IF count <= 10 THEN
        PERFORM audit_note_v2(p_entry);
    END IF;
    PERFORM audit_refusals_end_v1();
END $$;

-- Superseded by audit_refused_v2.
CREATE OR REPLACE FUNCTION audit_refused_v1(p_entry jsonb) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT audit_refused_v2(p_entry);
END;

DO $$
BEGIN
    EXECUTE format('GRANT EXECUTE ON FUNCTION audit_refused_v2 TO %I', current_setting('tenant_schemas.tenant_role'));
END $$;
