-- The audit log becomes one chain, and says who asked from where, and what was refused. Frozen once merged.

-- `actor_kind` says what the actor is. `subject` says what it was done to, if not only to a wallet. `refusal` is the code
-- of what was refused; null is done.
ALTER TABLE audit_log ADD COLUMN seq bigint;
ALTER TABLE audit_log ADD COLUMN actor_kind text;
ALTER TABLE audit_log ADD COLUMN subject text;
ALTER TABLE audit_log ADD COLUMN address text;
ALTER TABLE audit_log ADD COLUMN refusal text;
ALTER TABLE audit_log ADD COLUMN hash bytea;
ALTER TABLE audit_log ALTER COLUMN before DROP NOT NULL;
ALTER TABLE audit_log ALTER COLUMN after DROP NOT NULL;

-- The head of the chain. Its row is locked from a db transaction's first entry to its end, and so is the last lock that
-- a posting takes: whatever locks wallets locks them before it writes here.
CREATE TABLE audit_chain (
    id        boolean     NOT NULL DEFAULT true,
    last_seq  bigint      NOT NULL,
    last_at   timestamptz NOT NULL,
    last_hash bytea       NOT NULL,
    CONSTRAINT audit_chain_pkey PRIMARY KEY (id),
    CONSTRAINT audit_chain_is_one_row CHECK (id)
) WITH (fillfactor = 50);

-- sha256 (FIPS 180-4) of the previous hash and all the row's own fields that are not null; see 0001.
CREATE FUNCTION audit_hash_v1(previous_hash bytea, entry audit_log) RETURNS bytea LANGUAGE sql STABLE
RETURN sha256(previous_hash || convert_to((jsonb_strip_nulls(
    to_jsonb(entry) - 'hash' - 'before' - 'after'
    || jsonb_build_object('at', extract(epoch FROM entry.at)::text))
    || jsonb_build_object('before', entry.before, 'after', entry.after,
        'told', jsonb_build_array(entry.before IS NOT NULL, entry.after IS NOT NULL)))::text, 'UTF8'));

-- Give each entry its place: the next number, a later moment, and the hash that ties it to all before it. What the
-- functions that write entries don't know, the db transaction may have said: SET LOCAL audit.actor TO '{"kind": …,
-- "address": …}'.
CREATE FUNCTION audit_chain_v1() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    head audit_chain;
    said jsonb := nullif(current_setting('audit.actor', true), '')::jsonb;
BEGIN
    SELECT * INTO STRICT head FROM audit_chain FOR UPDATE;
    NEW.seq := head.last_seq + 1;
    NEW.at := greatest(clock_timestamp(), head.last_at + interval '1 microsecond');
    NEW.actor_kind := coalesce(NEW.actor_kind, said ->> 'kind', CASE WHEN NEW.actor_id IS NULL THEN 'system' ELSE 'user' END);
    NEW.address := coalesce(NEW.address, said ->> 'address');
    NEW.request_id := coalesce(NEW.request_id, said ->> 'requestId');
    NEW.hash := audit_hash_v1(head.last_hash, NEW);
    UPDATE audit_chain SET last_seq = NEW.seq, last_at = NEW.at, last_hash = NEW.hash;
    RETURN NEW;
END $$;

-- The entries of before, in their order, become the chain's beginning.
ALTER TABLE audit_log DISABLE TRIGGER audit_log_immutable;
DO $$
DECLARE
    head  audit_chain;
    entry audit_log;
BEGIN
    head := (true, 0, '-infinity', sha256('audit log'));
    FOR entry IN SELECT * FROM audit_log ORDER BY at, id LOOP
        entry.seq := head.last_seq + 1;
        entry.at := greatest(entry.at, head.last_at + interval '1 microsecond');
        entry.actor_kind := CASE WHEN entry.actor_id IS NULL THEN 'system' ELSE 'user' END;
        entry.hash := audit_hash_v1(head.last_hash, entry);
        UPDATE audit_log a SET seq = entry.seq, at = entry.at, actor_kind = entry.actor_kind, hash = entry.hash
            WHERE a.id = entry.id;
        head := (true, entry.seq, entry.at, entry.hash);
    END LOOP;
    INSERT INTO audit_chain SELECT head.*;
