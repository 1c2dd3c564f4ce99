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

DO $$
DECLARE
    tenant_role text := current_setting('tenant_schemas.tenant_role');
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON event_cursors TO %I', tenant_role);
END $$;
