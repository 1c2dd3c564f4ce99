-- Changes of a credit policy name the version that they have seen. Frozen once merged.
--
-- The version is the row's xmin: each change gives another one, and no column has to be kept equal with the audit log.

-- Set what the tenant grants in a currency; logged with before and after. Unless p_version is null, it must be the
-- version of the policy: the xmin of its row, 0 if it was never set.
CREATE FUNCTION credit_policy_set_v2(
    p_currency text, p_version bigint, p_default_limit_minor bigint, p_max_limit_minor bigint, p_actor_id uuid,
    p_request_id text, OUT policy credit_policies, OUT version bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    old credit_policies;
BEGIN
    INSERT INTO credit_policies VALUES (p_currency, 0, NULL) ON CONFLICT (currency) DO NOTHING;
    version := CASE WHEN FOUND THEN 0 END;
    SELECT * INTO old FROM credit_policies p WHERE p.currency = p_currency FOR UPDATE;
    version := coalesce(version, (SELECT p.xmin::text::bigint FROM credit_policies p WHERE p.currency = p_currency));
    IF p_version <> version THEN
        RAISE EXCEPTION 'policy_version_mismatch' USING ERRCODE = 'WA040';
    END IF;
    UPDATE credit_policies p SET default_limit_minor = p_default_limit_minor, max_limit_minor = p_max_limit_minor
        WHERE p.currency = p_currency RETURNING * INTO policy;
    SELECT p.xmin::text::bigint INTO version FROM credit_policies p WHERE p.currency = p_currency;
    INSERT INTO audit_log (actor_id, action, before, after, request_id)
        VALUES (p_actor_id, 'credit_policy.set', to_jsonb(old), to_jsonb(policy), p_request_id);
END $$;

-- Superseded by credit_policy_set_v2.
CREATE OR REPLACE FUNCTION credit_policy_set_v1(
    p_currency text, p_default_limit_minor bigint, p_max_limit_minor bigint, p_actor_id uuid, p_request_id text,
    OUT policy credit_policies)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    policy := (credit_policy_set_v2(
        p_currency, NULL, p_default_limit_minor, p_max_limit_minor, p_actor_id, p_request_id)).policy;
END $$;

DO $$
BEGIN
    EXECUTE format('GRANT EXECUTE ON FUNCTION credit_policy_set_v2 TO %I', current_setting('tenant_schemas.tenant_role'));
END $$;
