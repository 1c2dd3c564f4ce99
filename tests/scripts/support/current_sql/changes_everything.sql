-- What comes of gadgets. Frozen once merged.

DROP INDEX gadgets_dropped_idx;
DROP TRIGGER gadgets_dropped ON gadgets;
DROP POLICY gadgets_dropped ON gadgets;
DROP TABLE leftovers;
ALTER TABLE gadgets ENABLE TRIGGER gadgets_kept;
-- squawk-ignore ban-drop-column
ALTER TABLE gadgets DROP COLUMN old_name;
ALTER TABLE gadgets ALTER COLUMN height TYPE bigint USING height::bigint;
ALTER TABLE gadgets ALTER COLUMN weight SET DEFAULT 1 + 1;
ALTER TABLE gadgets ALTER COLUMN weight SET NOT NULL;
ALTER TABLE gadgets ALTER wallet_id DROP NOT NULL;
ALTER TABLE gadgets ALTER COLUMN note DROP DEFAULT;
ALTER TABLE gadgets ALTER COLUMN charge DROP NOT NULL;
ALTER TABLE gadgets ALTER COLUMN charge SET STATISTICS 7;
ALTER TABLE gadgets ADD COLUMN doubled numeric GENERATED ALWAYS AS (size * 2) STORED;
ALTER TABLE gadgets DROP CONSTRAINT gadgets_small;
-- The smallest.
ALTER TABLE gadgets DROP CONSTRAINT gadgets_note_key;
ALTER TABLE gadgets ADD CONSTRAINT gadgets_note_key
    UNIQUE (note, size);
-- Whose it is.
ALTER TABLE gadgets ADD CONSTRAINT gadgets_wallet_fkey FOREIGN KEY (wallet_id) REFERENCES wallets (id) NOT VALID;
ALTER TABLE gadgets VALIDATE CONSTRAINT gadgets_wallet_fkey;
ALTER TABLE gadgets ADD CONSTRAINT gadgets_unproved CHECK (size < 90) NOT VALID;
ALTER TABLE gadgets ADD CONSTRAINT gadgets_gone CHECK (size < 91) NOT VALID;
ALTER TABLE gadgets DROP CONSTRAINT gadgets_gone;
CREATE UNIQUE INDEX gadgets_gone_key ON gadgets (id, weight);
ALTER TABLE gadgets ADD CONSTRAINT gadgets_gone_key UNIQUE USING INDEX gadgets_gone_key;
ALTER TABLE gadgets DROP CONSTRAINT gadgets_gone_key;
CREATE UNIQUE INDEX gadgets_becomes_key ON gadgets (id, size);
ALTER TABLE gadgets ADD CONSTRAINT gadgets_becomes_key UNIQUE USING INDEX gadgets_becomes_key;
ALTER TABLE wallets ADD COLUMN gadget_id uuid;
ALTER TABLE wallets ADD CONSTRAINT wallets_gadget_fkey FOREIGN KEY (gadget_id) REFERENCES gadgets (id);

-- The view has three.
CREATE OR REPLACE VIEW gadgets_shown WITH (security_invoker) AS SELECT g.id, g.size, g.mood FROM gadgets g;
CREATE FUNCTION gadget_weight_v2(gadget gadgets, factor integer) RETURNS bigint LANGUAGE sql IMMUTABLE
RETURN gadget.weight * factor;
REVOKE DELETE ON gadgets FROM wallet_app;
REVOKE ALL ON gadgets_shown FROM wallet_backup;
REVOKE EXECUTE ON FUNCTION gadget_weight_v2(gadgets, integer) FROM PUBLIC;
DO $$ BEGIN
    EXECUTE format('REVOKE EXECUTE ON FUNCTION gadget_kept_v1 FROM %I', current_setting('tenant_schemas.tenant_role'));
END $$;
