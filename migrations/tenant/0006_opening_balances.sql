-- From balances that were calculated out of orders to balances that are their history. Frozen once merged.

-- What the old system's rows said a member had, and what stands in the ledger as opening for it: a row for each member
-- and currency of the last import. The ledger is the truth; this is the proof that it was reached.
CREATE TABLE reconciliations (
    user_id          uuid        NOT NULL,
    currency         text        NOT NULL,
    calculated_minor bigint      NOT NULL,
    posted_minor     bigint      NOT NULL,
    difference_minor bigint      NOT NULL GENERATED ALWAYS AS (calculated_minor - posted_minor) STORED,
    source_rows      integer     NOT NULL,
    source_hash      text        NOT NULL,   -- of the set of the member's rows, in hexadecimal
    refused_by       text,                   -- the SQLSTATE of what was refused
    compared_at      timestamptz NOT NULL,
    CONSTRAINT reconciliations_pkey PRIMARY KEY (user_id, currency),
    CONSTRAINT reconciliations_currency_is_code CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT reconciliations_source_rows_not_negative CHECK (source_rows >= 0)
);
CREATE INDEX reconciliations_off_idx ON reconciliations (currency, user_id) WHERE difference_minor <> 0;
CREATE INDEX wallet_transactions_opening_idx ON wallet_transactions (wallet_id) WHERE type = 'opening';

