-- Webhook endpoints, and what is known of their deliveries. Frozen once merged.
--
-- An endpoint is a cursor on the feed. While all goes well, a delivered event leaves no row. An event that fails opens a
-- lane, in which the later events of its wallet wait; the cursor runs on for all other wallets. Who delivers holds a
-- lease in the endpoint's row, and no db transaction is open while an endpoint is asked.
--
-- More refusals of class WA:
--   WA050 too_many_webhooks     WA051 version_mismatch     WA052 webhook_events_trimmed
--   WA053 too_many_webhook_replays

-- The secret is derived from the id and the epoch, and is not stored. `replaced_at` says when the secrets of former epochs
-- were replaced, the newest first. `position` is the last event that the cursor has
-- passed in the feed `feed_id`. `failures` counts the attempts since the last success, and `failing_since` is the first
-- of them. `notice_owed`: the tenant's admins are still to be told that it was disabled.
CREATE TABLE webhook_endpoints (
    id                uuid        NOT NULL DEFAULT gen_random_uuid(),
    url               text        NOT NULL,
    description       text,
    types             text[]      NOT NULL DEFAULT '{}',   -- none: all
    payload           text        NOT NULL DEFAULT 'full',
    delivery_order    text        NOT NULL DEFAULT 'wallet',
    status            text        NOT NULL DEFAULT 'enabled',
    disabled_reason   text,
    disabled_at       timestamptz,
    notice_owed       boolean     NOT NULL DEFAULT false,
    secret_epoch      integer     NOT NULL DEFAULT 1,
    rotated_at        timestamptz,
    replaced_at       timestamptz[] NOT NULL DEFAULT '{}',
    version           integer     NOT NULL DEFAULT 1,
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    feed_id           uuid        NOT NULL,
    position          bigint      NOT NULL,
    delivered         bigint      NOT NULL DEFAULT 0,
    last_delivered_at timestamptz,
    failures          integer     NOT NULL DEFAULT 0,
    failing_since     timestamptz,
    next_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease_by          uuid,
    lease_until       timestamptz NOT NULL DEFAULT clock_timestamp(),
    trimmed_at        timestamptz NOT NULL DEFAULT clock_timestamp(),   -- when its log was trimmed
    CONSTRAINT webhook_endpoints_pkey PRIMARY KEY (id),
    CONSTRAINT webhook_endpoints_url_known CHECK (url ~* '^https?://[^[:space:]]+$' AND length(url) <= 2000),
    CONSTRAINT webhook_endpoints_payload_known CHECK (payload IN ('full', 'thin')),
    CONSTRAINT webhook_endpoints_order_known CHECK (delivery_order IN ('wallet', 'none')),
    CONSTRAINT webhook_endpoints_status_known CHECK (status IN ('enabled', 'disabled')),
    CONSTRAINT webhook_endpoints_reason_known CHECK (
        disabled_reason IN ('admin', 'gone', 'failing', 'trimmed', 'restored')),
    CONSTRAINT webhook_endpoints_reason_when_disabled CHECK (
        (status = 'disabled') = (disabled_reason IS NOT NULL) AND (status = 'disabled') = (disabled_at IS NOT NULL)),
    CONSTRAINT webhook_endpoints_notice_when_disabled CHECK (NOT notice_owed OR status = 'disabled')
) WITH (fillfactor = 50);

