-- How often log-ins were tried, counted over all processes of the service. Frozen once merged.
--
-- The counts last a minute or an hour, so the table is UNLOGGED: a count writes no WAL, and a crash of the server empties
-- the table. The key is a keyed hash of an address or an account.
CREATE UNLOGGED TABLE shared.attempt_counts (
    key     bytea       NOT NULL,
    number  integer     NOT NULL,
    ends_at timestamptz NOT NULL,
    CONSTRAINT attempt_counts_pkey PRIMARY KEY (key)
) WITH (fillfactor = 50);
CREATE INDEX attempt_counts_ends_at_idx ON shared.attempt_counts (ends_at);

ALTER TABLE shared.attempt_counts ENABLE ROW LEVEL SECURITY;
CREATE POLICY attempt_counts_for_app ON shared.attempt_counts TO wallet_app USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON shared.attempt_counts TO wallet_app;
