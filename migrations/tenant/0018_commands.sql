-- Commands from a queue: each has one effect, however often it is delivered, and a refusal is kept. Frozen once merged.
--
-- One more refusal of class WA:
--   WA060 command_id_reused

-- What became of a command. `fingerprint` tells a second delivery from another command under the same name. `id` is unknown
-- to everybody before, so it is the idempotency key where members have keys too.
CREATE TABLE command_outcomes (
    source      text        NOT NULL,
    command_id  text        NOT NULL,
    id          uuid        NOT NULL DEFAULT gen_random_uuid(),
    type        text        NOT NULL,
    fingerprint bytea       NOT NULL,
    key_id      uuid        NOT NULL,   -- the API key that sent it first
    outcome     text,                   -- null only inside the db transaction that runs it
    code        text,                   -- of a refusal
    detail      jsonb,
    subject_id  uuid,                   -- the movement or the hold
    event_id    uuid,                   -- its answer
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT command_outcomes_pkey PRIMARY KEY (source, command_id),
    CONSTRAINT command_outcomes_type_known CHECK (
        type IN ('payment', 'deposit', 'refund', 'hold', 'capture', 'void')),
    CONSTRAINT command_outcomes_outcome_known CHECK (outcome IN ('completed', 'refused')),
    CONSTRAINT command_outcomes_refusal_has_code CHECK ((outcome = 'refused') = (code IS NOT NULL)),
    CONSTRAINT command_outcomes_source_length CHECK (length(source) BETWEEN 1 AND 100),
    CONSTRAINT command_outcomes_command_id_length CHECK (length(command_id) BETWEEN 1 AND 100)
);

-- Do what a command says, in the name of an API key, with its entry in the audit log. Returns the movement or the hold.
-- A movement's key is the command's name, so the service finds it by HTTP too. Holds and captures have the owner's keys,
-- which a member could use up beforehand: theirs is the id of the outcome.
CREATE FUNCTION command_effect_v1(
    p_outcome_id uuid, p_key text, p_type text, p_wallet_id uuid, p_amount_minor bigint, p_data jsonb, p_actor jsonb)
    RETURNS uuid LANGUAGE plpgsql SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
DECLARE
    posted     record;
    held       holds;
    subject_id uuid;
    hold_id    uuid := (p_data ->> 'holdId')::uuid;
BEGIN
    IF p_type IN ('payment', 'deposit', 'refund') THEN
        SELECT * INTO posted FROM wallet_post_v4(p_wallet_id, NULL, NULL, p_type, p_amount_minor, p_key,
            (p_actor ->> 'actor_id')::uuid, p_data ->> 'orderId', (p_data ->> 'paymentId')::uuid,
            p_data ->> 'description', p_data ->> 'reference', NULL);
        PERFORM audit_posted_v2(p_actor, p_type, posted.wallet_id, posted.id, posted.amount_minor,
            posted.balance_after_minor, posted.replayed);
        RETURN posted.id;
    ELSIF p_type = 'hold' THEN
        SELECT (h.hold).id INTO hold_id FROM hold_authorise_v2(p_wallet_id, p_amount_minor, 'command:' || p_outcome_id,
            (p_data ->> 'expiresAt')::timestamptz, p_data ->> 'orderId', p_data ->> 'description') h;
        subject_id := hold_id;
    ELSIF p_type = 'capture' THEN
        SELECT (c.posted).id INTO subject_id
            FROM hold_capture_v2(p_wallet_id, hold_id, p_amount_minor, 'command:' || p_outcome_id) c;
    ELSE
        PERFORM hold_void_v1(p_wallet_id, hold_id);
        subject_id := hold_id;
    END IF;
    SELECT * INTO held FROM holds h WHERE h.id = hold_id;
    PERFORM audit_note_v2(p_actor || jsonb_build_object(
        'action', 'hold.' || CASE p_type WHEN 'hold' THEN 'authorise' ELSE p_type END, 'wallet_id', p_wallet_id,
        'subject', hold_id, 'after', jsonb_build_object(
            'status', held.status, 'amountMinor', held.amount_minor, 'capturedMinor', held.captured_minor)));
    RETURN subject_id;
END $$;

