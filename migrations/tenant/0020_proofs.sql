-- The audit for a part of a tenant at a time, and a proof that goes on where it stopped. Frozen once merged.
--
-- The prover (`python -m scripts.prover`) calls proof_step_v1 under the tenant's login. That function proves and writes
-- the results with its owner's rights; the login itself can read them only. So injected SQL can make a true proof, and
-- no other.

------------------------------------------------------------------------------------------------------------------------
-- The rules of the ledger. Each function gives the findings of the rows that it is asked for; `subject` names the row.
------------------------------------------------------------------------------------------------------------------------

-- Of each wallet, the movements after one seq until another; null is from the first, or until the last. Nothing is read
-- of the movements before, but the one that the first follows.
CREATE FUNCTION movement_findings_v1(
    p_wallet_ids uuid[], p_after bigint[], p_until bigint[], OUT subject text, OUT wallet_id uuid, OUT seq bigint,
    OUT finding text) RETURNS SETOF record LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    WITH scoped AS (
        SELECT s.wallet_id, coalesce(s.after, 0) AS after, coalesce(s.until, 9223372036854775807) AS until
        FROM unnest(p_wallet_ids, p_after, p_until) AS s (wallet_id, after, until)
    ), checked AS (
        SELECT t.wallet_id, t.seq, s.after, concat_ws('; ',
            CASE WHEN w.id IS NULL THEN 'its wallet is missing' END,
            CASE WHEN t.currency <> w.currency THEN 'its currency is not the wallet''s' END,
            CASE WHEN t.seq <> coalesce(lag(t.seq) OVER chain, 0) + 1 THEN 'seq has a gap' END,
            CASE WHEN t.hash <> CASE WHEN t.debit_account IS NULL
                THEN wallet_transaction_hash_v1(
                    coalesce(lag(t.hash) OVER chain, wallet_genesis_hash_v1(w.id, w.user_id, w.currency)),
                    t, coalesce(e.listed, '[]'))
                ELSE wallet_transaction_hash_v2(
                    coalesce(lag(t.hash) OVER chain, wallet_genesis_hash_v1(w.id, w.user_id, w.currency)),
                    t.request_fingerprint, t.created_at, t.id, t.wallet_id, t.currency, t.seq, t.type, t.amount_minor,
                    t.balance_after_minor, t.idempotency_key, t.admin_id, t.order_id, t.refund_of, t.hold_id,
                    t.description, t.reference, t.reason, t.debit_account, t.credit_account) END
                THEN 'hash does not match the row, its entries or the row before' END,
            CASE WHEN t.balance_after_minor
                    <> coalesce(lag(t.balance_after_minor) OVER chain, 0)::numeric + t.amount_minor
                THEN 'balance after is not the sum of the amounts' END,
            CASE WHEN t.created_at < lag(t.created_at) OVER chain THEN 'time runs backwards' END,
            CASE WHEN t.debit_account IS NOT NULL AND e.listed IS NOT NULL
                THEN 'it has an entry besides its own' END,
            CASE WHEN CASE WHEN t.debit_account IS NULL THEN e.effect_minor IS DISTINCT FROM t.amount_minor
                    ELSE (t.amount_minor > 0) <> (t.credit_account = 'wallets')
                        OR (t.amount_minor < 0) <> (t.debit_account = 'wallets') END
                THEN 'entries do not add up to the amount' END,
            CASE WHEN NOT e.accounts_are_known
                    OR t.debit_account NOT IN (SELECT a.code FROM ledger_accounts a)
                    OR t.credit_account NOT IN (SELECT a.code FROM ledger_accounts a)
                THEN 'an entry names an unknown account' END,
            CASE WHEN r.is_too_much THEN 'more was refunded than was paid' END,
            CASE WHEN t.type = 'payment' AND t.order_id IS NOT NULL AND o.transaction_id IS DISTINCT FROM t.id
                    AND (t.created_at BETWEEN first.created_at AND o.claimed_at) IS NOT TRUE   -- or it is of the old days
                    AND (t.hold_id = o.hold_id) IS NOT TRUE
                THEN format('order %s is paid by this, and not known as paid by it', t.order_id) END,
            CASE WHEN (h.wallet_id, h.currency) <> (t.wallet_id, t.currency)
                    OR h.id IS NOT NULL AND h.order_id IS DISTINCT FROM t.order_id
                THEN format('hold %s has another wallet, currency or order', h.id) END
            ) AS finding
        FROM scoped s
        JOIN wallet_transactions t ON t.wallet_id = s.wallet_id AND t.seq >= s.after AND t.seq <= s.until
        LEFT JOIN wallets w ON w.id = t.wallet_id
        LEFT JOIN holds h ON h.id = t.hold_id
        LEFT JOIN order_payments o ON o.order_id = t.order_id AND t.type = 'payment'
        LEFT JOIN wallet_transactions first ON first.id = o.transaction_id
        LEFT JOIN LATERAL (
            SELECT jsonb_agg(jsonb_build_array(e.entry_no, e.debit_account, e.credit_account, e.amount_minor)
                    ORDER BY e.entry_no) AS listed,
                sum(CASE 'wallets' WHEN e.credit_account THEN e.amount_minor WHEN e.debit_account THEN -e.amount_minor
                    ELSE 0 END) AS effect_minor,
                bool_and(d.code IS NOT NULL AND c.code IS NOT NULL) AS accounts_are_known
            FROM ledger_entries e
            LEFT JOIN ledger_accounts d ON d.code = e.debit_account
            LEFT JOIN ledger_accounts c ON c.code = e.credit_account
            WHERE e.transaction_id = t.id) e ON true
        LEFT JOIN LATERAL (
            SELECT sum(r.amount_minor) > min(-(paid.amount_minor::numeric)) AS is_too_much
            FROM wallet_transactions paid JOIN wallet_transactions r ON r.refund_of = paid.id
            WHERE paid.id = coalesce(t.refund_of, t.id)) r ON true
        WINDOW chain AS (PARTITION BY t.wallet_id ORDER BY t.seq)
    )
    SELECT c.wallet_id::text, c.wallet_id, c.seq, c.finding FROM checked c WHERE c.seq > c.after AND c.finding <> '';
