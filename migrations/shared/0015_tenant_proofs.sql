-- The latest proof of each tenant. Frozen once merged.

-- The tenants' function proof_step_v1 writes a proof with its owner's rights. No role may write one, so injected SQL on
-- either side can't claim one. The service's login may note that a proof failed, and what the signed heads say.
CREATE TABLE shared.tenant_proofs (
    tenant_id        uuid        NOT NULL,
    proven_at        timestamptz,            -- all that was committed before is proven
    full_proven_at   timestamptz,            -- the same, from the first row on
    wallets          bigint      NOT NULL DEFAULT 0,
    movements        bigint      NOT NULL DEFAULT 0,   -- that the latest pass read
    findings         bigint      NOT NULL DEFAULT 0,
    first_finding    text,
    failed_at        timestamptz,            -- null since the next pass that ends
    failure          text,
    heads_checked_at timestamptz,
    heads_finding    text,
    CONSTRAINT tenant_proofs_pkey PRIMARY KEY (tenant_id),
    CONSTRAINT tenant_proofs_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES shared.tenants (id) ON DELETE CASCADE
);
ALTER TABLE shared.tenant_proofs ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_proofs_for_app ON shared.tenant_proofs TO wallet_app USING (true);
GRANT SELECT ON shared.tenant_proofs TO wallet_app;
GRANT INSERT (tenant_id, failed_at, failure, heads_checked_at, heads_finding) ON shared.tenant_proofs TO wallet_app;
GRANT UPDATE (failed_at, failure, heads_checked_at, heads_finding) ON shared.tenant_proofs TO wallet_app;
