-- Replays of webhooks from the ledger, and bounds of what a delivery may note. Frozen once merged.
--
-- squawk-ignore-file constraint-missing-not-valid

-- A replay that begins before the feed does has two parts: first the movements of which the feed has no event, then events
-- of the feed. While it is at the first, ledger_at, ledger_wallet_id and ledger_seq are the last movement that it has
-- passed, and `position` stands still, so that the feed keeps what the second needs.
ALTER TABLE webhook_replays ADD COLUMN ledger_at timestamptz;
ALTER TABLE webhook_replays ADD COLUMN ledger_wallet_id uuid;
ALTER TABLE webhook_replays ADD COLUMN ledger_seq bigint;
ALTER TABLE webhook_replays ADD COLUMN ledger_until timestamptz;   -- null: at the feed's part
ALTER TABLE webhook_replays ADD CONSTRAINT webhook_replays_ledger_place_is_whole
    CHECK (num_nulls(ledger_at, ledger_wallet_id, ledger_seq, ledger_until) IN (0, 4));

-- As before, whatever the clock did: a time that lies further ahead than any lease (300 seconds) or delay (26 hours) was
-- written before the clock was set back, and counts as over. The first and the last lane tell, so that a million of them,
-- due or not, are no more work than one.
CREATE OR REPLACE VIEW webhooks_due WITH (security_invoker) AS
    SELECT e.id, e.lease_until FROM webhook_endpoints e CROSS JOIN events_head h
    WHERE (e.lease_until <= statement_timestamp() OR e.lease_until > statement_timestamp() + interval '10 minutes')
        AND (e.notice_owed OR e.status = 'enabled' AND e.feed_id = h.feed_id
            AND (e.next_at <= statement_timestamp() OR e.next_at > statement_timestamp() + interval '2 days') AND (
            h.position > e.position
            OR (SELECT min(l.next_at) FROM webhook_lanes l WHERE l.endpoint_id = e.id) <= statement_timestamp()
            OR (SELECT max(l.next_at) FROM webhook_lanes l WHERE l.endpoint_id = e.id)
                > statement_timestamp() + interval '2 days'
            OR EXISTS (SELECT FROM webhook_replays r WHERE r.endpoint_id = e.id AND r.finished_at IS NULL
                AND (r.next_at <= statement_timestamp() OR r.next_at > statement_timestamp() + interval '2 days'))));

-- Send events again from after a position up to another. An endpoint has a hundred unfinished replays at most.
--
-- Both are positions that the feed has. If p_ledger_until is not null, the movements from p_ledger_from until then come
-- first, those of which the feed has no event.
CREATE FUNCTION webhook_replay_v2(
    p_endpoint_id uuid, p_position bigint, p_until bigint, p_types text[], p_ledger_from timestamptz,
    p_ledger_until timestamptz)
    RETURNS webhook_replays LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    made webhook_replays;
BEGIN
    IF (0 <= p_position AND p_position <= p_until
            AND p_until <= (SELECT h.position FROM events_head h)) IS NOT TRUE THEN
        RAISE EXCEPTION 'a replay is of positions that the feed has' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM FROM webhook_endpoints e WHERE e.id = p_endpoint_id FOR UPDATE;   -- Simultaneous requests count each other.
    IF (SELECT count(*) FROM webhook_replays r WHERE r.endpoint_id = p_endpoint_id AND r.finished_at IS NULL) >= 100 THEN
        RAISE EXCEPTION 'too_many_webhook_replays' USING ERRCODE = 'WA053', DETAIL = '{"limit": 100}';
    END IF;
    INSERT INTO webhook_replays (endpoint_id, position, until_position, types, ledger_at, ledger_until, ledger_wallet_id,
            ledger_seq)
        VALUES (p_endpoint_id, p_position, p_until, p_types, CASE WHEN p_ledger_until IS NOT NULL THEN p_ledger_from END,
            p_ledger_until, CASE WHEN p_ledger_until IS NOT NULL THEN '00000000-0000-0000-0000-000000000000'::uuid END,
            CASE WHEN p_ledger_until IS NOT NULL THEN 0 END) RETURNING * INTO made;
    RETURN made;
END $$;

-- Superseded by webhook_replay_v2.
CREATE OR REPLACE FUNCTION webhook_replay_v1(p_endpoint_id uuid, p_position bigint, p_until bigint, p_types text[])
    RETURNS webhook_replays LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    RETURN webhook_replay_v2(p_endpoint_id, p_position, p_until, p_types, NULL, NULL);
END $$;

