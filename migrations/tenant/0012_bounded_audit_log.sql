-- The audit log takes known shapes only, and counts what callers without a right try often. Frozen once merged.

------------------------------------------------------------------------------------------------------------------------
-- The shape of an entry
------------------------------------------------------------------------------------------------------------------------

-- A text of a request, as an entry keeps it: printable ASCII, cut.
CREATE FUNCTION audit_text_v1(value text, max_length integer) RETURNS text LANGUAGE sql IMMUTABLE
RETURN left(regexp_replace(left(value, max_length), '[^ -~]', '?', 'g'), max_length);

-- Whether an entry can have this as its state: an object of a moderate size, whose members have names and plain values.
-- A number is one that every reader's 64 bits hold.
CREATE FUNCTION audit_state_is_plain_v1(state jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE
RETURN CASE
    WHEN state IS NULL THEN true
    WHEN jsonb_typeof(state) <> 'object' OR length(state::text) > 20000 THEN false
    ELSE NOT jsonb_path_exists(state, '$.**{6 to last}')
        AND NOT jsonb_path_exists(state,
            '$.** ? (@.type() == "number" && (@ > 9223372036854775807 || @ < -9223372036854775808))')
        AND NOT jsonb_path_exists(state,
            '$.** ? (@.type() == "object").keyvalue() ? (!(@.key like_regex "^[A-Za-z][A-Za-z0-9_.-]{0,63}$"))')
END;

-- Give each entry its place: the next number, a later moment, and the hash that ties it to all before it. What the
-- functions that write entries don't know, the db transaction may have said: SET LOCAL audit.actor TO '{"kind": …,
-- "address": …}'. As audit_chain_v1, and refuses what is not an entry, whoever writes it. It is no CHECK of the table:
-- entries of before stay as they are, also in a restored tenant.
CREATE FUNCTION audit_chain_v2() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    head   audit_chain;
    said   jsonb := nullif(current_setting('audit.actor', true), '')::jsonb;
    broken text;
BEGIN
    NEW.actor_kind := coalesce(NEW.actor_kind, said ->> 'kind', CASE WHEN NEW.actor_id IS NULL THEN 'system' ELSE 'user' END);
    NEW.subject := audit_text_v1(NEW.subject, 300);
    NEW.address := audit_text_v1(coalesce(NEW.address, said ->> 'address'), 100);
    NEW.request_id := audit_text_v1(coalesce(NEW.request_id, said ->> 'requestId'), 100);
    broken := CASE
        WHEN NEW.action !~ '^[a-z][a-z0-9_]*([.][a-z0-9_]+)*$' OR length(NEW.action) > 64 THEN 'audit_log_action_is_name'
        WHEN NEW.refusal !~ '^[a-z0-9_]{1,64}$' THEN 'audit_log_refusal_is_code'
        WHEN NOT (audit_state_is_plain_v1(NEW.before) AND audit_state_is_plain_v1(NEW.after))
            THEN 'audit_log_state_is_plain'
    END;
    IF broken IS NOT NULL THEN
        RAISE EXCEPTION 'new row of audit_log violates %', broken
            USING ERRCODE = 'check_violation', CONSTRAINT = broken, TABLE = 'audit_log';
    END IF;

    SELECT * INTO STRICT head FROM audit_chain FOR UPDATE;
    NEW.seq := head.last_seq + 1;
    NEW.at := greatest(clock_timestamp(), head.last_at + interval '1 microsecond');
    NEW.hash := audit_hash_v1(head.last_hash, NEW);
    UPDATE audit_chain SET last_seq = NEW.seq, last_at = NEW.at, last_hash = NEW.hash;
    RETURN NEW;
END $$;

DROP TRIGGER audit_log_chain ON audit_log;
CREATE TRIGGER audit_log_chain BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION audit_chain_v2();

------------------------------------------------------------------------------------------------------------------------
-- Writing entries
------------------------------------------------------------------------------------------------------------------------

-- Write an entry. p_entry has the fields of audit_log that the caller knows, by their names.
--
-- ledger_audit_v4 and openings_post_v2 read what the log says of limits, statuses and policies. The functions that change
-- them write these entries. Here only the opening of a wallet is taken, and only if the wallet is as the entry says: so
-- no entry can make the audit find a fault.
CREATE FUNCTION audit_note_v2(p_entry jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    action    text := p_entry ->> 'action';
    old_state jsonb := nullif(p_entry -> 'before', 'null');
    new_state jsonb := nullif(p_entry -> 'after', 'null');
    is_true   boolean := true;
BEGIN
    IF action = 'credit_policy.set' THEN
        is_true := old_state IS NULL AND new_state IS NULL;
    ELSIF p_entry ->> 'wallet_id' IS NOT NULL AND (action IN ('wallet.open', 'wallet.configure', 'wallet.import')
            OR old_state ? 'creditLimitMinor' OR new_state ? 'creditLimitMinor') THEN
        is_true := action = 'wallet.open' AND old_state IS NULL AND EXISTS (
            SELECT FROM wallets w WHERE w.id = (p_entry ->> 'wallet_id')::uuid
                AND new_state = jsonb_build_object('creditLimitMinor', w.credit_limit_minor, 'status', w.status));
    END IF;
    IF NOT is_true THEN
        RAISE EXCEPTION 'an entry with action % does not say this', action USING ERRCODE = 'check_violation',
            CONSTRAINT = 'audit_log_agrees_with_tables', TABLE = 'audit_log';
    END IF;
    INSERT INTO audit_log (actor_id, actor_kind, action, wallet_id, subject, before, after, request_id, address, refusal)
        SELECT e.actor_id, e.actor_kind, e.action, e.wallet_id, e.subject, e.before, e.after, e.request_id, e.address, e.refusal
        FROM jsonb_to_record(p_entry) AS e (actor_id uuid, actor_kind text, action text, wallet_id uuid,
            subject text, before jsonb, after jsonb, request_id text, address text, refusal text);
END $$;

-- Superseded by audit_note_v2.
CREATE OR REPLACE FUNCTION audit_note_v1(p_entry jsonb) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT audit_note_v2(p_entry);
END;

-- Who changed the limit of which wallet, from what to what. An entry of before that says a limit in another form is no
-- change of one.
CREATE OR REPLACE VIEW credit_limit_changes WITH (security_invoker) AS
    SELECT a.id, a.at, a.actor_id, a.action, a.wallet_id, w.currency,
        CASE WHEN jsonb_typeof(a.before -> 'creditLimitMinor') = 'number' THEN (a.before -> 'creditLimitMinor')::bigint END
            AS from_minor,
        CASE WHEN jsonb_typeof(a.after -> 'creditLimitMinor') = 'number' THEN (a.after -> 'creditLimitMinor')::bigint END
            AS to_minor
    FROM audit_log a JOIN wallets w ON w.id = a.wallet_id
    WHERE a.before -> 'creditLimitMinor' <> a.after -> 'creditLimitMinor'
        AND a.before @@ '$.creditLimitMinor >= 0 && $.creditLimitMinor <= 9223372036854775807'
        AND a.after @@ '$.creditLimitMinor >= 0 && $.creditLimitMinor <= 9223372036854775807';

------------------------------------------------------------------------------------------------------------------------
-- What is refused to callers without the right
------------------------------------------------------------------------------------------------------------------------

-- What was refused to a caller for want of a right, since the window began: a row for each caller and action. It goes when
-- the window is over and the log has its count.
CREATE TABLE audit_refusals (
    actor_id   uuid        NOT NULL,
    action     text        NOT NULL,
    actor_kind text        NOT NULL,
    refusal    text        NOT NULL,   -- the code of the latest
    refused    bigint      NOT NULL DEFAULT 1,
    began_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    latest_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT audit_refusals_pkey PRIMARY KEY (actor_id, action)
) WITH (fillfactor = 50);
CREATE INDEX audit_refusals_began_at_idx ON audit_refusals (began_at);

-- End the windows of an hour that are over: each with more refusals than have entries of their own gets one entry with the
-- count of the rest. Returns the number of windows. A window that somebody is just counting in is left for the next time.
--
-- The rows here are locked before the log's chain, and nobody who has the chain's lock waits for one.
CREATE FUNCTION audit_refusals_end_v1() RETURNS bigint
    LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    WITH due AS MATERIALIZED (
        SELECT r.actor_id, r.action FROM audit_refusals r
        WHERE r.began_at <= clock_timestamp() - interval '1 hour' FOR UPDATE SKIP LOCKED
    ), ended AS (
        DELETE FROM audit_refusals r USING due d WHERE r.actor_id = d.actor_id AND r.action = d.action RETURNING r.*
    ), noted AS (
        INSERT INTO audit_log (actor_id, actor_kind, action, subject, refusal, after)
        SELECT e.actor_id, e.actor_kind, 'requests.refused', e.action, e.refusal, jsonb_build_object(
            'counted', e.refused - 10,
            'from', to_char(e.began_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
            'until', to_char(e.latest_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
        FROM ended e WHERE e.refused > 10
    ) SELECT count(*) FROM ended;
END;

-- Write the entry of a request that was refused to its caller for want of a right. Of one caller and action the first ten
-- in an hour have entries of their own, and all further ones are counted. So the log's growth is bounded, and what is
-- tried once in a while is seen singly. p_entry is as in audit_note_v2.
CREATE FUNCTION audit_refused_v1(p_entry jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    count bigint;
BEGIN
    PERFORM audit_refusals_end_v1();
    INSERT INTO audit_refusals AS r (actor_id, action, actor_kind, refusal)
        VALUES ((p_entry ->> 'actor_id')::uuid, p_entry ->> 'action', p_entry ->> 'actor_kind', p_entry ->> 'refusal')
        ON CONFLICT ON CONSTRAINT audit_refusals_pkey DO UPDATE
            SET refused = r.refused + 1, refusal = excluded.refusal, latest_at = clock_timestamp()
        RETURNING r.refused INTO count;
    IF count <= 10 THEN
        PERFORM audit_note_v2(p_entry);
    END IF;
END $$;

DO $$
DECLARE
    tenant_role text := current_setting('tenant_schemas.tenant_role');
BEGIN
    EXECUTE format('GRANT SELECT ON audit_refusals TO %I', tenant_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION audit_note_v2, audit_refused_v1, audit_refusals_end_v1 TO %I', tenant_role);
END $$;
