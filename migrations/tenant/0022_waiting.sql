-- The relay's question to a tenant by a function, whose plans a session keeps. Frozen once merged.

-- What the relay has to do for this tenant. The relay asks all tenants each second, so this decides what a quiet fleet
-- costs: as a query in the view, it took four times as long, nearly all of it planning. What is due for webhooks is asked, and planned,
-- only if there are any.
--
-- The newest event is asked for: while a snapshot is held, thousands of numbered ones may still stand in the index below
-- it. An installation without a broker has no cursor, and all of its events are unpublished.
CREATE FUNCTION events_waiting_v1(OUT has_events boolean, OUT has_deliveries boolean, OUT has_unpublished boolean)
    LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
BEGIN
    SELECT (SELECT e.n FROM events e WHERE e.position IS NULL ORDER BY e.n DESC LIMIT 1) IS NOT NULL,
        EXISTS (SELECT FROM webhook_endpoints),
        EXISTS (SELECT FROM events_head h WHERE h.position > coalesce(
            (SELECT c.position FROM event_cursors c WHERE c.sink = 'broker'), h.trimmed_to))
        INTO has_events, has_deliveries, has_unpublished;
    IF has_deliveries THEN
        has_deliveries := EXISTS (SELECT FROM webhooks_due);
    END IF;
END $$;

CREATE OR REPLACE VIEW events_waiting WITH (security_invoker) AS
    SELECT w.has_events, w.has_deliveries, w.has_unpublished FROM events_waiting_v1() w;

DO $$
DECLARE
    tenant_role text := current_setting('tenant_schemas.tenant_role');
BEGIN
    EXECUTE format('GRANT EXECUTE ON FUNCTION events_waiting_v1 TO %I', tenant_role);
END $$;