$$;

-- The wallets themselves, against their last movements, their open holds and what the audit log says of them.
CREATE FUNCTION wallet_findings_v1(
    p_wallet_ids uuid[], OUT subject text, OUT wallet_id uuid, OUT seq bigint, OUT finding text)
    RETURNS SETOF record LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    WITH checked AS (
        SELECT s.wallet_id, w.last_seq AS seq, concat_ws('; ',
            CASE WHEN w.id IS NULL THEN 'the wallet is missing' END,
            CASE WHEN w.balance_minor <> coalesce(l.balance_after_minor, 0)
                THEN 'the wallet''s balance is not that of its last transaction' END,
            CASE WHEN w.last_seq <> coalesce(l.seq, 0) THEN 'the wallet''s last transactions are missing' END,
            CASE WHEN w.last_hash <> coalesce(l.hash, wallet_genesis_hash_v1(w.id, w.user_id, w.currency))
                THEN 'the wallet''s hash is not that of its last transaction' END,
            CASE WHEN w.id IS NOT NULL AND w.last_posted_at IS DISTINCT FROM l.created_at
                THEN 'the wallet''s time is not that of its last transaction' END,
            CASE WHEN jsonb_build_object('creditLimitMinor', w.credit_limit_minor, 'status', w.status)
                    <> coalesce(c.after, '{"creditLimitMinor": 0, "status": "active"}') AND w.id IS NOT NULL
                THEN 'limit or status is not what the audit log says' END,
            CASE WHEN w.held_minor <> coalesce(h.left_minor, 0) THEN 'what is held is not what its holds say' END,
            CASE WHEN w.uses_credit <> (w.balance_minor < 0)
                THEN 'whether it uses credit is not what its balance says' END
            ) AS finding
        FROM unnest(p_wallet_ids) AS s (wallet_id)
        LEFT JOIN wallets w ON w.id = s.wallet_id
        LEFT JOIN LATERAL (
            SELECT t.seq, t.balance_after_minor, t.hash, t.created_at FROM wallet_transactions t
            WHERE t.wallet_id = s.wallet_id ORDER BY t.seq DESC LIMIT 1) l ON true
        LEFT JOIN LATERAL (
            SELECT a.after FROM audit_log a
            WHERE a.wallet_id = s.wallet_id AND a.action IN ('wallet.open', 'wallet.configure', 'wallet.import')
            ORDER BY a.at DESC LIMIT 1) c ON true
        LEFT JOIN LATERAL (
            SELECT sum(h.amount_minor - h.captured_minor) AS left_minor FROM holds h
            WHERE h.wallet_id = s.wallet_id AND h.status = 'active') h ON true
    )
    SELECT c.wallet_id::text, c.wallet_id, c.seq, c.finding FROM checked c WHERE c.finding <> '';
$$;

CREATE FUNCTION hold_findings_v1(
    p_hold_ids uuid[], OUT subject text, OUT wallet_id uuid, OUT seq bigint, OUT finding text)
    RETURNS SETOF record LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT h.id::text, h.wallet_id, w.last_seq, format('the captures of hold %s are not what its payments say', h.id)
    FROM unnest(p_hold_ids) AS s (hold_id)
    JOIN holds h ON h.id = s.hold_id
    LEFT JOIN wallets w ON w.id = h.wallet_id
    WHERE h.captured_minor <> (
        SELECT coalesce(sum(-c.amount_minor::numeric), 0) FROM wallet_transactions c WHERE c.hold_id = h.id);
$$;

-- Orders, named by their payments.
CREATE FUNCTION order_findings_v1(
    p_payment_ids uuid[], OUT subject text, OUT wallet_id uuid, OUT seq bigint, OUT finding text)
    RETURNS SETOF record LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    WITH checked AS (
        SELECT o.payment_id, o.wallet_id, t.seq, concat_ws('; ',
            CASE WHEN (o.wallet_id, o.user_id, o.currency, o.id::text, -o.total_minor)
                        IS DISTINCT FROM (t.wallet_id, w.user_id, t.currency, t.order_id, t.amount_minor)
                    OR o.total_minor <> (
                        SELECT coalesce(sum(i.line_total_minor), 0) FROM order_items i WHERE i.order_id = o.id)
                THEN format('order %s is not what this paid', o.id) END,
            CASE WHEN o.status = 'cancelled' AND o.total_minor <> (
                    SELECT coalesce(sum(r.amount_minor), 0) FROM wallet_transactions r WHERE r.refund_of = o.payment_id)
                THEN format('order %s is cancelled, and this was not refunded in full', o.id) END,
            CASE WHEN o.refund_id IS NOT NULL AND refund.refund_of IS DISTINCT FROM o.payment_id
                THEN format('the refund of order %s is another one', o.id) END
            ) AS finding
        FROM unnest(p_payment_ids) AS s (payment_id)
        JOIN orders o ON o.payment_id = s.payment_id
        LEFT JOIN wallet_transactions t ON t.id = o.payment_id
        LEFT JOIN wallets w ON w.id = t.wallet_id
        LEFT JOIN wallet_transactions refund ON refund.id = o.refund_id
    )
    SELECT c.payment_id::text, c.wallet_id, c.seq, c.finding FROM checked c WHERE c.finding <> '';
$$;

-- What paid which order, also of orders of other systems.
CREATE FUNCTION order_payment_findings_v1(
    p_order_ids text[], OUT subject text, OUT wallet_id uuid, OUT seq bigint, OUT finding text)
    RETURNS SETOF record LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT o.order_id, t.wallet_id, t.seq, format('order %s is known as paid by this', o.order_id)
    FROM unnest(p_order_ids) AS s (order_id)
    JOIN order_payments o ON o.order_id = s.order_id
    LEFT JOIN wallet_transactions t ON t.id = o.transaction_id
    WHERE t.type IS DISTINCT FROM 'payment' OR t.order_id IS DISTINCT FROM o.order_id
        OR t.hold_id IS DISTINCT FROM o.hold_id;