-- Lease the endpoint p_id, or the one that has waited longest; no row if it is not due. Also forgets what is old.
--
-- For 300 seconds at most.
CREATE FUNCTION webhook_claim_v2(p_by uuid, p_seconds integer, p_id uuid DEFAULT NULL) RETURNS SETOF webhook_endpoints
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    claimed webhook_endpoints;
BEGIN
    IF (p_seconds BETWEEN 1 AND 300) IS NOT TRUE THEN
        RAISE EXCEPTION 'a lease has 1 to 300 seconds' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- The lease is asked for again, of the row as it is when it is locked.
    SELECT e.* INTO claimed FROM webhook_endpoints e
        WHERE (e.lease_until <= statement_timestamp() OR e.lease_until > statement_timestamp() + interval '10 minutes')
            AND e.id IN (SELECT d.id FROM webhooks_due d) AND (p_id IS NULL OR e.id = p_id)
        ORDER BY e.lease_until, e.id LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF claimed.trimmed_at NOT BETWEEN clock_timestamp() - interval '10 minutes' AND clock_timestamp() THEN
        PERFORM webhook_trim_v1(claimed.id, 30, 10000, 1000);
    END IF;
    RETURN QUERY UPDATE webhook_endpoints e
        SET lease_by = p_by, lease_until = clock_timestamp() + make_interval(secs => p_seconds)
        WHERE e.id = claimed.id RETURNING e.*;
END $$;

-- Superseded by webhook_claim_v2.
CREATE OR REPLACE FUNCTION webhook_claim_v1(p_by uuid, p_seconds integer, p_id uuid DEFAULT NULL)
    RETURNS SETOF webhook_endpoints LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT webhook_claim_v2(p_by, p_seconds, p_id);
END;

-- Claim the oldest job that no program works at, for two minutes; no row if there is none. A job that was claimed five
-- times and never ended has failed.
--
-- A lease that ends later than one of now was taken before the clock was set back, and is over.
CREATE FUNCTION document_claim_v2() RETURNS SETOF documents
    LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    UPDATE documents d
        SET status = 'failed', failure = 'attempts_exhausted', finished_at = clock_timestamp(), leased_until = NULL
        WHERE d.attempt >= 5 AND (d.status = 'pending' OR d.status = 'running'
            AND (d.leased_until <= clock_timestamp() OR d.leased_until > clock_timestamp() + interval '3 minutes'));
    UPDATE documents d SET status = 'running', attempt = d.attempt + 1, rendered = 0,
            leased_until = clock_timestamp() + interval '2 minutes'
        WHERE d.id = (
            SELECT c.id FROM documents c
            WHERE (c.status = 'pending' OR c.status = 'running'
                AND (c.leased_until <= clock_timestamp() OR c.leased_until > clock_timestamp() + interval '3 minutes'))
                AND c.expires_at > clock_timestamp()
            ORDER BY c.requested_at LIMIT 1 FOR UPDATE SKIP LOCKED)
        RETURNING d.*;
END;

-- Superseded by document_claim_v2.
CREATE OR REPLACE FUNCTION document_claim_v1() RETURNS SETOF documents
    LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT document_claim_v2();
END;

-- Note what came of a round of deliveries, if p_by still has the lease and the feed is the same. True if so. What disables
-- the endpoint has an entry in the audit log. p_seconds is how long p_by keeps the lease; 0 returns it. Members of p_done:
-- feed_id, position, delivered, failures, is_failing, pause_seconds, disabled_reason, lanes, replays, parked, unparked,
-- attempts.
--
-- As webhook_settle_v1, within bounds: no position beyond the feed's head, since what is numbered later would be lost; no
-- place that goes back, no lease longer than 300 seconds, and no delay longer than two days. A replay goes on to the feed's
-- part with `ends_ledger`.
CREATE FUNCTION webhook_settle_v2(p_id uuid, p_by uuid, p_seconds integer, p_done jsonb) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    moment   constant timestamptz := clock_timestamp();
    reason   text                 := p_done ->> 'disabled_reason';
    endpoint webhook_endpoints;
