-- The life of an account: mails with single-use tokens, invitations, the second factor. Frozen once merged.
--
-- All of it is the service's own business: no tenant's login may see any of these tables.

-- An invitation of an address to a tenant. The membership exists from its acceptance on.
CREATE TABLE shared.invitations (
    id          uuid        NOT NULL DEFAULT gen_random_uuid(),
    tenant_id   uuid        NOT NULL,
    email       text        NOT NULL,
    name        text,
    role        text        NOT NULL,
    invited_by  uuid,                   -- null for the command line
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    accepted_at timestamptz,
    accepted_by uuid,
    revoked_at  timestamptz,
    CONSTRAINT invitations_pkey PRIMARY KEY (id),
    CONSTRAINT invitations_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES shared.tenants (id),
    CONSTRAINT invitations_invited_by_fkey FOREIGN KEY (invited_by) REFERENCES shared.users (id),
    CONSTRAINT invitations_accepted_by_fkey FOREIGN KEY (accepted_by) REFERENCES shared.users (id),
    CONSTRAINT invitations_email_lower_case CHECK (email = lower(email)),
    CONSTRAINT invitations_role_known CHECK (role IN ('member', 'admin', 'auditor')),
    CONSTRAINT invitations_acceptance_has_user CHECK ((accepted_at IS NULL) = (accepted_by IS NULL)),
    CONSTRAINT invitations_end_once CHECK (accepted_at IS NULL OR revoked_at IS NULL)
);
-- An address has one open invitation to a tenant.
CREATE UNIQUE INDEX invitations_open_key ON shared.invitations (tenant_id, email)
    WHERE accepted_at IS NULL AND revoked_at IS NULL;
CREATE INDEX invitations_tenant_id_created_at_idx ON shared.invitations (tenant_id, created_at, id);
CREATE INDEX invitations_invited_by_idx ON shared.invitations (invited_by)
    WHERE accepted_at IS NULL AND revoked_at IS NULL;
ALTER TABLE shared.invitations ENABLE ROW LEVEL SECURITY;
CREATE POLICY invitations_for_app ON shared.invitations TO wallet_app USING (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON shared.invitations TO wallet_app;

-- The mails of accounts, to be sent and sent. The row of a single-use token is also the mail that takes it to its owner.
-- The token is derived from the row's id with a key of the service, so the table holds nothing that opens anything.
-- A user has one row for each kind with a token, and an invitation one row: the newest token replaces the one before.
CREATE TABLE shared.account_mails (
    id              uuid        NOT NULL,
    kind            text        NOT NULL,
    recipient       text        NOT NULL,   -- empty for a forgotten password of an unknown address: nothing is sent
    user_id         uuid,
    invitation_id   uuid,
    details         jsonb       NOT NULL DEFAULT '{}',
    token_hash      bytea,                  -- sha256
    created_at      timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz NOT NULL,   -- of the token; a mail is not sent after it
    used_at         timestamptz,
    attempts        integer     NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,            -- null if nothing is to be sent
    sent_at         timestamptz,
    CONSTRAINT account_mails_pkey PRIMARY KEY (id),
    CONSTRAINT account_mails_user_id_fkey FOREIGN KEY (user_id) REFERENCES shared.users (id),
    CONSTRAINT account_mails_invitation_id_fkey FOREIGN KEY (invitation_id) REFERENCES shared.invitations (id)
        ON DELETE CASCADE,
    CONSTRAINT account_mails_token_hash_key UNIQUE (token_hash),
    CONSTRAINT account_mails_kind_known CHECK (kind IN ('invitation', 'password_reset', 'email_change',
        'no_password', 'password_changed', 'email_changed', 'second_factor_on', 'second_factor_off')),
    CONSTRAINT account_mails_kind_has_token CHECK ((token_hash IS NOT NULL)
        = (kind IN ('invitation', 'password_reset', 'email_change'))),
    CONSTRAINT account_mails_invitation_known CHECK ((invitation_id IS NOT NULL) = (kind = 'invitation')),
    CONSTRAINT account_mails_hash_length CHECK (length(token_hash) = 32)
);
CREATE UNIQUE INDEX account_mails_user_id_kind_key ON shared.account_mails (user_id, kind)
    WHERE token_hash IS NOT NULL AND user_id IS NOT NULL;
CREATE UNIQUE INDEX account_mails_invitation_id_key ON shared.account_mails (invitation_id);
CREATE INDEX account_mails_next_attempt_at_idx ON shared.account_mails (next_attempt_at)
    WHERE next_attempt_at IS NOT NULL;
CREATE INDEX account_mails_expires_at_idx ON shared.account_mails (expires_at);
ALTER TABLE shared.account_mails ENABLE ROW LEVEL SECURITY;
CREATE POLICY account_mails_for_app ON shared.account_mails TO wallet_app USING (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON shared.account_mails TO wallet_app;

-- The second factor of a user (TOTP, RFC 6238). Without confirmed_at it is being set up, and nothing asks for it.
CREATE TABLE shared.second_factors (
    user_id          uuid        NOT NULL,
    secret_encrypted bytea       NOT NULL,  -- AES-256-GCM with a key of the service
    created_at       timestamptz NOT NULL DEFAULT now(),
    confirmed_at     timestamptz,
    last_step        bigint      NOT NULL DEFAULT 0,  -- of the last accepted code: a code is accepted once (5.2)
    CONSTRAINT second_factors_pkey PRIMARY KEY (user_id),
    CONSTRAINT second_factors_user_id_fkey FOREIGN KEY (user_id) REFERENCES shared.users (id)
);
ALTER TABLE shared.second_factors ENABLE ROW LEVEL SECURITY;
CREATE POLICY second_factors_for_app ON shared.second_factors TO wallet_app USING (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON shared.second_factors TO wallet_app;

-- The recovery codes that are not used yet. A used code is deleted.
CREATE TABLE shared.recovery_codes (
    user_id   uuid  NOT NULL,
    code_hash bytea NOT NULL,   -- sha256; the code itself is random
    CONSTRAINT recovery_codes_pkey PRIMARY KEY (user_id, code_hash),
    CONSTRAINT recovery_codes_user_id_fkey FOREIGN KEY (user_id) REFERENCES shared.second_factors (user_id)
        ON DELETE CASCADE,
    CONSTRAINT recovery_codes_hash_length CHECK (length(code_hash) = 32)
);
ALTER TABLE shared.recovery_codes ENABLE ROW LEVEL SECURITY;
CREATE POLICY recovery_codes_for_app ON shared.recovery_codes TO wallet_app USING (true);
GRANT SELECT, INSERT, DELETE ON shared.recovery_codes TO wallet_app;

-- When the session's user proved the second factor, and the client that logged in.
ALTER TABLE shared.sessions ADD COLUMN second_factor_at timestamptz;
ALTER TABLE shared.sessions ADD COLUMN user_agent text;

-- The admin who answers for the key: its maker, unless somebody took it over. A key lasts as long as that admin's right.
ALTER TABLE shared.api_keys ADD COLUMN kept_by uuid;
ALTER TABLE shared.api_keys ADD CONSTRAINT api_keys_kept_by_fkey FOREIGN KEY (kept_by) REFERENCES shared.users (id)
    NOT VALID;
-- squawk-ignore constraint-missing-not-valid -- The table is small: a tenant has a few keys.
ALTER TABLE shared.api_keys VALIDATE CONSTRAINT api_keys_kept_by_fkey;
ALTER TABLE shared.api_keys ADD COLUMN last_used_at timestamptz;
GRANT UPDATE (kept_by, last_used_at) ON shared.api_keys TO wallet_app;