$$;

-- Entries without a movement, named by the movement that they claim.
CREATE FUNCTION entry_findings_v1(
    p_transaction_ids uuid[], OUT subject text, OUT wallet_id uuid, OUT seq bigint, OUT finding text)
    RETURNS SETOF record LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT e.transaction_id::text, NULL::uuid, NULL::bigint,
        format('entry %s of %s belongs to no transaction', e.entry_no, e.transaction_id)
    FROM unnest(p_transaction_ids) AS s (transaction_id)
    JOIN ledger_entries e ON e.transaction_id = s.transaction_id
    WHERE NOT EXISTS (SELECT FROM wallet_transactions t WHERE t.id = e.transaction_id);
$$;

-- Entries of the audit log after one seq until another.
CREATE FUNCTION audit_log_findings_v1(
    p_after bigint, p_until bigint, OUT subject text, OUT wallet_id uuid, OUT seq bigint, OUT finding text)
    RETURNS SETOF record LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    WITH checked AS (
        SELECT a.seq, concat_ws('; ',
            CASE WHEN a.seq <> coalesce(lag(a.seq) OVER chain, 0) + 1 THEN 'seq has a gap' END,
            CASE WHEN a.at <= lag(a.at) OVER chain THEN 'time runs backwards' END,
            CASE WHEN a.hash <> audit_hash_v1(coalesce(lag(a.hash) OVER chain, sha256('audit log')), a)
                THEN 'hash does not match the entry or the one before' END) AS finding
        FROM audit_log a WHERE a.seq >= p_after AND a.seq <= p_until WINDOW chain AS (ORDER BY a.seq)
    )
    SELECT 'chain', NULL::uuid, c.seq, format('audit log entry %s: %s', c.seq, c.finding)
    FROM checked c WHERE c.seq > p_after AND c.finding <> '';
$$;

-- What is one for the tenant: the end of the audit log, and what the log says of the credit policies.
CREATE FUNCTION tenant_findings_v1(OUT subject text, OUT wallet_id uuid, OUT seq bigint, OUT finding text)
    RETURNS SETOF record LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT 'policy ' || coalesce(p.currency, l.currency), NULL::uuid, NULL::bigint,
        format('the credit policy in %s is not what the audit log says', coalesce(p.currency, l.currency))
    FROM credit_policies p FULL JOIN (
        SELECT DISTINCT ON (a.after ->> 'currency') a.after ->> 'currency' AS currency, a.after
        FROM audit_log a WHERE a.action = 'credit_policy.set' ORDER BY a.after ->> 'currency', a.at DESC
    ) l ON l.currency = p.currency
    WHERE l.after IS DISTINCT FROM to_jsonb(p)
    UNION ALL
    SELECT 'head', NULL, NULL,
        format('the audit log''s last entry is %s, and its chain says %s', coalesce(l.seq, 0), h.last_seq)
    FROM (SELECT) one LEFT JOIN audit_chain h ON true
    LEFT JOIN (SELECT a.seq, a.hash, a.at FROM audit_log a ORDER BY a.seq DESC LIMIT 1) l ON true
    WHERE (h.last_seq, h.last_hash, h.last_at) IS DISTINCT FROM
        (coalesce(l.seq, 0), coalesce(l.hash, sha256('audit log')), coalesce(l.at, '-infinity'));
$$;

-- Everything that does not hold, the first row of each wallet only; no rows means the ledger is sound. One statement,
-- so one snapshot: it may run while money moves. What it can't see is a history that was rewritten from some row to
-- its end with all its hashes, wallet included, or cut off there: against that, keep the chains' heads elsewhere too.
-- Of the audit log it names the first entry that does not hold. It knows both forms of the chain, and of entries.
CREATE FUNCTION ledger_audit_v5(OUT wallet_id uuid, OUT seq bigint, OUT finding text) RETURNS SETOF record
    LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    WITH every AS (
        SELECT array(SELECT w.id FROM wallets w UNION SELECT DISTINCT t.wallet_id FROM wallet_transactions t) AS wallets
    )
    (SELECT DISTINCT ON (f.wallet_id) f.wallet_id, f.seq, f.finding
        FROM every, movement_findings_v1(every.wallets, NULL, NULL) f ORDER BY f.wallet_id, f.seq)
    UNION ALL
    SELECT f.wallet_id, f.seq, f.finding FROM every, wallet_findings_v1(every.wallets) f
    UNION ALL
    SELECT f.wallet_id, f.seq, f.finding FROM hold_findings_v1(array(SELECT h.id FROM holds h)) f
    UNION ALL
    SELECT f.wallet_id, f.seq, f.finding FROM order_findings_v1(array(SELECT o.payment_id FROM orders o)) f
    UNION ALL
    SELECT f.wallet_id, f.seq, f.finding
    FROM order_payment_findings_v1(array(SELECT o.order_id FROM order_payments o)) f
    UNION ALL
    SELECT f.wallet_id, f.seq, f.finding
    FROM entry_findings_v1(array(SELECT DISTINCT e.transaction_id FROM ledger_entries e)) f
    UNION ALL
    (SELECT f.wallet_id, NULL::bigint, f.finding
        FROM audit_log_findings_v1(0, 9223372036854775807) f ORDER BY f.seq LIMIT 1)
    UNION ALL
    SELECT f.wallet_id, f.seq, f.finding FROM tenant_findings_v1() f
    UNION ALL
    SELECT NULL, NULL, format('the trial balance in %s is off by %s', b.currency, sum(b.debit_minor) - sum(b.credit_minor))
    FROM trial_balance b GROUP BY b.currency HAVING sum(b.debit_minor) <> sum(b.credit_minor);
$$;

