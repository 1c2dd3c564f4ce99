-- Wallets that are shown before they are opened, and the indexes of lists that screens need. Frozen once merged.

-- The id of a member's wallet in a currency, before and after it is opened: a UUID of version 8 (RFC 9562) made of the
-- tenant, the member and the currency. Wallets that were opened before revision 0013 keep their random ids.
CREATE FUNCTION wallet_id_v1(p_tenant_id uuid, p_user_id uuid, p_currency text) RETURNS uuid LANGUAGE sql STABLE
RETURN overlay(overlay(encode(
    substring(sha256(uuid_send(p_tenant_id) || uuid_send(p_user_id) || convert_to(p_currency, 'UTF8')) FOR 16),
    'hex') PLACING '8' FROM 13) PLACING '8' FROM 17)::uuid;

-- What a member's wallet would have of its own if it were opened now. Writes nothing. No row if the tenant has no such
-- currency. No row of wallets: a statement that was planned before a column was added would expect another one.
CREATE FUNCTION wallet_unopened_v1(
    p_user_id uuid, p_currency text, OUT id uuid, OUT credit_limit_minor bigint, OUT last_hash bytea)
    RETURNS SETOF record LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT w.id,
        coalesce((SELECT p.default_limit_minor FROM credit_policies p WHERE p.currency = p_currency), 0),
        wallet_genesis_hash_v1(w.id, p_user_id, p_currency)
    FROM shared.tenants t
    CROSS JOIN LATERAL (SELECT wallet_id_v1(t.id, p_user_id, p_currency) AS id) w
    WHERE t.schema_name = current_schema()
        AND (t.settings ->> 'currency' = p_currency OR t.settings -> 'currencies' ? p_currency);
END;