-- Open a wallet in the currency for each of these users that has none, with the limit that the policy gives. Users that
-- are not the tenant's members are left out. Returns how many were opened.
CREATE FUNCTION wallets_open_missing_v1(p_user_ids uuid[], p_currency text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    count bigint;
BEGIN
    PERFORM FROM shared.tenants t WHERE t.schema_name = current_schema()
        AND (t.settings ->> 'currency' = p_currency OR t.settings -> 'currencies' ? p_currency);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'this tenant has no wallets in %', p_currency USING ERRCODE = 'invalid_parameter_value';
    END IF;
    WITH missing AS MATERIALIZED (
        SELECT m.user_id, gen_random_uuid() AS wallet_id
        FROM shared.memberships m JOIN shared.tenants t ON t.id = m.tenant_id
        WHERE t.schema_name = current_schema() AND m.user_id = ANY (p_user_ids)
            AND NOT EXISTS (SELECT FROM wallets w WHERE w.user_id = m.user_id AND w.currency = p_currency)
    ), opened AS (
        INSERT INTO wallets (id, user_id, currency, credit_limit_minor, last_hash)
        SELECT m.wallet_id, m.user_id, p_currency, coalesce(p.default_limit_minor, 0),
            wallet_genesis_hash_v1(m.wallet_id, m.user_id, p_currency)
        FROM missing m LEFT JOIN credit_policies p ON p.currency = p_currency
        ORDER BY m.user_id
        ON CONFLICT (user_id, currency) DO NOTHING
        RETURNING id, credit_limit_minor, status
    ), logged AS (
        INSERT INTO audit_log (action, wallet_id, before, after)
        SELECT 'wallet.open', o.id,
            jsonb_build_object('creditLimitMinor', 0, 'status', o.status),
            jsonb_build_object('creditLimitMinor', o.credit_limit_minor, 'status', o.status)
        FROM opened o WHERE o.credit_limit_minor > 0
    ) SELECT count(*) INTO count FROM opened;
    RETURN count;
END $$;

-- Compare calculated balances with the opening transactions that stand, and remember what was found. p_items is an
-- array of objects {user_id, calculated_minor, source_rows, source_hash}, each user once; p_refusals has the SQLSTATE
-- of what was refused, by user. Posts nothing.
CREATE FUNCTION openings_compare_v1(p_items jsonb, p_currency text, p_refusals jsonb DEFAULT '{}')
    RETURNS SETOF reconciliations LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off
BEGIN ATOMIC
    INSERT INTO reconciliations AS r (user_id, currency, calculated_minor, posted_minor, source_rows, source_hash,
            refused_by, compared_at)
        SELECT i.user_id, p_currency, i.calculated_minor, coalesce(stands.posted_minor, 0), i.source_rows,
            i.source_hash, p_refusals ->> i.user_id::text, clock_timestamp()
        FROM jsonb_to_recordset(p_items)
            AS i (user_id uuid, calculated_minor bigint, source_rows integer, source_hash text)
        LEFT JOIN LATERAL (
            SELECT sum(t.amount_minor)::bigint AS posted_minor
            FROM wallets w JOIN wallet_transactions t ON t.wallet_id = w.id AND t.type = 'opening'
            WHERE w.user_id = i.user_id AND w.currency = p_currency) stands ON true
        ORDER BY i.user_id
        ON CONFLICT (user_id, currency) DO UPDATE SET
            calculated_minor = excluded.calculated_minor,
            posted_minor = excluded.posted_minor,
            source_rows = excluded.source_rows,
            source_hash = excluded.source_hash,
            refused_by = excluded.refused_by,
            compared_at = excluded.compared_at
        RETURNING r.*;
END;

-- Bring calculated balances into the ledger; p_items as above. Posted is what a calculated balance differs from the
-- opening transactions that stand, under a key made of their number and the source's hash: the same rows again post
-- nothing, more rows post the difference, and the rows of before post it back.
--
-- A balance is a fact of the old system: a wallet whose limit is lower than the credit it brings gets a limit that just
-- covers it, whatever the policy's ceiling, logged as wallet.import; and when a later import brings it less, it goes down
-- again, to what it was before at the lowest. Without p_raise_limits no limit is touched and such a user is refused
-- instead. Opens what wallets are missing and locks all of them in the order of their ids. With what is found now comes
-- what this call did: what it posted, and whether it raised the limit.
CREATE FUNCTION openings_post_v1(
    p_items jsonb, p_currency text, p_raise_limits boolean,
    OUT reconciled reconciliations, OUT moved_minor bigint, OUT limit_raised boolean)
    RETURNS SETOF record LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
    SET enable_seqscan TO off AS $$
DECLARE
    user_ids uuid[];
    due      jsonb;
    raises   jsonb := '{}';   -- this and the next two by user
    refusals jsonb;
    moved    jsonb;
BEGIN
    SELECT array_agg((i.item ->> 'user_id')::uuid) INTO user_ids FROM jsonb_array_elements(p_items) AS i (item);
    PERFORM wallets_open_missing_v1(user_ids, p_currency);
    PERFORM FROM wallets w WHERE w.user_id = ANY (user_ids) AND w.currency = p_currency
        ORDER BY w.id FOR NO KEY UPDATE;
    PERFORM holds_let_go_v1(w.id) FROM wallets w
        WHERE w.user_id = ANY (user_ids) AND w.currency = p_currency AND w.held_minor > 0;

    SELECT coalesce(jsonb_agg(jsonb_build_object('wallet_id', w.id, 'type', 'opening',
            'amount_minor', i.calculated_minor - stands.posted_minor,
            'idempotency_key', format('opening:%s:%s', stands.count, i.source_hash))), '[]') INTO due
        FROM jsonb_to_recordset(p_items) AS i (user_id uuid, calculated_minor bigint, source_hash text)
        JOIN wallets w ON w.user_id = i.user_id AND w.currency = p_currency
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(t.amount_minor), 0) AS posted_minor, count(*) AS count
            FROM wallet_transactions t WHERE t.wallet_id = w.id AND t.type = 'opening') stands
        WHERE i.calculated_minor <> stands.posted_minor;

    IF p_raise_limits THEN
        WITH short AS MATERIALIZED (
            SELECT w.id, w.status, w.credit_limit_minor, w.held_minor - w.balance_minor::numeric - d.amount_minor AS needed_minor
            FROM jsonb_to_recordset(due) AS d (wallet_id uuid, amount_minor numeric)   -- There is always room in numeric.
            JOIN wallets w ON w.id = d.wallet_id
            WHERE w.status <> 'closed' AND d.amount_minor < 0
                AND d.amount_minor + w.balance_minor + w.credit_limit_minor - w.held_minor < 0
                AND w.held_minor - w.balance_minor::numeric - d.amount_minor <= 9223372036854775807
        ), raised AS (
            UPDATE wallets w SET credit_limit_minor = s.needed_minor, version = w.version + 1
            FROM short s WHERE w.id = s.id RETURNING w.user_id
        ), logged AS (
            INSERT INTO audit_log (action, wallet_id, before, after)
            SELECT 'wallet.import', s.id,
                jsonb_build_object('creditLimitMinor', s.credit_limit_minor, 'status', s.status),
                jsonb_build_object('creditLimitMinor', s.needed_minor, 'status', s.status)
            FROM short s
        ) SELECT coalesce(jsonb_object_agg(r.user_id, true), '{}') INTO raises FROM raised r;
    END IF;

    SELECT coalesce(jsonb_object_agg(w.user_id, p.refused_by) FILTER (WHERE p.refused_by IS NOT NULL), '{}'),
        coalesce(jsonb_object_agg(w.user_id, (p.posted).amount_minor) FILTER (WHERE p.refused_by IS NULL), '{}')
        INTO refusals, moved
        FROM wallet_post_many_v1(due, NULL, NULL, false) p
        JOIN wallets w ON w.id = (due -> (p.item_no - 1) ->> 'wallet_id')::uuid;

    IF p_raise_limits THEN
        WITH lent AS MATERIALIZED (
            SELECT w.id, w.status, w.credit_limit_minor,
                greatest(w.held_minor - w.balance_minor, granted.limit_minor, 0) AS enough_minor
            FROM wallets w
            CROSS JOIN LATERAL (
                SELECT a.action FROM audit_log a
                WHERE a.wallet_id = w.id AND a.before -> 'creditLimitMinor' <> a.after -> 'creditLimitMinor'
                ORDER BY a.at DESC LIMIT 1) latest
            LEFT JOIN LATERAL (
                SELECT (a.after ->> 'creditLimitMinor')::bigint AS limit_minor FROM audit_log a
                WHERE a.wallet_id = w.id AND a.action <> 'wallet.import' ORDER BY a.at DESC LIMIT 1) granted ON true
            WHERE w.user_id = ANY (user_ids) AND w.currency = p_currency AND w.status <> 'closed'
                AND w.credit_limit_minor > 0 AND latest.action = 'wallet.import'
        ), lowered AS (
            UPDATE wallets w SET credit_limit_minor = l.enough_minor, version = w.version + 1
            FROM lent l WHERE w.id = l.id AND l.enough_minor < l.credit_limit_minor
        ) INSERT INTO audit_log (action, wallet_id, before, after)
            SELECT 'wallet.import', l.id,
                jsonb_build_object('creditLimitMinor', l.credit_limit_minor, 'status', l.status),
                jsonb_build_object('creditLimitMinor', l.enough_minor, 'status', l.status)
            FROM lent l WHERE l.enough_minor < l.credit_limit_minor;
    END IF;
    RETURN QUERY SELECT c, coalesce((moved ->> c.user_id::text)::bigint, 0), raises ? c.user_id::text
        FROM openings_compare_v1(p_items, p_currency, refusals) c;
END $$;

DO $$
DECLARE
    tenant_role text := current_setting('tenant_schemas.tenant_role');
BEGIN
    EXECUTE format('GRANT SELECT ON reconciliations TO %I', tenant_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION wallets_open_missing_v1, openings_compare_v1, openings_post_v1 TO %I',
        tenant_role);
END $$;
