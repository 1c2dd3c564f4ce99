-- A tenant's row of the registry says how often it has changed. Frozen once merged.
--
-- A process that remembers the row proves with the version that it has not changed since.
ALTER TABLE shared.tenants ADD COLUMN version integer NOT NULL DEFAULT 1;

CREATE FUNCTION shared.tenants_count_version_v1() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    NEW.version := OLD.version + 1;
    RETURN NEW;
END $$;

CREATE TRIGGER tenants_count_version BEFORE UPDATE ON shared.tenants
    FOR EACH ROW EXECUTE FUNCTION shared.tenants_count_version_v1();