-- Superseded by ledger_audit_v5.
CREATE OR REPLACE FUNCTION ledger_audit_v4(OUT wallet_id uuid, OUT seq bigint, OUT finding text) RETURNS SETOF record
    LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT a.wallet_id, a.seq, a.finding FROM ledger_audit_v5() a;
END;

------------------------------------------------------------------------------------------------------------------------
-- The rules of the feed. Each row is looked up by its key (LATERAL … LIMIT): the planner takes a part of the feed for a
-- third of it, and would read whole tables to join them.
------------------------------------------------------------------------------------------------------------------------

-- Of each wallet, the movements after one seq until another (as in movement_findings_v1) that have no event. Without one
-- are those from before the feed began and those whose events were trimmed, which are the first of their wallet. No event
-- of the last 24 hours is trimmed; an hour is left for clocks.
CREATE FUNCTION movement_event_findings_v1(
    p_wallet_ids uuid[], p_after bigint[], p_until bigint[], OUT subject text, OUT wallet_id uuid, OUT seq bigint,
    OUT finding text) RETURNS SETOF record LANGUAGE sql STABLE SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
    SELECT t.id::text, t.wallet_id, t.seq, 'movement without its event'
    FROM events_head f
    CROSS JOIN unnest(p_wallet_ids, p_after, p_until) AS s (wallet_id, after, until)
    LEFT JOIN LATERAL (
        SELECT k.seq FROM events e JOIN wallet_transactions k ON k.id = e.id
        WHERE e.wallet_id = s.wallet_id AND e.position IS NOT NULL ORDER BY e.position LIMIT 1) kept ON true
    JOIN wallet_transactions t ON t.wallet_id = s.wallet_id AND t.seq > coalesce(s.after, 0)
        AND t.seq <= coalesce(s.until, 9223372036854775807)
    LEFT JOIN LATERAL (SELECT e.id FROM events e WHERE e.id = t.id LIMIT 1) own ON true
    WHERE t.created_at >= f.started_at
        AND (f.trimmed_to = 0 OR t.seq > kept.seq OR t.created_at > clock_timestamp() - interval '23 hours')
        AND own.id IS NULL;
$$;

-- The events after one position until another, as far as the feed has them. Without p_until all of the rest, and those
-- without a position. `subject` is the event, or the position after the missing ones.
CREATE FUNCTION event_findings_v1(
    p_after bigint, p_until bigint, OUT subject text, OUT wallet_id uuid, OUT event_id uuid, OUT finding text)
    RETURNS SETOF record LANGUAGE sql STABLE SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
    WITH bounds AS (
        SELECT greatest(p_after, f.trimmed_to) AS after, least(p_until, f.position) AS until FROM events_head f
    ), numbered AS (
        SELECT e.* FROM bounds b JOIN events e ON e.position > b.after AND e.position <= b.until
    ), told AS (
        SELECT e.*, split_part(e.type, '.', 1) AS thing, split_part(e.type, '.', 3) AS happened FROM (
            SELECT n.* FROM numbered n
            UNION ALL
            SELECT e.* FROM events e WHERE e.position IS NULL AND p_until IS NULL
        ) e
    ), seen AS (
        SELECT n.position FROM numbered n UNION ALL SELECT b.until + 1 FROM bounds b WHERE b.until > b.after
    ), counted AS (
        SELECT s.position, s.position - 1 - lag(s.position, 1, b.after) OVER (ORDER BY s.position) AS missing
        FROM bounds b CROSS JOIN seen s
    )
    SELECT e.id::text, e.wallet_id, e.id, 'event without its movement'
    FROM told e LEFT JOIN LATERAL (SELECT t.* FROM wallet_transactions t WHERE t.id = e.id LIMIT 1) t
        ON t.wallet_id = e.wallet_id AND e.type = 'wallet.' || t.type || '.posted.v1'
    WHERE e.happened = 'posted' AND t.id IS NULL
    UNION ALL
    SELECT e.id::text, e.wallet_id, e.id, 'event without its command'
    FROM told e LEFT JOIN LATERAL (
        SELECT c.* FROM command_outcomes c
        WHERE c.source = e.data ->> 'source' AND c.command_id = e.data ->> 'commandId' LIMIT 1) c
        ON c.event_id = e.id AND e.type = 'wallet.' || c.type || '.' || c.outcome || '.v1'
    WHERE e.happened IN ('completed', 'refused') AND c.event_id IS NULL
    UNION ALL
    SELECT e.id::text, e.wallet_id, e.id, format('event without its %s', e.thing)
    FROM told e
    LEFT JOIN LATERAL (SELECT w.id FROM wallets w WHERE e.thing = 'wallet' AND w.id = e.wallet_id LIMIT 1) w ON true
    LEFT JOIN LATERAL (SELECT h.wallet_id FROM holds h WHERE e.thing = 'hold' AND h.id = e.subject_id LIMIT 1) h ON true
    LEFT JOIN LATERAL (SELECT o.wallet_id FROM orders o WHERE e.thing = 'order' AND o.id = e.subject_id LIMIT 1) o ON true
    WHERE e.happened NOT IN ('posted', 'completed', 'refused')
        AND (coalesce(w.id, h.wallet_id, o.wallet_id) = e.wallet_id) IS NOT TRUE
    UNION ALL
    SELECT e.id::text, e.wallet_id, e.id, 'event before that of an earlier movement'
    FROM numbered e
    CROSS JOIN LATERAL (SELECT t.wallet_id, t.seq FROM wallet_transactions t WHERE t.id = e.id LIMIT 1) t
    CROSS JOIN LATERAL (
        SELECT k.id FROM wallet_transactions k WHERE k.wallet_id = t.wallet_id AND k.seq = t.seq - 1 LIMIT 1) k
    CROSS JOIN LATERAL (SELECT b.position FROM events b WHERE b.id = k.id LIMIT 1) earlier
    WHERE (earlier.position < e.position) IS NOT TRUE
    UNION ALL
    SELECT 'before position ' || c.position, NULL, NULL,
        format('%s positions have no event before position %s', c.missing, c.position)
    FROM counted c WHERE c.missing > 0;
