-- What the migrator calls in each tenant's db transaction, and stamps of the last look for drift. Frozen once merged.
--
-- The functions run with the rights of the caller, who is the owner of all. A session compiles and plans them once,
-- instead of the same statements for each tenant.

-- The first call in a tenant's db transaction, before any step. It locks the tenant's row of the registry, and raises
-- TS001 unless the steps begin where the registry and the schema's version table say that the schema is.
-- p_bound_schema is the schema that the caller's search_path resolves to: this function has a search_path of its own, so
-- that its plans are kept. p_target is what the version table says from here on: p_revision, if the steps write it.
CREATE FUNCTION shared.migration_begin_v1(
    p_bound_schema text, p_tenant_id uuid, p_slug text, p_schema_name text, p_role_name text, p_revision text,
    p_target text) RETURNS void
    LANGUAGE plpgsql SET search_path FROM CURRENT SET plan_cache_mode TO force_generic_plan AS $$
DECLARE
    written text;
    count   bigint;
BEGIN
    IF p_bound_schema IS DISTINCT FROM p_schema_name THEN
        RAISE EXCEPTION 'The search_path does not resolve to schema % alone: check that the schema exists.',
            p_schema_name USING ERRCODE = 'TS001';
    END IF;
    PERFORM FROM shared.tenants t WHERE t.id = p_tenant_id AND t.schema_name = p_schema_name
        AND t.role_name = p_role_name AND t.revision = p_revision FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'The registry no longer says that % is at revision %: run migrate again.', p_slug, p_revision
            USING ERRCODE = 'TS001';
    END IF;
    -- Without WHERE, so that a second row is seen. What is written into another row is rolled back.
    EXECUTE format('UPDATE %I.alembic_version SET version_num = CASE version_num WHEN %L THEN %L ELSE %L END'
        ' RETURNING version_num', p_schema_name, p_revision, p_target, '') INTO written;
    GET DIAGNOSTICS count = ROW_COUNT;
    IF count <> 1 OR written <> p_target THEN
        RAISE EXCEPTION 'Schema % is not at revision %, as the registry says: it was changed by hand. Correct its version'
            ' table or the registry.', p_schema_name, p_revision USING ERRCODE = 'TS001';
    END IF;
END;
$$;

-- The last call in a tenant's db transaction: the registry says where the schema is, and the run that it is done.
CREATE FUNCTION shared.migration_done_v1(p_run_id uuid, p_tenant_id uuid, p_target text) RETURNS void
    LANGUAGE plpgsql SET search_path FROM CURRENT SET plan_cache_mode TO force_generic_plan AS $$
BEGIN
    UPDATE shared.tenants t SET revision = p_target WHERE t.id = p_tenant_id;
    UPDATE shared.migration_outcomes o SET status = 'done', attempts = o.attempts + 1, error = NULL, sqlstate = NULL,
        finished_at = clock_timestamp() WHERE o.run_id = p_run_id AND o.tenant_id = p_tenant_id;
END;
$$;

-- The last full look for drift at each schema. While the stamp of the catalogue's rows is the same, so is the schema's
-- fingerprint, and nobody need compute it again.
CREATE TABLE shared.schema_stamps (
    schema_name text  NOT NULL,
    stamp       bytea NOT NULL,   -- sha256 of the versions of the rows, and of what else decides the fingerprint
    fingerprint text  NOT NULL,
    CONSTRAINT schema_stamps_pkey PRIMARY KEY (schema_name)
);
ALTER TABLE shared.schema_stamps ENABLE ROW LEVEL SECURITY;
CREATE POLICY schema_stamps_for_app ON shared.schema_stamps FOR SELECT TO wallet_app USING (true);
GRANT SELECT ON shared.schema_stamps TO wallet_app;