BEGIN
    IF (p_seconds BETWEEN 0 AND 300) IS NOT TRUE THEN
        RAISE EXCEPTION 'a lease has 0 to 300 seconds' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT * INTO endpoint FROM webhook_endpoints e
        WHERE e.id = p_id AND e.lease_by = p_by AND e.feed_id = (p_done ->> 'feed_id')::uuid FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF greatest((p_done ->> 'position')::bigint,
            (SELECT max(d.position) FROM jsonb_to_recordset(p_done -> 'lanes') AS d (position bigint)),
            (SELECT max(d.position) FROM jsonb_to_recordset(p_done -> 'parked') AS d (position bigint)))
            > (SELECT h.position FROM events_head h) THEN
        RAISE EXCEPTION 'a delivery notes no position that the feed has not' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF (p_done ->> 'is_failing')::boolean AND (p_done ->> 'delivered')::bigint = 0
            AND endpoint.failing_since < moment - interval '5 days' THEN
        reason := coalesce(reason, 'failing');
    END IF;
    IF endpoint.status = 'disabled' THEN
        reason := NULL;   -- An admin was faster.
    END IF;
    UPDATE webhook_endpoints e SET
        position = greatest(e.position, (p_done ->> 'position')::bigint),
        delivered = e.delivered + (p_done ->> 'delivered')::bigint,
        last_delivered_at = CASE WHEN (p_done ->> 'delivered')::bigint > 0 THEN moment ELSE e.last_delivered_at END,
        failures = (p_done ->> 'failures')::integer,
        failing_since = CASE WHEN (p_done ->> 'delivered')::bigint > 0 THEN NULL
            WHEN (p_done ->> 'is_failing')::boolean THEN least(e.failing_since, moment) ELSE e.failing_since END,
        next_at = CASE WHEN (p_done ->> 'pause_seconds')::float8 > 0
            THEN moment + make_interval(secs => least((p_done ->> 'pause_seconds')::float8, 172800)) ELSE e.next_at END,
        status = CASE WHEN reason IS NOT NULL THEN 'disabled' ELSE e.status END,
        disabled_reason = coalesce(reason, e.disabled_reason),
        disabled_at = CASE WHEN reason IS NOT NULL THEN moment ELSE e.disabled_at END,
        notice_owed = e.notice_owed OR reason IS NOT NULL,
        version = e.version + (reason IS NOT NULL)::integer,
        lease_by = CASE WHEN p_seconds > 0 THEN p_by END,
        lease_until = moment + make_interval(secs => p_seconds)
        WHERE e.id = p_id;
    DELETE FROM webhook_lanes l USING jsonb_to_recordset(p_done -> 'lanes') AS d (key uuid, position bigint)
        WHERE l.endpoint_id = p_id AND l.key = d.key AND d.position IS NULL;
    INSERT INTO webhook_lanes AS l (endpoint_id, key, is_ordered, position, attempts, next_at)
        SELECT p_id, d.key, d.is_ordered, d.position, d.attempts,
            moment + make_interval(secs => least(d.delay_seconds, 172800))
        FROM jsonb_to_recordset(p_done -> 'lanes')
            AS d (key uuid, is_ordered boolean, position bigint, attempts integer, delay_seconds float8)
        WHERE d.position IS NOT NULL
        ON CONFLICT (endpoint_id, key) DO UPDATE
            SET position = excluded.position, attempts = excluded.attempts, next_at = excluded.next_at;
    UPDATE webhook_replays r SET position = least(greatest(r.position, d.position), r.until_position),
            attempts = d.attempts, delivered = r.delivered + d.delivered,
            next_at = moment + make_interval(secs => least(d.delay_seconds, 172800)),
            ledger_at = CASE WHEN d.ends_ledger IS NOT TRUE THEN coalesce(d.ledger_at, r.ledger_at) END,
            ledger_wallet_id = CASE WHEN d.ends_ledger IS NOT TRUE THEN coalesce(d.ledger_wallet_id, r.ledger_wallet_id) END,
            ledger_seq = CASE WHEN d.ends_ledger IS NOT TRUE THEN coalesce(d.ledger_seq, r.ledger_seq) END,
            ledger_until = CASE WHEN d.ends_ledger IS NOT TRUE THEN r.ledger_until END,
            finished_at = CASE WHEN d.position >= r.until_position AND (r.ledger_until IS NULL OR d.ends_ledger)
                THEN moment END
        FROM jsonb_to_recordset(p_done -> 'replays')
            AS d (id uuid, position bigint, attempts integer, delivered bigint, delay_seconds float8, ends_ledger boolean,
                ledger_at timestamptz, ledger_wallet_id uuid, ledger_seq bigint)
        WHERE r.id = d.id AND r.endpoint_id = p_id;
    INSERT INTO webhook_parked (endpoint_id, event_id, type, position)
        SELECT p_id, d.event_id, d.type, d.position
        FROM jsonb_to_recordset(p_done -> 'parked') AS d (event_id uuid, type text, position bigint)
        ON CONFLICT DO NOTHING;
    DELETE FROM webhook_parked p WHERE p.endpoint_id = p_id
        AND p.event_id IN (SELECT u.id::uuid FROM jsonb_array_elements_text(p_done -> 'unparked') AS u (id));
    INSERT INTO webhook_attempts
            (endpoint_id, event_id, type, source, attempt, at, outcome, status, failure, duration_ms, answer)
        SELECT p_id, d.event_id, d.type, d.source, d.attempt, d.at, d.outcome, d.status, d.failure, d.duration_ms, d.answer
        FROM jsonb_to_recordset(p_done -> 'attempts')
            AS d (event_id uuid, type text, source text, attempt integer, at timestamptz, outcome text, status integer,
                failure text, duration_ms integer, answer text);
    IF reason IS NOT NULL THEN
        PERFORM audit_note_v2(jsonb_build_object('actor_kind', 'system', 'action', 'webhook.disable', 'subject', p_id,
            'after', jsonb_build_object('reason', reason)));   -- last, because it locks the log's chain
    END IF;
    RETURN true;
END $$;

-- Superseded by webhook_settle_v2.
CREATE OR REPLACE FUNCTION webhook_settle_v1(p_id uuid, p_by uuid, p_seconds integer, p_done jsonb) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    RETURN webhook_settle_v2(p_id, p_by, p_seconds, p_done);
END $$;

DO $$
BEGIN
    EXECUTE format('GRANT EXECUTE ON FUNCTION webhook_replay_v2, webhook_claim_v2, webhook_settle_v2, document_claim_v2 TO %I',
        current_setting('tenant_schemas.tenant_role'));
END $$;