$$;

-- The feed's ends: the first event before it and the first one behind it.
CREATE FUNCTION feed_findings_v1(OUT subject text, OUT wallet_id uuid, OUT event_id uuid, OUT finding text)
    RETURNS SETOF record LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT 'feed', NULL::uuid, NULL::uuid, 'the feed has no head' WHERE NOT EXISTS (SELECT FROM events_head)
    UNION ALL
    SELECT e.id::text, e.wallet_id, e.id, 'event outside of the feed'
    FROM events_head f CROSS JOIN LATERAL (
        (SELECT b.id, b.wallet_id FROM events b WHERE b.position <= f.trimmed_to ORDER BY b.position LIMIT 1)
        UNION ALL
        (SELECT b.id, b.wallet_id FROM events b WHERE b.position > f.position ORDER BY b.position LIMIT 1)) e;
$$;

-- Everything that does not hold between the feed and what it tells of; no rows means that the feed is sound. It reads the
-- whole feed and all movements.
CREATE FUNCTION events_audit_v1(OUT wallet_id uuid, OUT event_id uuid, OUT finding text) RETURNS SETOF record
    LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT f.wallet_id, f.subject::uuid, f.finding
    FROM movement_event_findings_v1(array(SELECT w.id FROM wallets w), NULL, NULL) f
    UNION ALL
    SELECT f.wallet_id, f.event_id, f.finding FROM event_findings_v1(0, NULL) f
    UNION ALL
    SELECT f.wallet_id, f.event_id, f.finding FROM feed_findings_v1() f;
$$;

------------------------------------------------------------------------------------------------------------------------
-- Proofs
------------------------------------------------------------------------------------------------------------------------

-- How far each wallet's chain is proven. Without a foreign key, so that a missing wallet is noticed.
CREATE TABLE wallet_proofs (
    wallet_id uuid        NOT NULL,
    seq       bigint      NOT NULL,
    hash      bytea       NOT NULL,     -- of the movement `seq`
    proven_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wallet_proofs_pkey PRIMARY KEY (wallet_id)
);

-- What the latest proof of a row found wrong. A proof that finds nothing wrong deletes it.
CREATE TABLE proof_findings (
    kind      text        NOT NULL,
    subject   text        NOT NULL,
    wallet_id uuid,
    seq       bigint,
    finding   text        NOT NULL,
    found_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT proof_findings_pkey PRIMARY KEY (kind, subject)
);

-- How far the pass over the tenant has come: one row. `phase` is null between two passes.
CREATE TABLE proof_progress (
    one            boolean     NOT NULL DEFAULT true,
    phase          text,
    is_full        boolean     NOT NULL DEFAULT true,
    started_at     timestamptz,
    place          text,                             -- the last row of the phase that is done
    partial_id     uuid,                             -- the wallet that is done until partial_seq
    partial_seq    bigint,                           -- or how far the audit log is done, or where the feed's part ends
    wallets        bigint      NOT NULL DEFAULT 0,
    movements      bigint      NOT NULL DEFAULT 0,
    audit_seq      bigint      NOT NULL DEFAULT 0,   -- how far the audit log is proven
    audit_hash     bytea,
    feed_id        uuid,                             -- the feed that is proven until feed_position
    feed_position  bigint      NOT NULL DEFAULT 0,
    proven_at      timestamptz,                      -- the start of the last whole pass
    full_proven_at timestamptz,
    CONSTRAINT proof_progress_pkey PRIMARY KEY (one),
    CONSTRAINT proof_progress_one CHECK (one)
);

-- The findings about these rows.
CREATE FUNCTION proof_examine_v1(
    p_kind text, p_subjects text[], OUT subject text, OUT wallet_id uuid, OUT seq bigint, OUT finding text)
    RETURNS SETOF record LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
BEGIN
    CASE p_kind
        WHEN 'hold' THEN RETURN QUERY SELECT * FROM hold_findings_v1(p_subjects::uuid[]);
        WHEN 'order' THEN RETURN QUERY SELECT * FROM order_findings_v1(p_subjects::uuid[]);
        WHEN 'order_payment' THEN RETURN QUERY SELECT * FROM order_payment_findings_v1(p_subjects);
        WHEN 'entry' THEN RETURN QUERY SELECT * FROM entry_findings_v1(p_subjects::uuid[]);
    END CASE;
END $$;

-- Keep one finding. The time when it was first found stays.
CREATE FUNCTION proof_find_v1(p_kind text, p_subject text, p_wallet_id uuid, p_seq bigint, p_finding text) RETURNS void
    LANGUAGE sql SET search_path FROM CURRENT AS $$
    INSERT INTO proof_findings AS f (kind, subject, wallet_id, seq, finding)
    VALUES (p_kind, p_subject, p_wallet_id, p_seq, p_finding)
    ON CONFLICT (kind, subject) DO UPDATE SET wallet_id = excluded.wallet_id, seq = excluded.seq,
        finding = excluded.finding, seen_at = excluded.seen_at;
$$;

-- Prove these rows, keep what is wrong, and forget what is no longer wrong.
CREATE FUNCTION proof_rows_v1(p_kind text, p_subjects text[], p_started_at timestamptz) RETURNS void
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM proof_find_v1(p_kind, f.subject, (array_agg(f.wallet_id))[1], min(f.seq), string_agg(f.finding, '; '))
        FROM proof_examine_v1(p_kind, p_subjects) f GROUP BY f.subject;
    DELETE FROM proof_findings f
        WHERE f.kind = p_kind AND f.subject = ANY (p_subjects) AND f.seen_at < p_started_at;
END $$;