-- Run a command once. Its outcome, its answer (an event) and its effect commit together; a second delivery is answered
-- with the first outcome and has no effect. `p_refusal` is that of a command which the service has found to be wrong.
--
-- The row is claimed first: of two deliveries at once, the second waits here for the first. The wallet is locked outside of
-- the block that may roll back, so that the answer's event is numbered under the wallet's lock whatever becomes of it.
CREATE FUNCTION command_run_v1(
    p_source text, p_command_id text, p_type text, p_fingerprint bytea, p_wallet_id uuid, p_amount_minor bigint,
    p_data jsonb, p_actor jsonb, p_refusal text, p_refusal_detail jsonb, p_traceparent text,
    OUT outcome text, OUT code text, OUT detail jsonb, OUT subject_id uuid, OUT event_id uuid, OUT repeated boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
DECLARE
    outcome_id      uuid;
    known           command_outcomes;
    known_wallet_id uuid;
    detail_text     text;
BEGIN
    INSERT INTO command_outcomes (source, command_id, type, fingerprint, key_id)
        VALUES (p_source, p_command_id, p_type, p_fingerprint, (p_actor ->> 'actor_id')::uuid)
        ON CONFLICT ON CONSTRAINT command_outcomes_pkey DO NOTHING RETURNING id INTO outcome_id;
    IF NOT FOUND THEN
        SELECT * INTO STRICT known FROM command_outcomes o WHERE o.source = p_source AND o.command_id = p_command_id;
        IF known.fingerprint <> p_fingerprint THEN
            RAISE EXCEPTION 'command_id_reused' USING ERRCODE = 'WA060';
        END IF;
        outcome := known.outcome;
        code := known.code;
        detail := known.detail;
        subject_id := known.subject_id;
        event_id := known.event_id;
        repeated := true;
        RETURN;
    END IF;
    SELECT w.id INTO known_wallet_id FROM wallets w WHERE w.id = p_wallet_id FOR NO KEY UPDATE;
    IF p_traceparent IS NOT NULL THEN
        EXECUTE format('SET LOCAL wallet.traceparent TO %L', p_traceparent);
    END IF;
    code := p_refusal;
    detail := p_refusal_detail;
    IF code IS NULL THEN
        BEGIN
            subject_id := command_effect_v1(outcome_id, 'command:' || p_source || ':' || p_command_id, p_type,
                p_wallet_id, p_amount_minor, p_data, p_actor);
        EXCEPTION WHEN OTHERS THEN
            IF SQLSTATE LIKE 'WA%' THEN
                code := SQLERRM;
            ELSIF SQLSTATE = '22003' THEN
                code := 'amount_out_of_range';
            ELSE
                RAISE;
            END IF;
            GET STACKED DIAGNOSTICS detail_text = PG_EXCEPTION_DETAIL;
            detail := CASE WHEN detail_text LIKE '{%' THEN detail_text::jsonb END;
        END;
    END IF;
    outcome := CASE WHEN code IS NULL THEN 'completed' ELSE 'refused' END;
    repeated := false;
    INSERT INTO events (id, type, wallet_id, subject_id, data, traceparent) VALUES (
        gen_random_uuid(), 'wallet.' || p_type || '.' || outcome || '.v1', known_wallet_id, subject_id,
        jsonb_strip_nulls(jsonb_build_object('source', p_source, 'commandId', p_command_id, 'walletId', p_wallet_id,
            'holdId', p_data ->> 'holdId', 'code', code, 'detail', detail)), p_traceparent)
        RETURNING id INTO event_id;
    UPDATE command_outcomes o SET outcome = command_run_v1.outcome, code = command_run_v1.code,
            detail = command_run_v1.detail, subject_id = command_run_v1.subject_id, event_id = command_run_v1.event_id
        WHERE o.source = p_source AND o.command_id = p_command_id;
    IF code IS NOT NULL THEN
        PERFORM audit_note_v2(p_actor || jsonb_build_object(
            'action', CASE WHEN p_type IN ('payment', 'deposit', 'refund') THEN 'wallet.' || p_type
                WHEN p_type = 'hold' THEN 'hold.authorise' ELSE 'hold.' || p_type END,
            'subject', 'commands/' || p_command_id, 'refusal', code));
    END IF;
END $$;

DO $$
DECLARE
    tenant_role text := current_setting('tenant_schemas.tenant_role');
BEGIN
    EXECUTE format('GRANT SELECT ON command_outcomes TO %I', tenant_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION command_run_v1 TO %I', tenant_role);
END $$;
