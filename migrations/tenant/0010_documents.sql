-- Documents that take too long to make within a request: the job, its progress, and at last the bytes. Frozen once merged.
--
-- One more refusal of class WA:
--   WA030 too_many_documents

-- A row is a job from its request on, and a document once it is done. A program that makes it holds a lease, which it
-- extends with each report; a job whose lease has ended is claimed again. No foreign key to wallets: no wallet is ever
-- deleted, a document lives for a day, and adding the key would lock out postings.
CREATE TABLE documents (
    id           uuid        NOT NULL DEFAULT gen_random_uuid(),
    wallet_id    uuid        NOT NULL,
    requested_by uuid        NOT NULL,   -- a user or an API key
    period_start timestamptz NOT NULL,
    period_end   timestamptz NOT NULL,
    status       text        NOT NULL DEFAULT 'pending',
    movements    bigint      NOT NULL,   -- at the request; once it is done, in the document
    rendered     bigint      NOT NULL DEFAULT 0,
    attempt      integer     NOT NULL DEFAULT 0,
    leased_until timestamptz,
    failure      text,
    content      bytea,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at  timestamptz,
    expires_at   timestamptz NOT NULL DEFAULT clock_timestamp() + interval '1 day',
    CONSTRAINT documents_pkey PRIMARY KEY (id),
    CONSTRAINT documents_status_known CHECK (status IN ('pending', 'running', 'done', 'failed')),
    CONSTRAINT documents_leased_while_running CHECK ((status = 'running') = (leased_until IS NOT NULL)),
    CONSTRAINT documents_content_when_done CHECK ((status = 'done') = (content IS NOT NULL)),
    CONSTRAINT documents_failure_when_failed CHECK ((status = 'failed') = (failure IS NOT NULL)),
    CONSTRAINT documents_finished_when_over CHECK ((status IN ('done', 'failed')) = (finished_at IS NOT NULL))
);
CREATE INDEX documents_requested_by_requested_at_idx ON documents (requested_by, requested_at);
CREATE INDEX documents_unfinished_requested_at_idx ON documents (requested_at) WHERE status IN ('pending', 'running');
CREATE INDEX documents_expires_at_idx ON documents (expires_at);

-- Delete the documents that have expired. Returns their number.
CREATE FUNCTION documents_expire_v1() RETURNS bigint
    LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    WITH expired AS (DELETE FROM documents d WHERE d.expires_at <= clock_timestamp() RETURNING d.id)
    SELECT count(*) FROM expired;
END;

-- The id of the document of this statement for this caller: the one that is there or being made, as long as the period
-- has no more movements than it has, or else a new job. A caller has two unfinished documents at most, a tenant twenty.
-- A caller's finished documents beyond five make room, the oldest first.
CREATE FUNCTION document_request_v1(
    p_wallet_id uuid, p_requested_by uuid, p_start timestamptz, p_end timestamptz, p_movements bigint)
    RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    document_id uuid;
    unfinished  bigint;
    of_caller   bigint;
BEGIN
    LOCK TABLE documents IN SHARE ROW EXCLUSIVE MODE;   -- Simultaneous requests count each other.
    PERFORM documents_expire_v1();
    SELECT d.id INTO document_id FROM documents d
        WHERE d.requested_by = p_requested_by AND d.wallet_id = p_wallet_id AND d.period_start = p_start
            AND d.period_end = p_end AND d.movements = p_movements AND d.status <> 'failed';
    IF document_id IS NOT NULL THEN
        RETURN document_id;
    END IF;
    SELECT count(*), count(*) FILTER (WHERE d.requested_by = p_requested_by) INTO unfinished, of_caller
        FROM documents d WHERE d.status IN ('pending', 'running');
    IF of_caller >= 2 THEN
        RAISE EXCEPTION 'too many documents of one caller' USING ERRCODE = 'WA030', DETAIL = '{"whose": "caller", "limit": 2}';
    ELSIF unfinished >= 20 THEN
        RAISE EXCEPTION 'too many documents of the tenant' USING ERRCODE = 'WA030', DETAIL = '{"whose": "tenant", "limit": 20}';
    END IF;
    DELETE FROM documents d WHERE d.id IN (
        SELECT f.id FROM documents f WHERE f.requested_by = p_requested_by AND f.status IN ('done', 'failed')
        ORDER BY f.requested_at DESC OFFSET 4);
    INSERT INTO documents (wallet_id, requested_by, period_start, period_end, movements)
        VALUES (p_wallet_id, p_requested_by, p_start, p_end, p_movements) RETURNING id INTO document_id;
    RETURN document_id;
END $$;

-- Claim the oldest job that no program works at, for two minutes; no row if there is none. A job that was claimed five
-- times and never ended has failed.
CREATE FUNCTION document_claim_v1() RETURNS SETOF documents
    LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    UPDATE documents d
        SET status = 'failed', failure = 'attempts_exhausted', finished_at = clock_timestamp(), leased_until = NULL
        WHERE d.attempt >= 5 AND (d.status = 'pending' OR d.status = 'running' AND d.leased_until <= clock_timestamp());
    UPDATE documents d SET status = 'running', attempt = d.attempt + 1, rendered = 0,
            leased_until = clock_timestamp() + interval '2 minutes'
        WHERE d.id = (
            SELECT c.id FROM documents c
            WHERE (c.status = 'pending' OR c.status = 'running' AND c.leased_until <= clock_timestamp())
                AND c.expires_at > clock_timestamp()
            ORDER BY c.requested_at LIMIT 1 FOR UPDATE SKIP LOCKED)
        RETURNING d.*;
END;

-- Note the progress of a claimed job and extend its lease. True if the job is still claimed by this attempt.
CREATE FUNCTION document_report_v1(p_id uuid, p_attempt integer, p_movements bigint, p_rendered bigint) RETURNS boolean
    LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    WITH reported AS (
        UPDATE documents d SET movements = coalesce(p_movements, d.movements), rendered = p_rendered,
            leased_until = clock_timestamp() + interval '2 minutes'
        WHERE d.id = p_id AND d.attempt = p_attempt AND d.status = 'running' RETURNING d.id)
    SELECT count(*) = 1 FROM reported;
END;

-- End a claimed job: with the bytes, with the code of its failure, or with neither, which gives it back. True if it was
-- still claimed by this attempt.
CREATE FUNCTION document_end_v1(p_id uuid, p_attempt integer, p_content bytea, p_failure text) RETURNS boolean
    LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    WITH ended AS (
        UPDATE documents d SET
            status = CASE WHEN p_content IS NOT NULL THEN 'done' WHEN p_failure IS NOT NULL THEN 'failed' ELSE 'pending' END,
            content = p_content, failure = CASE WHEN p_content IS NULL THEN p_failure END, leased_until = NULL,
            finished_at = CASE WHEN p_content IS NOT NULL OR p_failure IS NOT NULL THEN clock_timestamp() END
        WHERE d.id = p_id AND d.attempt = p_attempt AND d.status = 'running' RETURNING d.id)
    SELECT count(*) = 1 FROM ended;
END;

DO $$
DECLARE
    tenant_role text := current_setting('tenant_schemas.tenant_role');
BEGIN
    EXECUTE format('GRANT SELECT ON documents TO %I', tenant_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION documents_expire_v1, document_request_v1, document_claim_v1,'
        ' document_report_v1, document_end_v1 TO %I', tenant_role);
END $$;
