-- Where the broker stands in the feed, and what a relay has to do. Frozen once merged.
--
-- All events up to `position` were confirmed by the sink. While `lease_until` is not over, the relay process `lease_by`
-- works on it; no lock is held meanwhile. A restored tenant has the cursor of its backup, so that the sink gets events
-- again and misses none. A clone has no cursor.
CREATE TABLE event_cursors (
    sink        text        NOT NULL,
    feed_id     uuid        NOT NULL,
    position    bigint      NOT NULL,
    lease_by    uuid        NOT NULL,
    lease_until timestamptz NOT NULL,
    CONSTRAINT event_cursors_pkey PRIMARY KEY (sink),
    CONSTRAINT event_cursors_sink_is_known CHECK (sink = 'broker'),
    CONSTRAINT event_cursors_position_not_negative CHECK (position >= 0)
) WITH (fillfactor = 50);

-- As before, with webhooks and the broker. An installation without a broker has no cursor, and all of its events are
-- unpublished.
CREATE OR REPLACE VIEW events_waiting WITH (security_invoker) AS
    SELECT (SELECT e.n FROM events e WHERE e.position IS NULL ORDER BY e.n DESC LIMIT 1) IS NOT NULL AS has_events,
        EXISTS (SELECT FROM webhooks_due) AS has_deliveries,
        EXISTS (SELECT FROM events_head h WHERE h.position > coalesce(
            (SELECT c.position FROM event_cursors c WHERE c.sink = 'broker'), h.trimmed_to)) AS has_unpublished;

-- As before, with webhooks and the broker.
CREATE OR REPLACE VIEW events_passed WITH (security_invoker) AS
    SELECT webhooks_passed_v1() AS by_webhooks,
        (SELECT c.position FROM event_cursors c WHERE c.sink = 'broker') AS by_broker;

-- Lease the sink's cursor, and make it if it is missing: it starts at the oldest event that the feed still has. No row
-- while another process has the lease. A lease that ends later than one of now was taken before the clock was set back.
CREATE FUNCTION event_cursor_take_v1(p_sink text, p_by uuid, p_seconds float8) RETURNS SETOF event_cursors
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    RETURN QUERY INSERT INTO event_cursors AS known (sink, feed_id, position, lease_by, lease_until)
        SELECT p_sink, h.feed_id, h.trimmed_to, p_by, clock_timestamp() + make_interval(secs => p_seconds)
        FROM events_head h
        ON CONFLICT (sink) DO UPDATE
            SET feed_id = excluded.feed_id, position = greatest(known.position, excluded.position),
                lease_by = excluded.lease_by, lease_until = excluded.lease_until
            WHERE known.lease_until <= clock_timestamp() OR known.lease_by = excluded.lease_by
                OR known.lease_until > excluded.lease_until + interval '1 minute'
        RETURNING known.*;
END $$;

-- Note that the sink has all events up to a position, and end the lease of p_by. It counts also if another process has
-- the lease by now: otherwise two of them with a slow broker would take it from each other for ever, and neither could
-- note anything. False if the feed is another one since, or has no such position: no event may be passed that is not there.
CREATE FUNCTION event_cursor_move_v1(p_sink text, p_by uuid, p_feed_id uuid, p_position bigint) RETURNS boolean
    LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    WITH moved AS (
        UPDATE event_cursors c SET position = greatest(c.position, p_position),
            lease_until = CASE WHEN c.lease_by = p_by THEN clock_timestamp() ELSE c.lease_until END
        WHERE c.sink = p_sink AND c.feed_id = p_feed_id AND p_position <= (SELECT h.position FROM events_head h)
        RETURNING c.sink)
    SELECT count(*) = 1 FROM moved;
END;

DO $$
DECLARE
    tenant_role text := current_setting('tenant_schemas.tenant_role');
BEGIN
    EXECUTE format('GRANT SELECT ON event_cursors TO %I', tenant_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION event_cursor_take_v1, event_cursor_move_v1 TO %I', tenant_role);
END $$;