-- The next wallets of the pass, with as many movements as p_limit allows. `after` and `until` bound what is to be
-- proven of each, `is_last` says whether that is all of it, and `is_lost` whether what was proven is gone.
CREATE FUNCTION proof_batch_v1(
    progress proof_progress, p_limit integer, OUT wallet_id uuid, OUT after bigint, OUT until bigint,
    OUT is_last boolean, OUT is_lost boolean) RETURNS SETOF record
    LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    WITH known AS (
        (SELECT w.id FROM wallets w WHERE w.id > progress.place::uuid ORDER BY w.id LIMIT p_limit)
        UNION
        (SELECT p.wallet_id FROM wallet_proofs p WHERE p.wallet_id > progress.place::uuid
            ORDER BY p.wallet_id LIMIT p_limit)
    ), sized AS (
        SELECT k.id, l.seq AS last_seq, p.seq > 0 AND there.hash IS DISTINCT FROM p.hash AS is_lost,
            CASE WHEN k.id = progress.partial_id THEN progress.partial_seq
                WHEN progress.is_full THEN 0 ELSE coalesce(p.seq, 0) END AS after
        FROM (SELECT k.id FROM known k ORDER BY k.id LIMIT p_limit) k
        LEFT JOIN wallet_proofs p ON p.wallet_id = k.id
        LEFT JOIN wallet_transactions there ON there.wallet_id = k.id AND there.seq = p.seq
        LEFT JOIN LATERAL (
            SELECT max(t.seq) AS seq FROM wallet_transactions t WHERE t.wallet_id = k.id) l ON true
    ), counted AS (
        SELECT s.*, sum(1 + greatest(coalesce(s.last_seq, 0) - s.after, 0)) OVER (ORDER BY s.id) AS total,
            row_number() OVER (ORDER BY s.id) AS position
        FROM sized s
    )
    SELECT c.id, c.after, least(coalesce(c.last_seq, 0), c.after + p_limit),
        coalesce(c.last_seq, 0) <= c.after + p_limit, coalesce(c.is_lost, false)
    FROM counted c WHERE c.total <= p_limit OR c.position = 1;
$$;

-- What the movements of these ranges concern: holds, orders, and the payments of orders.
CREATE FUNCTION proof_concerned_v1(p_wallet_ids uuid[], p_after bigint[], p_until bigint[], p_started_at timestamptz)
    RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    hold_ids    text[];
    order_ids   text[];
    payment_ids text[];
BEGIN
    SELECT array_agg(DISTINCT t.hold_id::text) FILTER (WHERE t.hold_id IS NOT NULL),
        array_agg(DISTINCT t.order_id) FILTER (WHERE t.order_id IS NOT NULL),
        array_agg(DISTINCT coalesce(t.refund_of, t.id)::text)
            FILTER (WHERE t.refund_of IS NOT NULL OR t.order_id IS NOT NULL)
        INTO hold_ids, order_ids, payment_ids
        FROM unnest(p_wallet_ids, p_after, p_until) AS s (wallet_id, after, until)
        JOIN wallet_transactions t ON t.wallet_id = s.wallet_id AND t.seq > s.after AND t.seq <= s.until
        WHERE t.hold_id IS NOT NULL OR t.order_id IS NOT NULL OR t.refund_of IS NOT NULL;
    PERFORM proof_rows_v1('hold', hold_ids, p_started_at);
    PERFORM proof_rows_v1('order', payment_ids, p_started_at);
    PERFORM proof_rows_v1('order_payment', order_ids, p_started_at);
END $$;

-- One step of the wallets. What is proven of a wallet ends before its first wrong movement, so that the next pass finds
-- that movement again. What was proven and is gone stays named until the owner deletes the wallet's row of wallet_proofs.
CREATE FUNCTION proof_wallets_v1(INOUT progress proof_progress, p_limit integer)
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    ids       uuid[];
    afters    bigint[];
    untils    bigint[];
    lost_ids  uuid[];
    whole_ids uuid[];
    wrong_ids uuid[];
    wrongs    bigint[];
    texts     text[];
BEGIN
    SELECT array_agg(b.wallet_id ORDER BY b.wallet_id), array_agg(b.after ORDER BY b.wallet_id),
        array_agg(b.until ORDER BY b.wallet_id), array_agg(b.wallet_id) FILTER (WHERE b.is_last),
        array_agg(b.wallet_id) FILTER (WHERE b.is_lost),
        progress.movements + coalesce(sum(greatest(b.until - b.after, 0)), 0)
        INTO ids, afters, untils, whole_ids, lost_ids, progress.movements FROM proof_batch_v1(progress, p_limit) b;
    IF ids IS NULL THEN
        progress.phase := 'audit_log';
        RETURN;
    END IF;
    SELECT array_agg(f.wallet_id), array_agg(f.seq), array_agg(f.finding) INTO wrong_ids, wrongs, texts FROM (
        SELECT DISTINCT ON (m.wallet_id) m.wallet_id, m.seq, m.finding
        FROM movement_findings_v1(ids, afters, untils) m ORDER BY m.wallet_id, m.seq) f;
    whole_ids := whole_ids || coalesce(wrong_ids, '{}') || coalesce(lost_ids, '{}');
    PERFORM proof_find_v1('wallet', f.wallet_id::text, f.wallet_id, min(f.seq), string_agg(f.finding, '; ' ORDER BY f.seq))
        FROM (
            SELECT w.wallet_id, w.seq, w.finding FROM unnest(wrong_ids, wrongs, texts) AS w (wallet_id, seq, finding)
            UNION ALL
            SELECT w.wallet_id, w.seq, w.finding FROM wallet_findings_v1(ids) w WHERE w.wallet_id = ANY (whole_ids)
            UNION ALL
            SELECT p.wallet_id, p.seq, format('what was proven until seq %s was removed or rewritten', p.seq)
            FROM wallet_proofs p WHERE p.wallet_id = ANY (lost_ids)
        ) f GROUP BY f.wallet_id;
    DELETE FROM proof_findings f USING unnest(whole_ids) AS s (wallet_id)
        WHERE f.kind = 'wallet' AND f.subject = s.wallet_id::text AND f.seen_at < progress.started_at;
    DELETE FROM wallet_proofs p USING unnest(wrong_ids, wrongs) AS w (wallet_id, seq)
        WHERE p.wallet_id = w.wallet_id AND w.seq = 1 AND NOT coalesce(p.wallet_id = ANY (lost_ids), false);
    INSERT INTO wallet_proofs AS p (wallet_id, seq, hash)
        SELECT t.wallet_id, t.seq, t.hash
        FROM unnest(ids, untils) AS s (wallet_id, until)
        LEFT JOIN unnest(wrong_ids, wrongs) AS w (wallet_id, seq) ON w.wallet_id = s.wallet_id
        LEFT JOIN wallet_proofs k ON k.wallet_id = s.wallet_id
        JOIN wallet_transactions t ON t.wallet_id = s.wallet_id
            AND t.seq = coalesce(w.seq - 1, greatest(s.until, k.seq)) AND t.seq IS DISTINCT FROM k.seq
        WHERE NOT coalesce(s.wallet_id = ANY (lost_ids), false)
        ON CONFLICT (wallet_id) DO UPDATE SET seq = excluded.seq, hash = excluded.hash, proven_at = excluded.proven_at;
    PERFORM proof_find_v1('movement_event', f.subject, f.wallet_id, f.seq, f.finding) FROM (
        SELECT DISTINCT ON (m.wallet_id) m.* FROM movement_event_findings_v1(ids, afters, untils) m
        ORDER BY m.wallet_id, m.seq) f;
    IF NOT progress.is_full THEN
        PERFORM proof_concerned_v1(ids, afters, untils, progress.started_at);
    END IF;
    IF ids[cardinality(ids)] = ANY (whole_ids) THEN
        progress.wallets := progress.wallets + cardinality(ids);
        progress.place := ids[cardinality(ids)];
        progress.partial_id := NULL;
        progress.partial_seq := NULL;
    ELSE
        progress.partial_id := ids[1];
        progress.partial_seq := untils[1];
    END IF;
