-- Gadgets, to try what a revision may do. Frozen once merged.
--
-- They are of no use.

-- A gadget.
CREATE TABLE gadgets (
    id        uuid NOT NULL DEFAULT gen_random_uuid(),
    wallet_id uuid NOT NULL,
    -- It has lost its use.
    old_name  text DEFAULT 'none, yet', -- of before
    size      numeric(4, 2) CONSTRAINT gadgets_size_positive CHECK (size > 0) CONSTRAINT gadgets_small CHECK (size < 9),
    weight    integer,
    height    integer,
    kept_by   uuid REFERENCES gadgets (id) ON DELETE SET NULL DEFAULT NULL,
    note      text NOT NULL DEFAULT '-- no comment',   -- the last column
    CONSTRAINT gadgets_pkey PRIMARY KEY (id),
    -- Two columns.
    CONSTRAINT gadgets_size_or_name CHECK (size > 1 OR old_name IS NULL),
    CONSTRAINT gadgets_note_key UNIQUE (note)   -- the last constraint
) WITH (fillfactor = 70);
-- The view below has two columns.
CREATE INDEX gadgets_old_name_idx ON gadgets (old_name);
CREATE VIEW gadgets_shown WITH (security_invoker) AS SELECT g.id, g.size FROM gadgets g;
CREATE UNIQUE INDEX gadgets_weight_key ON gadgets (weight) WHERE weight > 1;
-- By an extension of the shared history.
CREATE INDEX gadgets_note_idx ON gadgets USING gin (note shared.gin_trgm_ops);
CREATE INDEX gadgets_dropped_idx ON gadgets (size);
CREATE TABLE leftovers (id uuid PRIMARY KEY, gadget_id uuid REFERENCES gadgets (id) ON DELETE SET NULL);
CREATE INDEX leftovers_idx ON leftovers (gadget_id);
CREATE STATISTICS gadgets_statistics ON size, weight FROM gadgets;
CREATE STATISTICS gadgets_old_statistics ON size, old_name FROM gadgets;
CREATE TYPE mood AS ENUM ('good', 'bad');
ALTER TYPE mood ADD VALUE 'neither' BEFORE 'bad';
CREATE DOMAIN percent AS integer CHECK (VALUE BETWEEN 0 AND 100);
-- What it feels.
ALTER TABLE gadgets ADD mood mood DEFAULT 'good';
ALTER TABLE gadgets ADD COLUMN charge percent NOT NULL DEFAULT 100;

CREATE FUNCTION gadget_weight_v1(gadget gadgets) RETURNS integer LANGUAGE sql IMMUTABLE RETURN gadget.weight;
CREATE INDEX gadgets_by_function_idx ON gadgets (gadget_weight_v1(gadgets.*));
CREATE FUNCTION gadget_kept_v1() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    gadget gadgets; -- a comment; with a semicolon
BEGIN
    RETURN NULL;
END $$;
CREATE TRIGGER gadgets_kept BEFORE DELETE ON gadgets FOR EACH ROW EXECUTE FUNCTION gadget_kept_v1();
CREATE TRIGGER gadgets_kept_too BEFORE DELETE ON gadgets FOR EACH ROW EXECUTE FUNCTION gadget_kept_v1();
CREATE TRIGGER gadgets_dropped BEFORE DELETE ON gadgets FOR EACH ROW EXECUTE FUNCTION gadget_kept_v1();
ALTER TABLE gadgets DISABLE TRIGGER gadgets_kept_too;
ALTER TABLE gadgets DISABLE TRIGGER gadgets_kept;
ALTER TABLE gadgets ENABLE ROW LEVEL SECURITY;
ALTER TABLE gadgets FORCE ROW LEVEL SECURITY;
ALTER TABLE leftovers ENABLE ROW LEVEL SECURITY;
CREATE POLICY gadgets_seen ON gadgets FOR SELECT USING (size > 2 AND EXISTS (SELECT FROM reconciliations));
CREATE POLICY gadgets_dropped ON gadgets USING (true);
ALTER INDEX gadgets_weight_key SET (fillfactor = 80);
ALTER FUNCTION gadget_kept_v1 SECURITY DEFINER;
COMMENT ON TABLE gadgets IS 'of no use';
COMMENT ON COLUMN gadgets.size IS 'in inches';
COMMENT ON COLUMN gadgets.old_name IS 'of before';
COMMENT ON COLUMN gadgets.weight IS 'forgotten';
COMMENT ON COLUMN gadgets.weight IS NULL;
COMMENT ON VIEW gadgets_shown IS 'shown';
COMMENT ON FUNCTION gadget_weight_v1 IS 'weighs';
COMMENT ON INDEX gadgets_weight_key IS 'once';
COMMENT ON INDEX gadgets_dropped_idx IS 'never';
COMMENT ON TRIGGER gadgets_dropped ON gadgets IS 'never';
COMMENT ON CONSTRAINT gadgets_size_or_name ON gadgets IS 'one of them';
COMMENT ON CONSTRAINT gadgets_pkey ON gadgets IS 'the key';

INSERT INTO gadgets (wallet_id) SELECT w.id FROM wallets w;
DO $$
DECLARE
    tenant_role text := current_setting('tenant_schemas.tenant_role');
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE (size, old_name, weight) ON gadgets TO %I', tenant_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION gadget_weight_v1(gadgets)'
        ', gadget_kept_v1 TO %I', tenant_role);
END $$;
GRANT SELECT, DELETE ON TABLE gadgets, gadgets_shown TO wallet_app, wallet_backup;
