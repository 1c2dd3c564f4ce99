-- Sessions, keys of services, and tenants asked for over HTTP. Frozen once merged.
--
-- All of it is the service's own business: no tenant's login may see any of these tables.

-- An auditor reads all of one tenant and moves nothing.
ALTER TABLE shared.memberships DROP CONSTRAINT memberships_role_known;
ALTER TABLE shared.memberships ADD CONSTRAINT memberships_role_known CHECK (role IN ('member', 'admin', 'auditor'));

-- What a tenant calls its member: so that nobody learns from it what others call them, or that there are others.
ALTER TABLE shared.memberships ADD COLUMN name text;
CREATE OR REPLACE VIEW shared.member_directory WITH (security_barrier) AS
    SELECT m.user_id, u.email, coalesce(m.name, u.name) AS name, m.role
    FROM shared.memberships m
    JOIN shared.users u ON u.id = m.user_id
    WHERE m.tenant_role = current_user;

-- The planner's guess would tell one tenant what share of all members another has.
ALTER TABLE shared.memberships ALTER COLUMN tenant_id SET STATISTICS 0;
ALTER TABLE shared.memberships ALTER COLUMN tenant_role SET STATISTICS 0;
-- A tenant finds its members without a look at everybody's.
CREATE INDEX memberships_tenant_role_user_id_idx ON shared.memberships (tenant_role, user_id);

-- One log-in of one user, until it ends. Access tokens name it, so an ended one counts from the next request on.
CREATE TABLE shared.sessions (
    id         uuid        NOT NULL DEFAULT gen_random_uuid(),
    user_id    uuid        NOT NULL,
    tenant_id  uuid,                    -- whose its access tokens are; null for all tenants of the user
    started_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    ended_at   timestamptz,
    end_reason text,
    CONSTRAINT sessions_pkey PRIMARY KEY (id),
    CONSTRAINT sessions_user_id_fkey FOREIGN KEY (user_id) REFERENCES shared.users (id),
    CONSTRAINT sessions_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES shared.tenants (id),
    CONSTRAINT sessions_end_reason_known CHECK (end_reason IN ('logout', 'password', 'reuse')),
    CONSTRAINT sessions_end_has_reason CHECK ((ended_at IS NULL) = (end_reason IS NULL))
);
CREATE INDEX sessions_user_id_idx ON shared.sessions (user_id) WHERE ended_at IS NULL;
CREATE INDEX sessions_expires_at_idx ON shared.sessions (expires_at);

-- Every refresh token that a session has had. One that is shown again after its use was stolen, from one side or the
-- other: it ends the session (RFC 9700, 4.14.2).
CREATE TABLE shared.refresh_tokens (
    token_hash bytea       NOT NULL,    -- sha256; the token itself is random and stored nowhere
    session_id uuid        NOT NULL,
    issued_at  timestamptz NOT NULL DEFAULT now(),
    used_at    timestamptz,
    CONSTRAINT refresh_tokens_pkey PRIMARY KEY (token_hash),
    CONSTRAINT refresh_tokens_session_id_fkey FOREIGN KEY (session_id) REFERENCES shared.sessions (id)
        ON DELETE CASCADE,
    CONSTRAINT refresh_tokens_hash_length CHECK (length(token_hash) = 32)
);
CREATE INDEX refresh_tokens_session_id_idx ON shared.refresh_tokens (session_id);

-- A service's way into one tenant. Kept after its end, for the audit log names it.
CREATE TABLE shared.api_keys (
    id          uuid        NOT NULL DEFAULT gen_random_uuid(),
    tenant_id   uuid        NOT NULL,
    name        text        NOT NULL,
    role        text        NOT NULL,
    secret_hash bytea       NOT NULL,   -- sha256; the secret itself is random and shown once
    created_by  uuid        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    revoked_at  timestamptz,
    CONSTRAINT api_keys_pkey PRIMARY KEY (id),
    CONSTRAINT api_keys_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES shared.tenants (id),
    CONSTRAINT api_keys_created_by_fkey FOREIGN KEY (created_by) REFERENCES shared.users (id),
    CONSTRAINT api_keys_name_length CHECK (length(name) BETWEEN 1 AND 100),
    CONSTRAINT api_keys_role_known CHECK (role IN ('service', 'auditor')),
    CONSTRAINT api_keys_hash_length CHECK (length(secret_hash) = 32)
);
CREATE INDEX api_keys_tenant_id_created_at_idx ON shared.api_keys (tenant_id, created_at, id);

-- Tenants asked for over HTTP, and what became of each. A slug has one request at a time that is not over.
CREATE TABLE shared.provisionings (
    id           uuid        NOT NULL DEFAULT gen_random_uuid(),
    slug         text        NOT NULL,
    name         text        NOT NULL,
    settings     jsonb       NOT NULL,
    status       text        NOT NULL DEFAULT 'pending',
    error        text,
    requested_by uuid        NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    request_id   text,                  -- of the request that asked, and its address: for the new tenant's audit log
    address      text,
    finished_at  timestamptz,
    CONSTRAINT provisionings_pkey PRIMARY KEY (id),
    CONSTRAINT provisionings_requested_by_fkey FOREIGN KEY (requested_by) REFERENCES shared.users (id),
    CONSTRAINT provisionings_status_known CHECK (status IN ('pending', 'done', 'failed')),
    CONSTRAINT provisionings_end_is_known CHECK ((finished_at IS NULL) = (status = 'pending')),
    CONSTRAINT provisionings_failure_has_error CHECK ((error IS NULL) = (status <> 'failed'))
);
CREATE UNIQUE INDEX provisionings_pending_slug_key ON shared.provisionings (slug) WHERE status = 'pending';
CREATE INDEX provisionings_requested_at_idx ON shared.provisionings (requested_at);

ALTER TABLE shared.sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE shared.refresh_tokens ENABLE ROW LEVEL SECURITY;
ALTER TABLE shared.api_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE shared.provisionings ENABLE ROW LEVEL SECURITY;

CREATE POLICY sessions_for_app ON shared.sessions TO wallet_app USING (true);
CREATE POLICY refresh_tokens_for_app ON shared.refresh_tokens TO wallet_app USING (true);
CREATE POLICY api_keys_for_app ON shared.api_keys TO wallet_app USING (true);
CREATE POLICY provisionings_for_app ON shared.provisionings TO wallet_app USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON shared.sessions, shared.refresh_tokens TO wallet_app;
GRANT SELECT, INSERT ON shared.api_keys TO wallet_app;
GRANT UPDATE (revoked_at) ON shared.api_keys TO wallet_app;
-- What became of a request is written by the migrator, in the db transaction that makes the tenant.
GRANT SELECT, INSERT ON shared.provisionings TO wallet_app;
-- What an operator may change of a tenant while it is served. Names, roles and revisions stay the migrator's.
GRANT UPDATE (name, status, settings) ON shared.tenants TO wallet_app;