END $$;
ALTER TABLE audit_log ENABLE TRIGGER audit_log_immutable;
CREATE TRIGGER audit_log_chain BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION audit_chain_v1();

ALTER TABLE audit_log ALTER COLUMN seq SET NOT NULL;
ALTER TABLE audit_log ALTER COLUMN actor_kind SET NOT NULL;
ALTER TABLE audit_log ALTER COLUMN hash SET NOT NULL;
ALTER TABLE audit_log ADD CONSTRAINT audit_log_seq_key UNIQUE (seq);
ALTER TABLE audit_log ADD CONSTRAINT audit_log_actor_kind_known
    CHECK (actor_kind IN ('user', 'operator', 'api_key', 'system'));
CREATE INDEX audit_log_actor_id_seq_idx ON audit_log (actor_id, seq);
CREATE INDEX audit_log_action_seq_idx ON audit_log (action, seq);

-- Write an entry. p_entry has the fields of audit_log that the caller knows, by their names.
CREATE FUNCTION audit_note_v1(p_entry jsonb) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    INSERT INTO audit_log (actor_id, actor_kind, action, wallet_id, subject, before, after, request_id, address, refusal)
        SELECT e.actor_id, e.actor_kind, e.action, e.wallet_id, e.subject, e.before, e.after, e.request_id, e.address, e.refusal
        FROM jsonb_to_record(p_entry) AS e (actor_id uuid, actor_kind text, action text, wallet_id uuid,
            subject text, before jsonb, after jsonb, request_id text, address text, refusal text);
END;

-- Write the entry of a movement that was posted for a member, in the statement that posts it. Amounts are in minor units.
CREATE FUNCTION audit_posted_v1(p_entry jsonb, p_posted wallet_transactions, p_replayed boolean) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT audit_note_v1(p_entry || jsonb_build_object(
        'action', 'wallet.' || (p_posted).type,
        'wallet_id', (p_posted).wallet_id,
        'before', jsonb_build_object('balanceMinor', (p_posted).balance_after_minor - (p_posted).amount_minor),
        'after', jsonb_strip_nulls(jsonb_build_object(
            'transactionId', (p_posted).id, 'amountMinor', (p_posted).amount_minor,
            'balanceMinor', (p_posted).balance_after_minor, 'replayed', nullif(p_replayed, false)))));
END;

-- The audit of 0007, and the audit log's own chain: the first entry that does not hold. No rows means all is sound.
CREATE FUNCTION ledger_audit_v3(OUT wallet_id uuid, OUT seq bigint, OUT finding text) RETURNS SETOF record
    LANGUAGE sql STABLE
BEGIN ATOMIC
    WITH checked AS (
        SELECT a.seq, concat_ws('; ',
            CASE WHEN a.seq <> row_number() OVER chain THEN 'seq has a gap' END,
            CASE WHEN a.at <= lag(a.at) OVER chain THEN 'time runs backwards' END,
            CASE WHEN a.hash <> audit_hash_v1(coalesce(lag(a.hash) OVER chain, sha256('audit log')), a)
                THEN 'hash does not match the entry or the one before' END) AS finding
        FROM audit_log a WINDOW chain AS (ORDER BY a.seq)
    ), last AS (
        SELECT a.seq, a.hash, a.at FROM audit_log a ORDER BY a.seq DESC LIMIT 1
    )
    SELECT v.wallet_id, v.seq, v.finding FROM ledger_audit_v2() v
    UNION ALL
    (SELECT NULL, NULL, format('audit log entry %s: %s', c.seq, c.finding)
        FROM checked c WHERE c.finding <> '' ORDER BY c.seq LIMIT 1)
    UNION ALL
    SELECT NULL, NULL, format('the audit log''s last entry is %s, and its chain says %s', coalesce(l.seq, 0), h.last_seq)
    FROM (SELECT) one LEFT JOIN audit_chain h ON true LEFT JOIN last l ON true
    WHERE (h.last_seq, h.last_hash, h.last_at) IS DISTINCT FROM
        (coalesce(l.seq, 0), coalesce(l.hash, sha256('audit log')), coalesce(l.at, '-infinity'));