-- The first event that waits, of a wallet (`is_ordered`; the key is the wallet's id) or alone (the key is its own id).
CREATE TABLE webhook_lanes (
    endpoint_id uuid        NOT NULL,
    key         uuid        NOT NULL,
    is_ordered  boolean     NOT NULL,
    position    bigint      NOT NULL,
    attempts    integer     NOT NULL,
    next_at     timestamptz NOT NULL,
    CONSTRAINT webhook_lanes_pkey PRIMARY KEY (endpoint_id, key),
    CONSTRAINT webhook_lanes_endpoint_id_fkey FOREIGN KEY (endpoint_id) REFERENCES webhook_endpoints (id)
        ON DELETE CASCADE
);
CREATE INDEX webhook_lanes_endpoint_id_next_at_idx ON webhook_lanes (endpoint_id, next_at);

-- Events that were tried as often as the schedule allows. They stay until they are delivered or the endpoint is deleted.
CREATE TABLE webhook_parked (
    endpoint_id uuid        NOT NULL,
    event_id    uuid        NOT NULL,
    type        text        NOT NULL,
    position    bigint      NOT NULL,
    parked_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT webhook_parked_pkey PRIMARY KEY (endpoint_id, event_id),
    CONSTRAINT webhook_parked_endpoint_id_fkey FOREIGN KEY (endpoint_id) REFERENCES webhook_endpoints (id)
        ON DELETE CASCADE
);

-- Second cursors, from `position` (which it has passed) to `until_position`. No types: those of the endpoint.
CREATE TABLE webhook_replays (
    id             uuid        NOT NULL DEFAULT gen_random_uuid(),
    endpoint_id    uuid        NOT NULL,
    types          text[]      NOT NULL,
    position       bigint      NOT NULL,
    until_position bigint      NOT NULL,
    attempts       integer     NOT NULL DEFAULT 0,
    delivered      bigint      NOT NULL DEFAULT 0,
    next_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at    timestamptz,
    CONSTRAINT webhook_replays_pkey PRIMARY KEY (id),
    CONSTRAINT webhook_replays_endpoint_id_fkey FOREIGN KEY (endpoint_id) REFERENCES webhook_endpoints (id)
        ON DELETE CASCADE
);
CREATE INDEX webhook_replays_endpoint_id_next_at_idx ON webhook_replays (endpoint_id, next_at)
    WHERE finished_at IS NULL;

-- The delivery log: every attempt that failed, and those that succeeded after a failure, in a replay or as a test.
CREATE TABLE webhook_attempts (
    id          uuid        NOT NULL DEFAULT gen_random_uuid(),
    endpoint_id uuid        NOT NULL,
    event_id    uuid        NOT NULL,
    type        text        NOT NULL,
    source      text        NOT NULL,
    attempt     integer     NOT NULL,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    outcome     text        NOT NULL,
    status      integer,
    failure     text,
    duration_ms integer     NOT NULL,
    answer      text        NOT NULL,   -- the first kilobyte of the body
    CONSTRAINT webhook_attempts_pkey PRIMARY KEY (id),
    CONSTRAINT webhook_attempts_endpoint_id_fkey FOREIGN KEY (endpoint_id) REFERENCES webhook_endpoints (id)
        ON DELETE CASCADE,
    CONSTRAINT webhook_attempts_source_known CHECK (source IN ('feed', 'replay', 'test')),
    CONSTRAINT webhook_attempts_outcome_known CHECK (outcome IN ('delivered', 'failed', 'parked', 'skipped')),
    CONSTRAINT webhook_attempts_answer_short CHECK (octet_length(answer) <= 4096)
);
CREATE INDEX webhook_attempts_endpoint_id_at_id_idx ON webhook_attempts (endpoint_id, at, id);

------------------------------------------------------------------------------------------------------------------------
-- Admins
------------------------------------------------------------------------------------------------------------------------

-- A new endpoint, which gets the events from now on. A tenant has fifty at most.
CREATE FUNCTION webhook_create_v1(
    p_url text, p_description text, p_types text[], p_payload text, p_order text) RETURNS webhook_endpoints
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    made webhook_endpoints;
BEGIN
    LOCK TABLE webhook_endpoints IN SHARE ROW EXCLUSIVE MODE;   -- Simultaneous requests count each other.
    IF (SELECT count(*) FROM webhook_endpoints) >= 50 THEN
        RAISE EXCEPTION 'too_many_webhooks' USING ERRCODE = 'WA050', DETAIL = '{"limit": 50}';
    END IF;
    INSERT INTO webhook_endpoints (url, description, types, payload, delivery_order, feed_id, position)
        SELECT p_url, p_description, p_types, p_payload, p_order, h.feed_id, h.position FROM events_head h
        RETURNING * INTO STRICT made;
    RETURN made;
END $$;

-- Change what an admin chooses, at this version or at any (null). Its place in the feed stays. No row: no such endpoint.
CREATE FUNCTION webhook_change_v1(
    p_id uuid, p_version integer, p_url text, p_description text, p_types text[], p_payload text, p_order text)
    RETURNS SETOF webhook_endpoints LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    found_version integer;
BEGIN
    SELECT e.version INTO found_version FROM webhook_endpoints e WHERE e.id = p_id FOR UPDATE;
    IF found_version <> p_version THEN
        RAISE EXCEPTION 'webhook_version_mismatch' USING ERRCODE = 'WA051';
    END IF;
    -- What failed at the old URL is tried at the new one at once.
    IF EXISTS (SELECT FROM webhook_endpoints e WHERE e.id = p_id AND e.url <> p_url) THEN
        UPDATE webhook_lanes l SET next_at = clock_timestamp() WHERE l.endpoint_id = p_id;
        UPDATE webhook_replays r SET next_at = clock_timestamp() WHERE r.endpoint_id = p_id AND r.finished_at IS NULL;
        UPDATE webhook_endpoints e SET next_at = clock_timestamp() WHERE e.id = p_id;
    END IF;
    RETURN QUERY UPDATE webhook_endpoints e SET url = p_url, description = p_description, types = p_types,
            payload = p_payload, delivery_order = p_order, version = e.version + 1
        WHERE e.id = p_id RETURNING e.*;
END $$;

-- Delete an endpoint with all that is known of its deliveries. True if there was one.
CREATE FUNCTION webhook_delete_v1(p_id uuid) RETURNS boolean
    LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    WITH deleted AS (DELETE FROM webhook_endpoints e WHERE e.id = p_id RETURNING e.id)
    SELECT count(*) = 1 FROM deleted;
END;

-- Stop delivering to an endpoint. It keeps its place. One that is disabled already keeps its reason.
CREATE FUNCTION webhook_disable_v1(p_id uuid) RETURNS SETOF webhook_endpoints
    LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    UPDATE webhook_endpoints e SET status = 'disabled', disabled_reason = coalesce(e.disabled_reason, 'admin'),
            disabled_at = coalesce(e.disabled_at, clock_timestamp()), version = e.version + 1
        WHERE e.id = p_id RETURNING e.*;
END;

-- Move an endpoint's lanes and replays beyond what the feed was trimmed to. An entry in the log tells of each lane, with its
-- key as the event's id: the event itself is gone.
CREATE FUNCTION webhook_skip_v1(p_id uuid, p_trimmed_to bigint) RETURNS void
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO webhook_attempts (endpoint_id, event_id, type, source, attempt, outcome, failure, duration_ms, answer)
        SELECT p_id, l.key, 'webhook.skip.v1', 'feed', greatest(l.attempts, 1),
            'skipped', 'events_trimmed', 0,
            format('Events that waited between positions %s and %s were trimmed.', l.position, p_trimmed_to)
        FROM webhook_lanes l WHERE l.endpoint_id = p_id AND l.position <= p_trimmed_to;
    DELETE FROM webhook_lanes l WHERE l.endpoint_id = p_id AND NOT l.is_ordered AND l.position <= p_trimmed_to;
    UPDATE webhook_lanes l SET position = p_trimmed_to + 1, attempts = 0
        WHERE l.endpoint_id = p_id AND l.position <= p_trimmed_to;
    UPDATE webhook_replays r SET position = least(p_trimmed_to, r.until_position), attempts = 0,
            finished_at = CASE WHEN r.until_position <= p_trimmed_to THEN clock_timestamp() END
        WHERE r.endpoint_id = p_id AND r.finished_at IS NULL AND r.position < p_trimmed_to;
END $$;

-- Go on delivering to an endpoint from its place in the feed, at once. If the feed was trimmed beyond that, or beyond what
-- its lanes and replays wait for, refuse. With p_skips_trimmed go on where the feed begins now: the skipped heads of lanes
-- are in the log, and the lanes and replays begin there too.
CREATE FUNCTION webhook_enable_v1(p_id uuid, p_skips_trimmed boolean) RETURNS SETOF webhook_endpoints
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    head events_head;
    last bigint;
BEGIN
    SELECT * INTO STRICT head FROM events_head h;
    SELECT least(e.position, head.position) INTO last FROM webhook_endpoints e WHERE e.id = p_id FOR UPDATE;
    IF NOT p_skips_trimmed AND (last < head.trimmed_to
            OR EXISTS (SELECT FROM webhook_lanes l WHERE l.endpoint_id = p_id AND l.position <= head.trimmed_to)
            OR EXISTS (SELECT FROM webhook_replays r
                WHERE r.endpoint_id = p_id AND r.finished_at IS NULL AND r.position < head.trimmed_to)) THEN
        RAISE EXCEPTION 'webhook_events_trimmed' USING ERRCODE = 'WA052';
    END IF;
    PERFORM webhook_skip_v1(p_id, head.trimmed_to);
    UPDATE webhook_lanes l SET next_at = clock_timestamp() WHERE l.endpoint_id = p_id;
    UPDATE webhook_replays r SET next_at = clock_timestamp() WHERE r.endpoint_id = p_id AND r.finished_at IS NULL;
    RETURN QUERY UPDATE webhook_endpoints e SET status = 'enabled', disabled_reason = NULL, disabled_at = NULL,
            notice_owed = false, feed_id = head.feed_id, position = greatest(last, head.trimmed_to), failures = 0,
            failing_since = NULL, next_at = clock_timestamp(), version = e.version + 1
        WHERE e.id = p_id RETURNING e.*;
END $$;

-- Give an endpoint its next secret. Those that it replaced in the last day sign too, nine at most.
CREATE FUNCTION webhook_rotate_v1(p_id uuid) RETURNS SETOF webhook_endpoints
    LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    UPDATE webhook_endpoints e
        SET secret_epoch = e.secret_epoch + 1, rotated_at = clock_timestamp(), version = e.version + 1,
            replaced_at = (array_prepend(clock_timestamp(), e.replaced_at))[:9]
        WHERE e.id = p_id RETURNING e.*;
END;

-- Send events again from after a position up to another. An endpoint has a hundred unfinished replays at most.
CREATE FUNCTION webhook_replay_v1(p_endpoint_id uuid, p_position bigint, p_until bigint, p_types text[])
    RETURNS webhook_replays LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    made webhook_replays;
BEGIN
    PERFORM FROM webhook_endpoints e WHERE e.id = p_endpoint_id FOR UPDATE;   -- Simultaneous requests count each other.
    IF (SELECT count(*) FROM webhook_replays r WHERE r.endpoint_id = p_endpoint_id AND r.finished_at IS NULL) >= 100 THEN
        RAISE EXCEPTION 'too_many_webhook_replays' USING ERRCODE = 'WA053', DETAIL = '{"limit": 100}';
    END IF;
    INSERT INTO webhook_replays (endpoint_id, position, until_position, types)
        VALUES (p_endpoint_id, p_position, p_until, p_types) RETURNING * INTO made;
    RETURN made;
END $$;

-- Note an attempt that an admin asked for as a test. No row: the endpoint was deleted meanwhile.
CREATE FUNCTION webhook_tested_v1(
    p_endpoint_id uuid, p_event_id uuid, p_type text, p_outcome text, p_status integer, p_failure text,
    p_duration_ms integer, p_answer text) RETURNS SETOF webhook_attempts
    LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    INSERT INTO webhook_attempts
            (endpoint_id, event_id, type, source, attempt, outcome, status, failure, duration_ms, answer)
        SELECT e.id, p_event_id, p_type, 'test', 1, p_outcome, p_status, p_failure, p_duration_ms, p_answer
        FROM webhook_endpoints e WHERE e.id = p_endpoint_id FOR KEY SHARE
        RETURNING *;
END;

------------------------------------------------------------------------------------------------------------------------
-- Delivery
------------------------------------------------------------------------------------------------------------------------

-- The endpoints that nobody delivers to now, and for which something is due: an event, a lane, a replay, or a notice to the
-- admins. Of an endpoint of another feed than the tenant's nothing is, until it is enabled again.
-- Is anything due: SELECT EXISTS (SELECT FROM webhooks_due)
CREATE VIEW webhooks_due WITH (security_invoker) AS
    SELECT e.id, e.lease_until FROM webhook_endpoints e CROSS JOIN events_head h
    WHERE e.lease_until <= clock_timestamp() AND (e.notice_owed
        OR e.status = 'enabled' AND e.next_at <= clock_timestamp() AND e.feed_id = h.feed_id AND (
            h.position > e.position
            OR EXISTS (SELECT FROM webhook_lanes l WHERE l.endpoint_id = e.id AND l.next_at <= clock_timestamp())
            OR EXISTS (SELECT FROM webhook_replays r
                WHERE r.endpoint_id = e.id AND r.finished_at IS NULL AND r.next_at <= clock_timestamp())));

-- As before, with the deliveries.
CREATE OR REPLACE VIEW events_waiting WITH (security_invoker) AS
    SELECT (SELECT e.n FROM events e WHERE e.position IS NULL ORDER BY e.n DESC LIMIT 1) IS NOT NULL AS has_events,
        EXISTS (SELECT FROM webhooks_due) AS has_deliveries;

-- Lease the endpoint p_id, or the one that has waited longest; no row if it is not due. Also forgets what is old.
CREATE FUNCTION webhook_claim_v1(p_by uuid, p_seconds integer, p_id uuid DEFAULT NULL) RETURNS SETOF webhook_endpoints
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    claimed webhook_endpoints;
BEGIN
    SELECT e.* INTO claimed FROM webhook_endpoints e
        WHERE e.lease_until <= clock_timestamp() AND e.id IN (SELECT d.id FROM webhooks_due d)
            AND (p_id IS NULL OR e.id = p_id)
        ORDER BY e.lease_until, e.id LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF claimed.trimmed_at < clock_timestamp() - interval '10 minutes' THEN
        PERFORM webhook_trim_v1(claimed.id, 30, 10000, 1000);
    END IF;
    RETURN QUERY UPDATE webhook_endpoints e
        SET lease_by = p_by, lease_until = clock_timestamp() + make_interval(secs => p_seconds)
        WHERE e.id = claimed.id RETURNING e.*;
END $$;

-- Forget attempts and finished replays that are older than p_days, and attempts beyond the newest p_kept; p_most of each at
-- once. Returns the number of attempts.
CREATE FUNCTION webhook_trim_v1(p_id uuid, p_days integer, p_kept integer, p_most integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    oldest  constant timestamptz := clock_timestamp() - make_interval(days => p_days);
    last    timestamptz;
    trimmed bigint;
BEGIN
    SELECT a.at INTO last FROM webhook_attempts a WHERE a.endpoint_id = p_id ORDER BY a.at DESC, a.id DESC
        OFFSET p_kept LIMIT 1;
    DELETE FROM webhook_attempts a WHERE a.id IN (
        SELECT o.id FROM webhook_attempts o WHERE o.endpoint_id = p_id AND (o.at < oldest OR o.at <= last)
        ORDER BY o.at, o.id LIMIT p_most);
    GET DIAGNOSTICS trimmed = ROW_COUNT;
    DELETE FROM webhook_replays r WHERE r.id IN (
        SELECT o.id FROM webhook_replays o WHERE o.endpoint_id = p_id AND o.finished_at < oldest LIMIT p_most);
    -- If there was more than this call may take, the next one goes on at once.
    UPDATE webhook_endpoints e SET trimmed_at = clock_timestamp() WHERE e.id = p_id AND trimmed < p_most;
    RETURN trimmed;
END $$;

-- Note what came of a round of deliveries, if p_by still has the lease and the feed is the same. True if so. What disables
-- the endpoint has an entry in the audit log. p_seconds is how long p_by keeps the lease; 0 returns it. Members of p_done:
-- feed_id, position, delivered, failures, is_failing, pause_seconds, disabled_reason, lanes, replays, parked, unparked,
-- attempts.
CREATE FUNCTION webhook_settle_v1(p_id uuid, p_by uuid, p_seconds integer, p_done jsonb) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    moment   constant timestamptz := clock_timestamp();
    reason   text                 := p_done ->> 'disabled_reason';
    endpoint webhook_endpoints;
BEGIN
    SELECT * INTO endpoint FROM webhook_endpoints e
        WHERE e.id = p_id AND e.lease_by = p_by AND e.feed_id = (p_done ->> 'feed_id')::uuid FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF (p_done ->> 'is_failing')::boolean AND (p_done ->> 'delivered')::bigint = 0
            AND endpoint.failing_since < moment - interval '5 days' THEN
        reason := coalesce(reason, 'failing');
    END IF;
    IF endpoint.status = 'disabled' THEN
        reason := NULL;   -- An admin was faster.
    END IF;
    UPDATE webhook_endpoints e SET
        position = coalesce((p_done ->> 'position')::bigint, e.position),
        delivered = e.delivered + (p_done ->> 'delivered')::bigint,
        last_delivered_at = CASE WHEN (p_done ->> 'delivered')::bigint > 0 THEN moment ELSE e.last_delivered_at END,
        failures = (p_done ->> 'failures')::integer,
        failing_since = CASE WHEN (p_done ->> 'delivered')::bigint > 0 THEN NULL
            WHEN (p_done ->> 'is_failing')::boolean THEN coalesce(e.failing_since, moment) ELSE e.failing_since END,
        next_at = CASE WHEN (p_done ->> 'pause_seconds')::float8 > 0
            THEN moment + make_interval(secs => (p_done ->> 'pause_seconds')::float8) ELSE e.next_at END,
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
        SELECT p_id, d.key, d.is_ordered, d.position, d.attempts, moment + make_interval(secs => d.delay_seconds)
        FROM jsonb_to_recordset(p_done -> 'lanes')
            AS d (key uuid, is_ordered boolean, position bigint, attempts integer, delay_seconds float8)
        WHERE d.position IS NOT NULL
        ON CONFLICT (endpoint_id, key) DO UPDATE
            SET position = excluded.position, attempts = excluded.attempts, next_at = excluded.next_at;
    UPDATE webhook_replays r SET position = d.position, attempts = d.attempts, delivered = r.delivered + d.delivered,
            next_at = moment + make_interval(secs => d.delay_seconds),
            finished_at = CASE WHEN d.position >= r.until_position THEN moment END
        FROM jsonb_to_recordset(p_done -> 'replays')
            AS d (id uuid, position bigint, attempts integer, delivered bigint, delay_seconds float8)
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

-- Note that the admins were told, and return the lease.
CREATE FUNCTION webhook_noticed_v1(p_id uuid, p_by uuid) RETURNS boolean
    LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    WITH noticed AS (
        UPDATE webhook_endpoints e SET notice_owed = false, lease_by = NULL, lease_until = clock_timestamp()
        WHERE e.id = p_id AND e.lease_by = p_by RETURNING e.id)
    SELECT count(*) = 1 FROM noticed;
END;

-- The position up to which no enabled endpoint of this feed needs the events any more, with its lanes and replays, and for
-- thirty days with its parked events, which an admin may resend; null if there is no such endpoint.
CREATE FUNCTION webhooks_passed_v1() RETURNS bigint
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    RETURN (
        SELECT min(least(e.position,
            (SELECT min(l.position) - 1 FROM webhook_lanes l WHERE l.endpoint_id = e.id),
            (SELECT min(r.position) FROM webhook_replays r WHERE r.endpoint_id = e.id AND r.finished_at IS NULL),
            (SELECT min(p.position) - 1 FROM webhook_parked p
                WHERE p.endpoint_id = e.id AND p.parked_at > clock_timestamp() - interval '30 days')))
        FROM webhook_endpoints e JOIN events_head h ON h.feed_id = e.feed_id WHERE e.status = 'enabled');
END $$;

-- As before, with webhooks.
CREATE OR REPLACE VIEW events_passed WITH (security_invoker) AS
    SELECT webhooks_passed_v1() AS by_webhooks, NULL::bigint AS by_broker;

DO $$
DECLARE
    tenant_role text := current_setting('tenant_schemas.tenant_role');
BEGIN
    EXECUTE format('GRANT SELECT ON webhook_endpoints, webhook_lanes, webhook_parked, webhook_replays, webhook_attempts,'
        ' webhooks_due TO %I', tenant_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION webhook_create_v1, webhook_change_v1, webhook_delete_v1,'
        ' webhook_disable_v1, webhook_enable_v1, webhook_rotate_v1, webhook_replay_v1, webhook_tested_v1,'
        ' webhook_claim_v1, webhook_trim_v1, webhook_settle_v1, webhook_noticed_v1,'
        ' webhooks_passed_v1 TO %I', tenant_role);
END $$;
