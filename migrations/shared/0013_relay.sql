-- The relay's login. Frozen once merged.
--
-- It finds the tenants that have events to number or deliveries to make, and sees no event: the work itself is done under
-- each tenant's login.

DO $$
BEGIN
    IF to_regrole('wallet_relay') IS NULL THEN
        RAISE EXCEPTION 'role wallet_relay does not exist: run `python -m scripts.create_roles`, then migrate again'
            USING ERRCODE = 'undefined_object';
    END IF;
END $$;

GRANT USAGE ON SCHEMA shared TO wallet_relay;
GRANT SELECT ON shared.tenants TO wallet_relay;
CREATE POLICY tenants_for_relay ON shared.tenants FOR SELECT TO wallet_relay USING (true);

-- Those of the schemas whose tenant has something to do, by its view events_waiting. A schema that is missing, is behind
-- the revision with the view, or is locked just now is left out, and so is one with any other error, which goes to the
-- server's log: none keeps the others from their answer.
--
-- Each answer ends with an error of our own, which takes the locks of its tables back: there is not room for the locks of
-- thousands of schemas at once.
CREATE FUNCTION shared.events_waiting_v1(
    schema_names text[], OUT schema_name text, OUT has_events boolean, OUT has_deliveries boolean,
    OUT has_unpublished boolean)
    RETURNS SETOF record LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout TO '20ms'
    SET jit TO off AS $$
BEGIN
    FOREACH schema_name IN ARRAY schema_names LOOP
        has_events := false;
        has_deliveries := false;
        has_unpublished := false;
        BEGIN
            EXECUTE format(
                'SELECT w.has_events, w.has_deliveries, w.has_unpublished FROM %I.events_waiting w', schema_name)
                INTO has_events, has_deliveries, has_unpublished;
            RAISE EXCEPTION 'answered' USING ERRCODE = 'WA091';
        EXCEPTION
            WHEN SQLSTATE 'WA091' OR undefined_table OR undefined_column
                OR invalid_schema_name OR lock_not_available THEN
                NULL;
            WHEN OTHERS THEN
                RAISE LOG 'schema % was not asked for waiting events: % (%)', schema_name, SQLERRM, SQLSTATE;
        END;
        IF has_events OR has_deliveries OR has_unpublished THEN
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;
GRANT EXECUTE ON FUNCTION shared.events_waiting_v1 TO wallet_relay;