END $$;

-- One step of the audit log.
CREATE FUNCTION proof_audit_log_v1(INOUT progress proof_progress, p_limit integer)
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    from_seq bigint := coalesce(progress.partial_seq, CASE WHEN progress.is_full THEN 0 ELSE progress.audit_seq END);
    to_seq   bigint := coalesce(
        (SELECT max(a.seq) FROM audit_log a WHERE a.seq > from_seq AND a.seq <= from_seq + p_limit), from_seq);
    wrong    record;
BEGIN
    SELECT f.seq, f.finding INTO wrong FROM audit_log_findings_v1(from_seq, to_seq) f ORDER BY f.seq LIMIT 1;
    IF wrong.seq IS NOT NULL THEN
        PERFORM proof_find_v1('audit_log', 'chain', NULL, wrong.seq, wrong.finding);
    END IF;
    IF progress.audit_seq > 0 AND progress.audit_hash IS DISTINCT FROM (
            SELECT a.hash FROM audit_log a WHERE a.seq = progress.audit_seq) THEN
        PERFORM proof_find_v1('audit_log', 'proven', NULL, progress.audit_seq,
            format('the audit log as it was proven until entry %s was removed or rewritten', progress.audit_seq));
    ELSE
        progress.audit_seq := coalesce(wrong.seq - 1, greatest(to_seq, progress.audit_seq));
        progress.audit_hash := (SELECT a.hash FROM audit_log a WHERE a.seq = progress.audit_seq);
    END IF;
    progress.partial_seq := to_seq;
    IF wrong.seq IS NULL AND to_seq >= from_seq + p_limit THEN
        RETURN;
    END IF;
    PERFORM proof_find_v1('audit_log', f.subject, NULL, f.seq, f.finding) FROM tenant_findings_v1() f;
    DELETE FROM proof_findings f WHERE f.kind = 'audit_log' AND f.seen_at < progress.started_at;
    progress.partial_seq := NULL;
    progress.place := CASE WHEN progress.is_full THEN '00000000-0000-0000-0000-000000000000' END;
    progress.phase := CASE WHEN progress.is_full THEN 'hold' ELSE 'feed' END;
END $$;

-- One step of the feed. The part of this pass ends where the feed ended when its first step began: a busy feed must not
-- keep the pass from its end. What was proven of a former feed counts no more.
CREATE FUNCTION proof_feed_v1(INOUT progress proof_progress, p_limit integer)
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    head     events_head;
    from_pos bigint;
    to_pos   bigint;
BEGIN
    SELECT * INTO head FROM events_head;
    IF progress.feed_id IS DISTINCT FROM head.feed_id THEN
        progress.feed_id := head.feed_id;
        progress.feed_position := 0;
        progress.place := NULL;
        progress.partial_seq := NULL;
    END IF;
    progress.partial_seq := least(coalesce(progress.partial_seq, head.position), head.position);
    from_pos := greatest(head.trimmed_to,
        coalesce(progress.place::bigint, CASE WHEN progress.is_full THEN 0 ELSE progress.feed_position END));
    to_pos := least(from_pos + p_limit, progress.partial_seq);
    PERFORM proof_find_v1('event', f.subject, f.wallet_id, NULL, string_agg(
            concat_ws(': ', 'event ' || f.event_id, f.finding), '; '))
        FROM event_findings_v1(from_pos, to_pos) f GROUP BY f.subject, f.wallet_id;
    progress.place := to_pos::text;
    IF to_pos < progress.partial_seq THEN
        RETURN;
    END IF;
    IF head.position < progress.feed_position THEN
        PERFORM proof_find_v1('feed', 'proven', NULL, NULL, format(
            'the feed was proven until position %s and ends at %s', progress.feed_position, head.position));
    END IF;
    PERFORM proof_find_v1('feed', f.subject, f.wallet_id, NULL, concat_ws(': ', 'event ' || f.event_id, f.finding))
        FROM feed_findings_v1() f;
    DELETE FROM proof_findings f WHERE f.kind = 'feed' AND f.seen_at < progress.started_at;
    progress.feed_position := greatest(progress.feed_position, progress.partial_seq);
    progress.partial_seq := NULL;
    progress.phase := 'done';
END $$;

