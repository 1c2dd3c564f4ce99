-- The descriptions of a reference's objects. Frozen once merged.

-- A login that may make no schema (wallet_backup) compares with them, and names what differs in a tenant's schema even if
-- no tenant's schema is as the migrations make it.
ALTER TABLE shared.schema_fingerprints
    ADD COLUMN objects jsonb;   -- by kind and name; NULL if a release before this column stored the fingerprint
