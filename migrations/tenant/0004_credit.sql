-- Credit: the tenant's policy, who changed which limit, and how old the credit in use is. Frozen once merged.
--
-- More refusals of class WA:
--   WA019 credit_limit_above_policy

-- What the tenant grants, by currency: to a wallet when it is opened, and at most. No row: nothing when it is opened,
-- and no ceiling. A lower ceiling takes no limit away that was given before.
CREATE TABLE credit_policies (
    currency            text        NOT NULL,
    default_limit_minor bigint      NOT NULL,
    max_limit_minor     bigint,
    CONSTRAINT credit_policies_pkey PRIMARY KEY (currency),
    CONSTRAINT credit_policies_currency_is_code CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT credit_policies_default_not_negative CHECK (default_limit_minor >= 0),
    CONSTRAINT credit_policies_default_within_max CHECK (default_limit_minor <= max_limit_minor)
);

-- A policy is no wallet's, and what an operator's command did was no user.
ALTER TABLE audit_log ALTER COLUMN wallet_id DROP NOT NULL;
ALTER TABLE audit_log ALTER COLUMN actor_id DROP NOT NULL;
CREATE INDEX audit_log_at_idx ON audit_log (at) WHERE wallet_id IS NULL;

-- Open the member's wallet with the limit that the policy gives, or return the one there is; `opened` tells which.
CREATE FUNCTION wallet_open_v2(
    p_user_id uuid, p_currency text, p_actor_id uuid, p_request_id text, OUT wallet wallets, OUT opened boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    new_id uuid := gen_random_uuid();
BEGIN
    PERFORM FROM shared.memberships m JOIN shared.tenants t ON t.id = m.tenant_id
        WHERE m.user_id = p_user_id AND t.schema_name = current_schema();
    IF NOT FOUND THEN
        RAISE EXCEPTION 'member_not_found' USING ERRCODE = 'WA008';
    END IF;
    PERFORM FROM shared.tenants t WHERE t.schema_name = current_schema()
        AND (t.settings ->> 'currency' = p_currency OR t.settings -> 'currencies' ? p_currency);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'this tenant has no wallets in %', p_currency USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO wallets (id, user_id, currency, credit_limit_minor, last_hash)
        VALUES (new_id, p_user_id, p_currency,
            coalesce((SELECT p.default_limit_minor FROM credit_policies p WHERE p.currency = p_currency), 0),
            wallet_genesis_hash_v1(new_id, p_user_id, p_currency))
        ON CONFLICT (user_id, currency) DO NOTHING
        RETURNING * INTO wallet;
    opened := FOUND;
    IF NOT opened THEN
        SELECT * INTO wallet FROM wallets w WHERE w.user_id = p_user_id AND w.currency = p_currency;
    ELSIF wallet.credit_limit_minor > 0 THEN
        INSERT INTO audit_log (actor_id, action, wallet_id, before, after, request_id) VALUES (
            p_actor_id, 'wallet.open', wallet.id,
            jsonb_build_object('creditLimitMinor', 0, 'status', wallet.status),
            jsonb_build_object('creditLimitMinor', wallet.credit_limit_minor, 'status', wallet.status),
            p_request_id);
    END IF;
END $$;

-- Change limit and status of the version the caller has seen; null leaves a thing as it is. Logged with before and
-- after in the same db transaction. A limit can be raised up to the policy's ceiling, and lowered to what is used.
CREATE FUNCTION wallet_configure_v2(
    p_wallet_id uuid, p_version integer, p_actor_id uuid, p_credit_limit_minor bigint, p_status text, p_request_id text,
    OUT wallet wallets)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
DECLARE
    old       wallets;
    max_limit bigint;
BEGIN
    SELECT * INTO old FROM wallets w WHERE w.id = p_wallet_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'wallet_not_found' USING ERRCODE = 'WA006';
    END IF;
    IF old.held_minor > 0 THEN
        old.held_minor := holds_let_go_v1(old.id);
    END IF;
    SELECT p.max_limit_minor INTO max_limit FROM credit_policies p WHERE p.currency = old.currency;
    IF old.version IS DISTINCT FROM p_version THEN
        RAISE EXCEPTION 'version_mismatch' USING ERRCODE = 'WA011';
    ELSIF old.status = 'closed' THEN
        RAISE EXCEPTION 'wallet_closed' USING ERRCODE = 'WA003';
    ELSIF old.balance_minor + p_credit_limit_minor - old.held_minor < 0 THEN
        RAISE EXCEPTION 'credit_limit_below_used' USING ERRCODE = 'WA009', DETAIL = jsonb_build_object(
            'currency', old.currency, 'creditUsed', old.credit_used_minor, 'held', old.held_minor);
    ELSIF p_credit_limit_minor > greatest(max_limit, old.credit_limit_minor) AND max_limit IS NOT NULL THEN
        RAISE EXCEPTION 'credit_limit_above_policy' USING ERRCODE = 'WA019', DETAIL = jsonb_build_object(
            'currency', old.currency, 'maxLimit', max_limit, 'required', p_credit_limit_minor);
    ELSIF p_status = 'closed' AND (old.balance_minor <> 0 OR old.held_minor <> 0) THEN
        RAISE EXCEPTION 'wallet_not_empty' USING ERRCODE = 'WA010', DETAIL = jsonb_build_object(
            'currency', old.currency, 'balance', old.balance_minor, 'held', old.held_minor);
    END IF;
    UPDATE wallets w SET
        credit_limit_minor = coalesce(p_credit_limit_minor, w.credit_limit_minor),
        status = coalesce(p_status, w.status),
        version = w.version + 1
        WHERE w.id = p_wallet_id RETURNING * INTO wallet;
    INSERT INTO audit_log (actor_id, action, wallet_id, before, after, request_id) VALUES (
        p_actor_id, 'wallet.configure', p_wallet_id,
        jsonb_build_object('creditLimitMinor', old.credit_limit_minor, 'status', old.status),
        jsonb_build_object('creditLimitMinor', wallet.credit_limit_minor, 'status', wallet.status),
        p_request_id);
END $$;

-- Set what the tenant grants in a currency; logged with before and after.
CREATE FUNCTION credit_policy_set_v1(
    p_currency text, p_default_limit_minor bigint, p_max_limit_minor bigint, p_actor_id uuid, p_request_id text,
    OUT policy credit_policies)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    old credit_policies;
BEGIN
    INSERT INTO credit_policies VALUES (p_currency, 0, NULL) ON CONFLICT (currency) DO NOTHING;
    SELECT * INTO old FROM credit_policies p WHERE p.currency = p_currency FOR UPDATE;
    UPDATE credit_policies p SET default_limit_minor = p_default_limit_minor, max_limit_minor = p_max_limit_minor
        WHERE p.currency = p_currency RETURNING * INTO policy;
    INSERT INTO audit_log (actor_id, action, before, after, request_id)
        VALUES (p_actor_id, 'credit_policy.set', to_jsonb(old), to_jsonb(policy), p_request_id);
END $$;

-- Yesterday's doors lead to today's rooms.
CREATE OR REPLACE FUNCTION wallet_open_v1(p_user_id uuid, p_currency text, OUT wallet wallets, OUT opened boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    answer record;
BEGIN
    answer := wallet_open_v2(p_user_id, p_currency, p_user_id, NULL);
    wallet := answer.wallet;
    opened := answer.opened;
END $$;
CREATE OR REPLACE FUNCTION wallet_configure_v1(
    p_wallet_id uuid, p_version integer, p_actor_id uuid, p_credit_limit_minor bigint, p_status text, p_request_id text,
    OUT wallet wallets)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    wallet := wallet_configure_v2(p_wallet_id, p_version, p_actor_id, p_credit_limit_minor, p_status, p_request_id);
END $$;

-- Who changed the limit of which wallet, from what to what.
CREATE VIEW credit_limit_changes WITH (security_invoker) AS
    SELECT a.id, a.at, a.actor_id, a.action, a.wallet_id, w.currency,
        (a.before ->> 'creditLimitMinor')::bigint AS from_minor, (a.after ->> 'creditLimitMinor')::bigint AS to_minor
    FROM audit_log a JOIN wallets w ON w.id = a.wallet_id
    WHERE a.before -> 'creditLimitMinor' <> a.after -> 'creditLimitMinor';

-- Credit in use, a row for each wallet that uses some, with its age. What repays credit repays the oldest first, as in
-- any ageing of receivables: so what is unpaid are the newest draws, as many as make up what is used. Only the
-- transactions since the balance was last not below zero are read.
CREATE INDEX wallets_credit_used_idx ON wallets (id) WHERE balance_minor < 0;
CREATE VIEW credit_in_use WITH (security_invoker) AS
    SELECT w.id AS wallet_id, w.user_id, w.currency, w.credit_limit_minor, w.credit_used_minor, age.*
    FROM wallets w CROSS JOIN LATERAL (
        SELECT min(u.created_at) AS since,
            coalesce(sum(u.unpaid) FILTER (WHERE u.created_at > now() - interval '30 days'), 0)::bigint
                AS up_to_30_days_minor,
            coalesce(sum(u.unpaid) FILTER (WHERE u.created_at <= now() - interval '30 days'
                AND u.created_at > now() - interval '60 days'), 0)::bigint AS up_to_60_days_minor,
            coalesce(sum(u.unpaid) FILTER (WHERE u.created_at <= now() - interval '60 days'
                AND u.created_at > now() - interval '90 days'), 0)::bigint AS up_to_90_days_minor,
            coalesce(sum(u.unpaid) FILTER (WHERE u.created_at <= now() - interval '90 days'), 0)::bigint
                AS over_90_days_minor
        FROM (
            SELECT d.created_at, least(d.drawn, w.credit_used_minor - coalesce(sum(d.drawn) OVER newer, 0)) AS unpaid
            FROM (
                SELECT t.seq, t.created_at, least(-t.amount_minor, -t.balance_after_minor) AS drawn
                FROM wallet_transactions t
                WHERE t.wallet_id = w.id AND t.amount_minor < 0 AND t.balance_after_minor < 0 AND t.seq > coalesce((
                    SELECT z.seq FROM wallet_transactions z WHERE z.wallet_id = w.id AND z.balance_after_minor >= 0
                    ORDER BY z.seq DESC LIMIT 1), 0)
            ) d
            WINDOW newer AS (ORDER BY d.seq DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
        ) u WHERE u.unpaid > 0
    ) age
    WHERE w.balance_minor < 0;

DO $$
DECLARE
    tenant_role text := current_setting('tenant_schemas.tenant_role');
BEGIN
    EXECUTE format('GRANT SELECT ON credit_policies, credit_limit_changes, credit_in_use TO %I', tenant_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION wallet_open_v2, wallet_configure_v2, credit_policy_set_v1 TO %I',
        tenant_role);
END $$;