-- One step of a phase that proves rows by their keys.
CREATE FUNCTION proof_keys_v1(INOUT progress proof_progress, p_limit integer)
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    keys text[];
BEGIN
    keys := CASE progress.phase
        WHEN 'hold' THEN array(
            SELECT h.id::text FROM holds h WHERE h.id > progress.place::uuid ORDER BY h.id LIMIT p_limit)
        WHEN 'order' THEN array(
            SELECT o.payment_id::text FROM orders o WHERE o.payment_id > progress.place::uuid
            ORDER BY o.payment_id LIMIT p_limit)
        WHEN 'entry' THEN array(
            SELECT DISTINCT e.transaction_id::text FROM (
                SELECT l.transaction_id FROM ledger_entries l WHERE l.transaction_id > progress.place::uuid
                ORDER BY l.transaction_id, l.entry_no LIMIT p_limit) e
            ORDER BY 1)
        ELSE array(
            SELECT o.order_id FROM order_payments o WHERE o.order_id > progress.place ORDER BY o.order_id LIMIT p_limit)
        END;
    IF cardinality(keys) > 0 THEN
        PERFORM proof_rows_v1(progress.phase, keys, progress.started_at);
        progress.place := keys[cardinality(keys)];
        RETURN;
    END IF;
    progress.phase := CASE progress.phase WHEN 'hold' THEN 'order' WHEN 'order' THEN 'entry' WHEN 'entry' THEN 'order_payment'
        ELSE 'feed' END;
    progress.place := CASE progress.phase WHEN 'feed' THEN NULL WHEN 'order_payment' THEN ''
        ELSE '00000000-0000-0000-0000-000000000000' END;
END $$;

-- End the pass, and tell its result to shared.tenant_proofs. A schema that is not the registry's has no row there.
CREATE FUNCTION proof_end_v1(INOUT progress proof_progress) LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    schema_of_tenant text := current_schema();
    found_count      bigint;
    first_finding    text;
BEGIN
    DELETE FROM proof_findings f WHERE progress.is_full AND f.seen_at < progress.started_at;
    progress.proven_at := progress.started_at;
    progress.full_proven_at := CASE WHEN progress.is_full THEN progress.started_at ELSE progress.full_proven_at END;
    progress.phase := NULL;
    SELECT count(*), (array_agg(
            concat_ws(' ', 'wallet ' || f.wallet_id, 'seq ' || f.seq) || ': ' || f.finding ORDER BY f.found_at, f.subject))[1]
        INTO found_count, first_finding FROM proof_findings f;
    INSERT INTO shared.tenant_proofs AS p
        (tenant_id, proven_at, full_proven_at, wallets, movements, findings, first_finding)
        SELECT t.id, progress.proven_at, progress.full_proven_at, progress.wallets, progress.movements, found_count,
            left(first_finding, 1000)
        FROM shared.tenants t WHERE t.schema_name = schema_of_tenant
        ON CONFLICT (tenant_id) DO UPDATE SET proven_at = excluded.proven_at, full_proven_at = excluded.full_proven_at,
            wallets = excluded.wallets, movements = excluded.movements, findings = excluded.findings,
            first_finding = excluded.first_finding, failed_at = NULL, failure = NULL;
END $$;

-- One step of the proof: at most p_limit rows, in the caller's db transaction. It begins a pass if none is running: one
-- over all rows if the last of that kind is older than p_full_after, else one over what came since the last pass.
--
-- state: `working`, `done` if the step ended the pass, `busy` if another prover works on this tenant. Locks the row of
-- proof_progress only; postings go on. A new kind of proof is a phase here, and its rules a function above.
CREATE FUNCTION proof_step_v1(p_limit integer, p_full_after interval, OUT state text)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    progress proof_progress;
BEGIN
    INSERT INTO proof_progress (one) VALUES (true) ON CONFLICT (one) DO NOTHING;   -- A clone has no row yet.
    SELECT * INTO progress FROM proof_progress FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        state := 'busy';
        RETURN;
    END IF;
    IF progress.phase IS NULL THEN
        progress.phase := 'wallets';
        progress.started_at := clock_timestamp();
        progress.is_full := coalesce(progress.full_proven_at <= progress.started_at - p_full_after, true);
        progress.place := '00000000-0000-0000-0000-000000000000';
        progress.wallets := 0;
        progress.movements := 0;
    END IF;
    progress := CASE progress.phase
        WHEN 'wallets' THEN proof_wallets_v1(progress, p_limit)
        WHEN 'audit_log' THEN proof_audit_log_v1(progress, p_limit)
        WHEN 'feed' THEN proof_feed_v1(progress, p_limit)
        ELSE proof_keys_v1(progress, p_limit) END;
    IF progress.phase = 'done' THEN
        progress := proof_end_v1(progress);
    END IF;
    state := CASE WHEN progress.phase IS NULL THEN 'done' ELSE 'working' END;
    UPDATE proof_progress SET phase = progress.phase, is_full = progress.is_full, started_at = progress.started_at,
        place = progress.place, partial_id = progress.partial_id, partial_seq = progress.partial_seq,
        wallets = progress.wallets, movements = progress.movements, audit_seq = progress.audit_seq,
        audit_hash = progress.audit_hash, feed_id = progress.feed_id, feed_position = progress.feed_position,
        proven_at = progress.proven_at, full_proven_at = progress.full_proven_at;
END $$;

DO $$
DECLARE
    tenant_role text := current_setting('tenant_schemas.tenant_role');
BEGIN
    EXECUTE format('GRANT SELECT ON wallet_proofs, proof_findings, proof_progress TO %I', tenant_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION proof_step_v1, ledger_audit_v5, movement_findings_v1, wallet_findings_v1,
        hold_findings_v1, order_findings_v1, order_payment_findings_v1, entry_findings_v1, audit_log_findings_v1,
        tenant_findings_v1, events_audit_v1, movement_event_findings_v1, event_findings_v1, feed_findings_v1 TO %I',
        tenant_role);
END $$;
