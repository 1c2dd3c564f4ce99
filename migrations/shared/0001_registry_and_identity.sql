-- What all tenants have in common. Frozen once merged: a change is a new revision.
--
-- wallet_app is the service's shared side. wallet_tenants is the group of all tenant logins: what a tenant may see
-- here is granted once, to the group, and row-level security cuts it down to the tenant's own rows. The policies
-- compare a column with current_user, never with a setting that SQL could change, and read no table.

GRANT USAGE ON SCHEMA shared TO wallet_app, wallet_tenants;

-- The registry. Its last column to be written is the row itself: no row, no tenant.
CREATE TABLE shared.tenants (
    id          uuid        NOT NULL,
    slug        text        NOT NULL,
    schema_name text        NOT NULL,
    role_name   text        NOT NULL,
    name        text        NOT NULL,
    status      text        NOT NULL,
    login_epoch integer     NOT NULL,
    revision    text        NOT NULL,   -- where the tenant's schema is; written by the migration that brings it there
    settings    jsonb       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT tenants_pkey PRIMARY KEY (id),
    CONSTRAINT tenants_slug_key UNIQUE (slug),
    CONSTRAINT tenants_schema_name_key UNIQUE (schema_name),
    CONSTRAINT tenants_id_role_name_key UNIQUE (id, role_name),
    CONSTRAINT tenants_slug_is_a_name CHECK (slug ~ '^[a-z][a-z0-9_]{0,31}$'),
    CONSTRAINT tenants_schema_name_is_a_name CHECK (schema_name ~ '^[a-z][a-z0-9_]{0,39}$'),
    CONSTRAINT tenants_role_follows_slug CHECK (role_name = 'tenant_' || slug),
    CONSTRAINT tenants_status_known CHECK (status IN ('active', 'suspended', 'archived')),
    CONSTRAINT tenants_login_epoch_positive CHECK (login_epoch > 0),
    CONSTRAINT tenants_settings_is_object CHECK (jsonb_typeof(settings) = 'object')
);

-- Users are anonymised, never deleted: ledgers in every tenant point at them.
CREATE TABLE shared.users (
    id            uuid        NOT NULL DEFAULT gen_random_uuid(),
    email         text        NOT NULL,
    name          text        NOT NULL,
    password_hash text,
    is_operator   boolean     NOT NULL DEFAULT false,
    status        text        NOT NULL DEFAULT 'active',
    created_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT users_pkey PRIMARY KEY (id),
    CONSTRAINT users_email_key UNIQUE (email),
    CONSTRAINT users_email_lower_case CHECK (email = lower(email)),
    CONSTRAINT users_status_known CHECK (status IN ('active', 'disabled'))
);

-- tenant_role repeats the tenant's login role, so that the policy below is a plain comparison; the foreign key keeps
-- it true when a tenant is renamed.
CREATE TABLE shared.memberships (
    tenant_id   uuid        NOT NULL,
    user_id     uuid        NOT NULL,
    tenant_role text        NOT NULL,
    role        text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT memberships_pkey PRIMARY KEY (tenant_id, user_id),
    CONSTRAINT memberships_tenant_fkey FOREIGN KEY (tenant_id, tenant_role)
        REFERENCES shared.tenants (id, role_name) ON UPDATE CASCADE,
    CONSTRAINT memberships_user_id_fkey FOREIGN KEY (user_id) REFERENCES shared.users (id),
    CONSTRAINT memberships_role_known CHECK (role IN ('member', 'admin'))
);
CREATE INDEX memberships_user_id_idx ON shared.memberships (user_id);

ALTER TABLE shared.tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE shared.users ENABLE ROW LEVEL SECURITY;
ALTER TABLE shared.memberships ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenants_for_app ON shared.tenants TO wallet_app USING (true);
CREATE POLICY users_for_app ON shared.users TO wallet_app USING (true);
CREATE POLICY memberships_for_app ON shared.memberships TO wallet_app USING (true);
CREATE POLICY tenants_own_row ON shared.tenants TO wallet_tenants USING (role_name = current_user);
CREATE POLICY memberships_own_rows ON shared.memberships TO wallet_tenants USING (tenant_role = current_user);

-- The members of the tenant that asks, with what its admins may know of them. It reads shared.users with its owner's
-- rights, so that no tenant role needs any on a table that holds password hashes.
CREATE VIEW shared.member_directory WITH (security_barrier) AS
    SELECT m.user_id, u.email, u.name, m.role
    FROM shared.memberships m
    JOIN shared.users u ON u.id = m.user_id
    WHERE m.tenant_role = current_user;

GRANT SELECT ON shared.alembic_version TO wallet_app;
GRANT SELECT ON shared.tenants TO wallet_app, wallet_tenants;
GRANT SELECT, INSERT, UPDATE ON shared.users TO wallet_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON shared.memberships TO wallet_app;
GRANT SELECT ON shared.memberships, shared.member_directory TO wallet_tenants;