-- Open the member's wallet as wallet_unopened_v1 shows it, or return the one there is; `opened` tells which.
CREATE FUNCTION wallet_open_v3(
    p_user_id uuid, p_currency text, p_actor_id uuid, p_request_id text, OUT wallet wallets, OUT opened boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    unopened record;
BEGIN
    PERFORM FROM shared.memberships m JOIN shared.tenants t ON t.id = m.tenant_id
        WHERE m.user_id = p_user_id AND t.schema_name = current_schema();
    IF NOT FOUND THEN
        RAISE EXCEPTION 'member_not_found' USING ERRCODE = 'WA008';
    END IF;
    SELECT * INTO unopened FROM wallet_unopened_v1(p_user_id, p_currency);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'this tenant has no wallets in %', p_currency USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO wallets (id, user_id, currency, credit_limit_minor, last_hash)
        VALUES (unopened.id, p_user_id, p_currency, unopened.credit_limit_minor, unopened.last_hash)
        ON CONFLICT DO NOTHING   -- Of the key or of the id: two at once have the same.
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

-- Superseded by wallet_open_v3.
CREATE OR REPLACE FUNCTION wallet_open_v2(
    p_user_id uuid, p_currency text, p_actor_id uuid, p_request_id text, OUT wallet wallets, OUT opened boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    answer record;
BEGIN
    answer := wallet_open_v3(p_user_id, p_currency, p_actor_id, p_request_id);
    wallet := answer.wallet;
    opened := answer.opened;
END $$;

-- Insert a wallet in the currency for each of these users that has none, with the limit that the policy gives. Users
-- that are not the tenant's members are left out. Returns the new rows. It writes no audit entry: the caller does that
-- when it has locked all wallets that it needs.
CREATE FUNCTION wallets_insert_missing_v1(p_user_ids uuid[], p_currency text) RETURNS SETOF wallets
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM FROM shared.tenants t WHERE t.schema_name = current_schema()
        AND (t.settings ->> 'currency' = p_currency OR t.settings -> 'currencies' ? p_currency);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'this tenant has no wallets in %', p_currency USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN QUERY
    WITH missing AS MATERIALIZED (
        SELECT m.user_id, wallet_id_v1(m.tenant_id, m.user_id, p_currency) AS wallet_id
        FROM shared.memberships m JOIN shared.tenants t ON t.id = m.tenant_id
        WHERE t.schema_name = current_schema() AND m.user_id = ANY (p_user_ids)
            AND NOT EXISTS (SELECT FROM wallets w WHERE w.user_id = m.user_id AND w.currency = p_currency)
    )
    INSERT INTO wallets AS opened (id, user_id, currency, credit_limit_minor, last_hash)
        SELECT m.wallet_id, m.user_id, p_currency, coalesce(p.default_limit_minor, 0),
            wallet_genesis_hash_v1(m.wallet_id, m.user_id, p_currency)
        FROM missing m LEFT JOIN credit_policies p ON p.currency = p_currency
        ORDER BY m.user_id
        ON CONFLICT DO NOTHING
        RETURNING opened.*;
END $$;

-- Open a wallet in the currency for each of these users that has none. Returns how many were opened.
CREATE FUNCTION wallets_open_missing_v2(p_user_ids uuid[], p_currency text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    count bigint;
BEGIN
    WITH opened AS MATERIALIZED (
        SELECT w.id, w.credit_limit_minor, w.status FROM wallets_insert_missing_v1(p_user_ids, p_currency) w
    ), logged AS (
        INSERT INTO audit_log (action, wallet_id, before, after)
        SELECT 'wallet.open', o.id,
            jsonb_build_object('creditLimitMinor', 0, 'status', o.status),
            jsonb_build_object('creditLimitMinor', o.credit_limit_minor, 'status', o.status)
        FROM opened o WHERE o.credit_limit_minor > 0
    ) SELECT count(*) INTO count FROM opened;
    RETURN count;
END $$;

-- Superseded by wallets_open_missing_v2.
CREATE OR REPLACE FUNCTION wallets_open_missing_v1(p_user_ids uuid[], p_currency text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    RETURN wallets_open_missing_v2(p_user_ids, p_currency);
END $$;

-- As openings_post_v2, which it calls, after it has opened the missing wallets with the ids that their members may have
-- seen. It locks all wallets before its first entry takes the lock of the audit log's chain.
CREATE FUNCTION openings_post_v3(
    p_items jsonb, p_currency text, p_raise_limits boolean,
    OUT reconciled reconciliations, OUT moved_minor bigint, OUT limit_raised boolean)
    RETURNS SETOF record LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
    SET enable_seqscan TO off AS $$
DECLARE
    user_ids constant uuid[] := ARRAY(SELECT (i.item ->> 'user_id')::uuid FROM jsonb_array_elements(p_items) AS i (item));
    opened   jsonb;
BEGIN
    SELECT coalesce(jsonb_agg(to_jsonb(w)) FILTER (WHERE w.credit_limit_minor > 0), '[]') INTO opened
        FROM wallets_insert_missing_v1(user_ids, p_currency) w;
    PERFORM FROM wallets w WHERE w.user_id = ANY (user_ids) AND w.currency = p_currency
        ORDER BY w.id FOR NO KEY UPDATE;
    INSERT INTO audit_log (action, wallet_id, before, after)
        SELECT 'wallet.open', o.id,
            jsonb_build_object('creditLimitMinor', 0, 'status', o.status),
            jsonb_build_object('creditLimitMinor', o.credit_limit_minor, 'status', o.status)
        FROM jsonb_to_recordset(opened) AS o (id uuid, credit_limit_minor bigint, status text);
    RETURN QUERY SELECT p.reconciled, p.moved_minor, p.limit_raised
        FROM openings_post_v2(p_items, p_currency, p_raise_limits) p;
END $$;

------------------------------------------------------------------------------------------------------------------------
-- Indexes of the tenant's lists
------------------------------------------------------------------------------------------------------------------------

-- Orders and holds of all wallets, newest first, and those of one status, which may be rare.
CREATE INDEX orders_created_at_id_idx ON orders (created_at, id);
CREATE INDEX orders_cancelled_created_at_id_idx ON orders (created_at, id) WHERE status = 'cancelled';
CREATE INDEX holds_created_at_id_idx ON holds (created_at, id);
CREATE INDEX holds_status_created_at_id_idx ON holds (status, created_at, id);

-- In the audit log, `at` and `seq` grow together: this index finds the numbers of a period. It also finds the changes
-- of policies by time, as the index of 0004 did, which had the entries without a wallet only.
CREATE INDEX audit_log_at_seq_idx ON audit_log (at, seq);
DROP INDEX audit_log_at_idx;

DO $$
DECLARE
    tenant_role text := current_setting('tenant_schemas.tenant_role');
BEGIN
    EXECUTE format('GRANT EXECUTE ON FUNCTION wallet_unopened_v1, wallet_open_v3, wallets_open_missing_v2,'
        ' openings_post_v3 TO %I', tenant_role);
END $$;
