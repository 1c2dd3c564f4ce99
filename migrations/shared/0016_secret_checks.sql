-- Check values of the secrets. Frozen once merged.

-- An HMAC of a fixed text by a secret of the settings: it tells a wrong secret from the right one, and reveals neither.
-- Without it, a command with an old TENANT_SECRET sets passwords that the service does not know.
CREATE TABLE shared.secret_checks (
    name        text        NOT NULL,    -- of the setting
    check_value bytea       NOT NULL,
    set_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT secret_checks_pkey PRIMARY KEY (name),
    CONSTRAINT secret_checks_check_value_check CHECK (octet_length(check_value) = 32)
);
ALTER TABLE shared.secret_checks ENABLE ROW LEVEL SECURITY;
CREATE POLICY secret_checks_for_app ON shared.secret_checks TO wallet_app USING (true);
GRANT SELECT ON shared.secret_checks TO wallet_app;