END;

-- As it was in 0006, but for two things. It opens the wallets itself, so that it has locked all of them before the first
-- entry takes the chain's lock. And of the log's entries only those that tell of a limit say what was granted.
CREATE OR REPLACE FUNCTION openings_post_v1(
    p_items jsonb, p_currency text, p_raise_limits boolean,
    OUT reconciled reconciliations, OUT moved_minor bigint, OUT limit_raised boolean)
    RETURNS SETOF record LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
    SET enable_seqscan TO off AS $$
DECLARE
    user_ids uuid[];
    opened   jsonb;
    due      jsonb;
    raises   jsonb := '{}';   -- this and the next two by user
    refusals jsonb;
    moved    jsonb;
BEGIN
    SELECT array_agg((i.item ->> 'user_id')::uuid) INTO user_ids FROM jsonb_array_elements(p_items) AS i (item);
    PERFORM FROM shared.tenants t WHERE t.schema_name = current_schema()
        AND (t.settings ->> 'currency' = p_currency OR t.settings -> 'currencies' ? p_currency);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'this tenant has no wallets in %', p_currency USING ERRCODE = 'invalid_parameter_value';
    END IF;
    WITH missing AS MATERIALIZED (
        SELECT m.user_id, gen_random_uuid() AS wallet_id
        FROM shared.memberships m JOIN shared.tenants t ON t.id = m.tenant_id
        WHERE t.schema_name = current_schema() AND m.user_id = ANY (user_ids)
            AND NOT EXISTS (SELECT FROM wallets w WHERE w.user_id = m.user_id AND w.currency = p_currency)
    ), made AS (
        INSERT INTO wallets (id, user_id, currency, credit_limit_minor, last_hash)
        SELECT m.wallet_id, m.user_id, p_currency, coalesce(p.default_limit_minor, 0),
            wallet_genesis_hash_v1(m.wallet_id, m.user_id, p_currency)
        FROM missing m LEFT JOIN credit_policies p ON p.currency = p_currency
        ORDER BY m.user_id
        ON CONFLICT (user_id, currency) DO NOTHING
        RETURNING id, credit_limit_minor, status
    ) SELECT coalesce(jsonb_agg(to_jsonb(m)) FILTER (WHERE m.credit_limit_minor > 0), '[]') INTO opened FROM made m;
    PERFORM FROM wallets w WHERE w.user_id = ANY (user_ids) AND w.currency = p_currency
        ORDER BY w.id FOR NO KEY UPDATE;
    INSERT INTO audit_log (action, wallet_id, before, after)
        SELECT 'wallet.open', o.id,
            jsonb_build_object('creditLimitMinor', 0, 'status', o.status),
            jsonb_build_object('creditLimitMinor', o.credit_limit_minor, 'status', o.status)
        FROM jsonb_to_recordset(opened) AS o (id uuid, credit_limit_minor bigint, status text);
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
                WHERE a.wallet_id = w.id AND a.action <> 'wallet.import' AND a.after ? 'creditLimitMinor'
                ORDER BY a.at DESC LIMIT 1) granted ON true
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
    EXECUTE format('GRANT SELECT ON audit_chain TO %I', tenant_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION audit_hash_v1, audit_note_v1, audit_posted_v1, ledger_audit_v3 TO %I',
        tenant_role);
END $$;
