-- The feed of events: what happens to wallets, holds and orders. Frozen once merged.
--
-- A trigger writes an event in the db transaction in which it happens, so none is lost and none is about something that
-- was rolled back. It has no position yet: events_stamp_v1 numbers later what is committed, without gaps. A reader's place
-- in the feed is a position, never `n`: numbers of a sequence become visible in another order than they were given out.

-- Taken under the lock of the event's wallet, so of two events of one wallet the later has the greater number.
CREATE SEQUENCE events_n;

-- `id` of a movement's event is the movement's. `data` is what can't be read from the event's object any more when it has
-- changed again; it has neither personal data nor ids of users. What does not change is read from the object: a
-- movement's event has no data. `position` is null until the event is numbered.
--
-- The two indexes of numbered events are partial, so that a posting writes into two indexes only. Numbering writes each row
-- once more: the room left on each page takes the second version.
CREATE TABLE events (
    id          uuid        NOT NULL,
    n           bigint      NOT NULL DEFAULT nextval('events_n'),
    type        text        NOT NULL,
    wallet_id   uuid,
    subject_id  uuid,                   -- the hold or the order
    data        jsonb,
    traceparent text,                   -- of the request that caused it (W3C Trace Context)
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    position    bigint,
    CONSTRAINT events_pkey PRIMARY KEY (id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_insert_scale_factor = 0.01,
    autovacuum_analyze_scale_factor = 0.01);
CREATE UNIQUE INDEX events_position_idx ON events (position) WHERE position IS NOT NULL;
CREATE INDEX events_wallet_id_position_idx ON events (wallet_id, position) WHERE position IS NOT NULL;
CREATE INDEX events_unstamped_n_idx ON events (n) WHERE position IS NULL;

-- The head of the feed. `feed_id` is its epoch: after a restore or in a clone it is another one, and positions of the
-- former feed mean nothing. All movements from `started_at` on have an event; those up to `trimmed_to` are deleted.
CREATE TABLE events_head (
    one        boolean     NOT NULL DEFAULT true,
    feed_id    uuid        NOT NULL,
    position   bigint      NOT NULL DEFAULT 0,
    trimmed_to bigint      NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT events_head_pkey PRIMARY KEY (one),
    CONSTRAINT events_head_is_one_row CHECK (one),
    CONSTRAINT events_head_trimmed_up_to_position CHECK (trimmed_to BETWEEN 0 AND position)
) WITH (fillfactor = 50);

-- The event of a movement.
CREATE FUNCTION events_of_movement_v1() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO events (id, type, wallet_id, traceparent) VALUES (NEW.id, 'wallet.' || NEW.type || '.posted.v1',
        NEW.wallet_id, nullif(current_setting('wallet.traceparent', true), ''));
    RETURN NULL;
END $$;

-- The event of a new hold, or of what became of it. A capture is told by the captured amount, which it raises.
CREATE FUNCTION events_of_hold_v1() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    happened text := 'authorised';
BEGIN
    IF TG_OP = 'UPDATE' THEN
        happened := CASE WHEN NEW.captured_minor <> OLD.captured_minor THEN 'captured' ELSE NEW.status END;
    END IF;
    INSERT INTO events (id, type, wallet_id, subject_id, data, traceparent) VALUES (
        gen_random_uuid(), 'hold.' || happened || '.v1', NEW.wallet_id, NEW.id,
        jsonb_build_object('status', NEW.status, 'capturedMinor', NEW.captured_minor),
        nullif(current_setting('wallet.traceparent', true), ''));
    RETURN NULL;
END $$;

-- The events of a new wallet, or of a change of its status and of its limit.
CREATE FUNCTION events_of_wallet_v1() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    happened text[];
BEGIN
    IF TG_OP = 'INSERT' THEN
        happened := '{opened}';
    ELSE
        happened := array_remove(ARRAY[
            CASE WHEN NEW.status <> OLD.status THEN CASE NEW.status
                WHEN 'active' THEN 'unfrozen' ELSE NEW.status END END,
            CASE WHEN NEW.credit_limit_minor <> OLD.credit_limit_minor THEN 'limit_changed' END], NULL);
    END IF;
    INSERT INTO events (id, type, wallet_id, data, traceparent)
        SELECT gen_random_uuid(), 'wallet.' || h.word || '.v1', NEW.id, jsonb_strip_nulls(jsonb_build_object(
                'status', NEW.status, 'creditLimitMinor', NEW.credit_limit_minor,
                'creditLimitBeforeMinor', CASE WHEN TG_OP = 'UPDATE' THEN OLD.credit_limit_minor END)),
            nullif(current_setting('wallet.traceparent', true), '')
        FROM unnest(happened) AS h (word);
    RETURN NULL;
END $$;

-- The event of a new order, or of its cancelling.
CREATE FUNCTION events_of_order_v1() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO events (id, type, wallet_id, subject_id, traceparent) VALUES (
        gen_random_uuid(), CASE WHEN TG_OP = 'INSERT' THEN 'order.placed.v1' ELSE 'order.cancelled.v1' END,
        NEW.wallet_id, NEW.id, nullif(current_setting('wallet.traceparent', true), ''));
    RETURN NULL;
END $$;

CREATE TRIGGER wallet_transactions_event AFTER INSERT ON wallet_transactions
    FOR EACH ROW EXECUTE FUNCTION events_of_movement_v1();
CREATE TRIGGER holds_event_of_insert AFTER INSERT ON holds
    FOR EACH ROW EXECUTE FUNCTION events_of_hold_v1();
CREATE TRIGGER holds_event_of_update AFTER UPDATE OF status, captured_minor ON holds
    FOR EACH ROW WHEN (NEW.status <> OLD.status OR NEW.captured_minor <> OLD.captured_minor)
    EXECUTE FUNCTION events_of_hold_v1();
CREATE TRIGGER wallets_event_of_insert AFTER INSERT ON wallets
    FOR EACH ROW EXECUTE FUNCTION events_of_wallet_v1();
-- A posting sets neither column, so it pays nothing for this trigger.
CREATE TRIGGER wallets_event_of_update AFTER UPDATE OF status, credit_limit_minor ON wallets
    FOR EACH ROW WHEN (NEW.status <> OLD.status OR NEW.credit_limit_minor <> OLD.credit_limit_minor)
    EXECUTE FUNCTION events_of_wallet_v1();
CREATE TRIGGER orders_event_of_insert AFTER INSERT ON orders
    FOR EACH ROW EXECUTE FUNCTION events_of_order_v1();
CREATE TRIGGER orders_event_of_update AFTER UPDATE OF status ON orders
    FOR EACH ROW WHEN (NEW.status <> OLD.status) EXECUTE FUNCTION events_of_order_v1();

-- The head is made after the triggers: making them waited for all writers, so who wrote without them has committed. A
-- movement is never earlier than the one before, so whatever the clock did, none without an event is from then on.
INSERT INTO events_head (feed_id, started_at)
    SELECT gen_random_uuid(), greatest(clock_timestamp(), max(w.last_posted_at) + interval '1 microsecond') FROM wallets w;

-- Number up to max_events of the events that are committed and have no position, and return how many. Positions have no
-- gaps. Any number of callers may run at once: the head's lock, which each holds to the end of its db transaction, puts
-- them one after the other. So who sees a position sees all lower ones.
--
-- The events of a wallet commit in the order of `n`, for its lock is held until then: what is seen here of one wallet has
-- no hole, and its order is kept. Between wallets there is none. The lock and the numbering are two statements, because
-- the second must see what was committed while the first waited.
CREATE FUNCTION events_stamp_v1(max_events integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off
    SET plan_cache_mode TO force_generic_plan AS $$
DECLARE
    head    bigint;
    stamped integer;
BEGIN
    PERFORM FROM events e WHERE e.position IS NULL ORDER BY e.n DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    SELECT h.position INTO STRICT head FROM events_head h FOR UPDATE;
    WITH waiting AS MATERIALIZED (
        SELECT w.id, row_number() OVER (ORDER BY w.n) AS place
        FROM (SELECT e.id, e.n FROM events e WHERE e.position IS NULL ORDER BY e.n LIMIT max_events) w
    ) UPDATE events e SET position = head + w.place FROM waiting w WHERE e.id = w.id;
    GET DIAGNOSTICS stamped = ROW_COUNT;
    UPDATE events_head h SET position = head + stamped WHERE stamped > 0;
    RETURN stamped;
END $$;

-- The last position that no webhook needs any more, and the last that the broker doesn't; null if there is no such reader.
-- Later revisions replace the view, as they add readers.
CREATE VIEW events_passed WITH (security_invoker) AS
    SELECT NULL::bigint AS by_webhooks, NULL::bigint AS by_broker;

-- Delete the oldest numbered events, up to max_events: none that is younger than older_than, which is a day or more, and
-- none that a webhook still needs, or the broker if there is one. Returns how many. What is deleted is always the beginning
-- of the feed. A movement stays in the ledger, from which its event can be made again.
--
-- The age is compared as a moment, for a month has no fixed length: '-12 mon 361 days' counts as one day and lies ahead.
--
-- Locks the feed's head, as numbering does; postings don't wait for it.
CREATE FUNCTION events_trim_v1(older_than interval, has_broker boolean, max_events integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
DECLARE
    head    events_head;
    last    bigint;
    moment  timestamptz := clock_timestamp() - older_than;
    trimmed integer;
BEGIN
    IF moment IS NULL OR has_broker IS NULL OR max_events IS NULL THEN
        RAISE EXCEPTION 'events_trim_v1 takes no null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF moment > clock_timestamp() - interval '1 day' THEN
        RAISE EXCEPTION 'events are kept for a day or longer' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT * INTO STRICT head FROM events_head FOR UPDATE;
    SELECT least(head.position, head.trimmed_to + max_events, p.by_webhooks, CASE WHEN has_broker THEN p.by_broker END)
        INTO STRICT last FROM events_passed p;
    SELECT least(last, min(e.position) - 1) INTO last FROM events e
        WHERE e.position > head.trimmed_to AND e.position <= last AND e.at >= moment;
    IF last <= head.trimmed_to THEN
        RETURN 0;
    END IF;
    DELETE FROM events e WHERE e.position > head.trimmed_to AND e.position <= last;
    GET DIAGNOSTICS trimmed = ROW_COUNT;
    UPDATE events_head SET trimmed_to = last;
    RETURN trimmed;
END $$;

-- What the relay has to do for this tenant; shared.events_waiting_v1 asks. Later revisions replace it by one that knows of
-- more, so it is a view. The newest event is asked for: while a snapshot is held, thousands of numbered ones may still
-- stand in the index below it.
CREATE VIEW events_waiting WITH (security_invoker) AS
    SELECT (SELECT e.n FROM events e WHERE e.position IS NULL ORDER BY e.n DESC LIMIT 1) IS NOT NULL AS has_events,
        false AS has_deliveries;

DO $$
DECLARE
    tenant_role text := current_setting('tenant_schemas.tenant_role');
BEGIN
    EXECUTE format('GRANT SELECT ON events, events_head, events_passed, events_waiting TO %I', tenant_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION events_stamp_v1, events_trim_v1 TO %I', tenant_role);
END $$;
