-- The engine's own records of what was done to the fleet. Frozen once merged.
--
-- They tell of tenants that may be gone, so no foreign key leads from here to the registry. Only the scripts write them.

-- One run of the migrator. One without an end is under way, or was killed; the next run finds it and says so.
CREATE TABLE shared.migration_runs (
    id          uuid        NOT NULL,
    target      text        NOT NULL,   -- the revision to which it brings tenants
    started_by  text        NOT NULL,   -- user@host, and the number of the process there
    status      text        NOT NULL DEFAULT 'running',
    started_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    CONSTRAINT migration_runs_pkey PRIMARY KEY (id),
    CONSTRAINT migration_runs_status_known CHECK (status IN ('running', 'done', 'failed', 'stopped', 'killed')),
    CONSTRAINT migration_runs_end_is_known CHECK ((finished_at IS NULL) = (status = 'running'))
);
CREATE INDEX migration_runs_started_at_idx ON shared.migration_runs (started_at);

-- What became of one tenant in a run. `done` is written in the db transaction that did it.
CREATE TABLE shared.migration_outcomes (
    run_id          uuid        NOT NULL,
    tenant_id       uuid        NOT NULL,
    slug            text        NOT NULL,
    schema_name     text        NOT NULL,
    wave            integer     NOT NULL,
    revision_before text        NOT NULL,
    status          text        NOT NULL DEFAULT 'pending',
    attempts        integer     NOT NULL DEFAULT 0,
    sqlstate        text,
    error           text,
    blocked_by      text,                   -- who held the lock that it waited for, when that was seen
    finished_at     timestamptz,
    CONSTRAINT migration_outcomes_pkey PRIMARY KEY (run_id, tenant_id),
    CONSTRAINT migration_outcomes_run_id_fkey FOREIGN KEY (run_id) REFERENCES shared.migration_runs (id)
        ON DELETE CASCADE,
    CONSTRAINT migration_outcomes_status_known CHECK (status IN ('pending', 'running', 'done', 'failed', 'skipped')),
    CONSTRAINT migration_outcomes_failure_has_error CHECK ((error IS NULL) = (status NOT IN ('failed', 'skipped'))),
    CONSTRAINT migration_outcomes_end_is_known CHECK ((finished_at IS NULL) = (status IN ('pending', 'running')))
) WITH (fillfactor = 50);

-- Schemas that are no tenant's: on their way to be one, or replaced by a restored one. Each is dropped after its time.
CREATE TABLE shared.spare_schemas (
    schema_name text        NOT NULL,
    tenant_id   uuid        NOT NULL,
    slug        text        NOT NULL,
    role_name   text,                   -- of a login that is to be dropped with it
    reason      text        NOT NULL,
    since       timestamptz NOT NULL DEFAULT now(),
    drop_after  timestamptz NOT NULL,
    CONSTRAINT spare_schemas_pkey PRIMARY KEY (schema_name),
    CONSTRAINT spare_schemas_reason_known CHECK (reason IN ('restoring', 'verifying', 'replaced'))
);

-- What the history makes, as a fingerprint of the catalogue: it hangs on nothing but what the key is made of, so nobody
-- need make it again to compare a tenant with it.
CREATE TABLE shared.schema_fingerprints (
    key         bytea NOT NULL,             -- sha256 of the files up to a revision, the server's version and the wording
    fingerprint text  NOT NULL,
    CONSTRAINT schema_fingerprints_pkey PRIMARY KEY (key)
);

ALTER TABLE shared.migration_runs ENABLE ROW LEVEL SECURITY;
ALTER TABLE shared.migration_outcomes ENABLE ROW LEVEL SECURITY;
ALTER TABLE shared.spare_schemas ENABLE ROW LEVEL SECURITY;
ALTER TABLE shared.schema_fingerprints ENABLE ROW LEVEL SECURITY;

CREATE POLICY migration_runs_for_app ON shared.migration_runs FOR SELECT TO wallet_app USING (true);
CREATE POLICY migration_outcomes_for_app ON shared.migration_outcomes FOR SELECT TO wallet_app USING (true);
CREATE POLICY spare_schemas_for_app ON shared.spare_schemas FOR SELECT TO wallet_app USING (true);
CREATE POLICY schema_fingerprints_for_app ON shared.schema_fingerprints FOR SELECT TO wallet_app USING (true);

GRANT SELECT ON shared.migration_runs, shared.migration_outcomes, shared.spare_schemas, shared.schema_fingerprints
    TO wallet_app;
