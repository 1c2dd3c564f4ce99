-- The audit, of holds, credit, orders and imports too. Frozen once merged. ledger_audit_v1 stays for yesterday's code.

-- Everything that does not hold, the first row of each wallet only; no rows means the ledger is sound. One statement,
-- so one snapshot: it may run while money moves. What it can't see is a history that was rewritten from some row to
-- its end with all its hashes, wallet included, or cut off there: against that, keep the chains' heads elsewhere too.
CREATE FUNCTION ledger_audit_v2(OUT wallet_id uuid, OUT seq bigint, OUT finding text) RETURNS SETOF record
    LANGUAGE sql STABLE
BEGIN ATOMIC
    WITH entries AS (
        SELECT e.transaction_id,
            jsonb_agg(jsonb_build_array(e.entry_no, e.debit_account, e.credit_account, e.amount_minor)
                ORDER BY e.entry_no) AS listed,
            sum(CASE 'wallets' WHEN e.credit_account THEN e.amount_minor WHEN e.debit_account THEN -e.amount_minor
                ELSE 0 END) AS effect_minor,
            bool_and(d.code IS NOT NULL AND c.code IS NOT NULL) AS accounts_are_known
        FROM ledger_entries e
        LEFT JOIN ledger_accounts d ON d.code = e.debit_account
        LEFT JOIN ledger_accounts c ON c.code = e.credit_account
        GROUP BY e.transaction_id
    ), refunds AS (
        SELECT r.refund_of, sum(r.amount_minor) AS refunded_minor
        FROM wallet_transactions r WHERE r.refund_of IS NOT NULL GROUP BY r.refund_of
    ), checked AS (
        SELECT t.wallet_id, t.seq, concat_ws('; ',
            CASE WHEN w.id IS NULL THEN 'its wallet is missing' END,
            CASE WHEN t.currency <> w.currency THEN 'its currency is not the wallet''s' END,
            CASE WHEN t.seq <> row_number() OVER chain THEN 'seq has a gap' END,
            CASE WHEN t.hash <> wallet_transaction_hash_v1(
                coalesce(lag(t.hash) OVER chain, wallet_genesis_hash_v1(w.id, w.user_id, w.currency)),
                t, coalesce(e.listed, '[]'))
                THEN 'hash does not match the row, its entries or the row before' END,
            CASE WHEN t.balance_after_minor <> sum(t.amount_minor) OVER chain
                THEN 'balance after is not the sum of the amounts' END,
            CASE WHEN t.created_at < lag(t.created_at) OVER chain THEN 'time runs backwards' END,
            CASE WHEN e.effect_minor IS DISTINCT FROM t.amount_minor THEN 'entries do not add up to the amount' END,
            CASE WHEN NOT e.accounts_are_known THEN 'an entry names an unknown account' END,
            CASE WHEN r.refunded_minor > -(t.amount_minor::numeric) THEN 'more was refunded than was paid' END
            ) AS finding
        FROM wallet_transactions t
        LEFT JOIN wallets w ON w.id = t.wallet_id
        LEFT JOIN entries e ON e.transaction_id = t.id
        LEFT JOIN refunds r ON r.refund_of = t.id
        WINDOW chain AS (PARTITION BY t.wallet_id ORDER BY t.seq)
    ), first_in_wallet AS (
        SELECT DISTINCT ON (c.wallet_id) c.wallet_id, c.seq, c.finding
        FROM checked c WHERE c.finding <> '' ORDER BY c.wallet_id, c.seq
    ), last_in_wallet AS (
        SELECT DISTINCT ON (t.wallet_id) t.wallet_id, t.seq, t.balance_after_minor, t.hash, t.created_at
        FROM wallet_transactions t ORDER BY t.wallet_id, t.seq DESC
    ), last_configured AS (
        SELECT DISTINCT ON (a.wallet_id) a.wallet_id, a.after
        FROM audit_log a WHERE a.action IN ('wallet.open', 'wallet.configure', 'wallet.import')
        ORDER BY a.wallet_id, a.at DESC
    ), captures AS (
        SELECT c.hold_id, sum(-c.amount_minor::numeric) AS captured_minor
        FROM wallet_transactions c WHERE c.hold_id IS NOT NULL GROUP BY c.hold_id
    ), holds_of AS (
        SELECT h.wallet_id, sum(h.amount_minor - h.captured_minor) FILTER (WHERE h.status = 'active') AS left_minor,
            bool_or(h.captured_minor <> coalesce(p.captured_minor, 0)) AS are_off
        FROM holds h LEFT JOIN captures p ON p.hold_id = h.id GROUP BY h.wallet_id
    ), wallets_off AS (
        SELECT w.id AS wallet_id, w.last_seq AS seq, concat_ws('; ',
            CASE WHEN w.balance_minor <> coalesce(l.balance_after_minor, 0)
                THEN 'the wallet''s balance is not that of its last transaction' END,
            CASE WHEN w.last_seq <> coalesce(l.seq, 0) THEN 'the wallet''s last transactions are missing' END,
            CASE WHEN w.last_hash <> coalesce(l.hash, wallet_genesis_hash_v1(w.id, w.user_id, w.currency))
                THEN 'the wallet''s hash is not that of its last transaction' END,
            CASE WHEN w.last_posted_at IS DISTINCT FROM l.created_at
                THEN 'the wallet''s time is not that of its last transaction' END,
            CASE WHEN jsonb_build_object('creditLimitMinor', w.credit_limit_minor, 'status', w.status)
                <> coalesce(c.after, '{"creditLimitMinor": 0, "status": "active"}')
                THEN 'limit or status is not what the audit log says' END,
            CASE WHEN w.held_minor <> coalesce(h.left_minor, 0) THEN 'what is held is not what its holds say' END,
            CASE WHEN h.are_off THEN 'a hold''s captures are not what its payments say' END
            ) AS finding
        FROM wallets w
        LEFT JOIN last_in_wallet l ON l.wallet_id = w.id
        LEFT JOIN last_configured c ON c.wallet_id = w.id
        LEFT JOIN holds_of h ON h.wallet_id = w.id
    )
    SELECT f.wallet_id, f.seq, f.finding FROM first_in_wallet f
    UNION ALL
    SELECT o.wallet_id, o.seq, o.finding FROM wallets_off o WHERE o.finding <> ''
    UNION ALL
    SELECT NULL, NULL, format('entry %s of %s belongs to no transaction', e.entry_no, e.transaction_id)
    FROM ledger_entries e WHERE NOT EXISTS (SELECT FROM wallet_transactions t WHERE t.id = e.transaction_id)
    UNION ALL
    SELECT t.wallet_id, t.seq, format('order %s is paid by this, and not known as paid by it', t.order_id)
    FROM wallet_transactions t
    LEFT JOIN order_payments o ON o.order_id = t.order_id
    LEFT JOIN wallet_transactions first ON first.id = o.transaction_id
    WHERE t.type = 'payment' AND t.order_id IS NOT NULL AND o.transaction_id IS DISTINCT FROM t.id
        AND (t.created_at BETWEEN first.created_at AND o.claimed_at) IS NOT TRUE   -- or it is of the old days
        AND (t.hold_id = o.hold_id) IS NOT TRUE
    UNION ALL
    SELECT t.wallet_id, t.seq, format('order %s is known as paid by this', o.order_id)
    FROM order_payments o JOIN wallet_transactions t ON t.id = o.transaction_id
    WHERE t.type <> 'payment' OR t.order_id IS DISTINCT FROM o.order_id OR t.hold_id IS DISTINCT FROM o.hold_id
    UNION ALL
    SELECT t.wallet_id, t.seq, format('hold %s has another wallet, currency or order', h.id)
    FROM wallet_transactions t JOIN holds h ON h.id = t.hold_id
    WHERE (h.wallet_id, h.currency) <> (t.wallet_id, t.currency) OR h.order_id IS DISTINCT FROM t.order_id
    UNION ALL
    SELECT t.wallet_id, t.seq, format('order %s is not what this paid', o.id)
    FROM orders o JOIN wallet_transactions t ON t.id = o.payment_id JOIN wallets w ON w.id = t.wallet_id
    WHERE (o.wallet_id, o.user_id, o.currency, o.id::text, -o.total_minor)
            IS DISTINCT FROM (t.wallet_id, w.user_id, t.currency, t.order_id, t.amount_minor)
        OR o.total_minor <> (
            SELECT coalesce(sum(i.line_total_minor), 0) FROM order_items i WHERE i.order_id = o.id)
    UNION ALL
    SELECT t.wallet_id, t.seq, format('order %s is cancelled, and this was not refunded in full', o.id)
    FROM orders o JOIN wallet_transactions t ON t.id = o.payment_id LEFT JOIN refunds r ON r.refund_of = t.id
    WHERE o.status = 'cancelled' AND coalesce(r.refunded_minor, 0) <> o.total_minor
    UNION ALL
    SELECT t.wallet_id, t.seq, format('the refund of order %s is another one', o.id)
    FROM orders o LEFT JOIN wallet_transactions t ON t.id = o.refund_id
    WHERE o.refund_id IS NOT NULL AND t.refund_of IS DISTINCT FROM o.payment_id
    UNION ALL
    SELECT NULL, NULL, format('the credit policy in %s is not what the audit log says', coalesce(p.currency, l.currency))
    FROM credit_policies p FULL JOIN (
        SELECT DISTINCT ON (a.after ->> 'currency') a.after ->> 'currency' AS currency, a.after
        FROM audit_log a WHERE a.action = 'credit_policy.set' ORDER BY a.after ->> 'currency', a.at DESC
    ) l ON l.currency = p.currency
    WHERE l.after IS DISTINCT FROM to_jsonb(p)
    UNION ALL
    SELECT NULL, NULL, format('the trial balance in %s is off by %s', b.currency, sum(b.debit_minor) - sum(b.credit_minor))
    FROM trial_balance b GROUP BY b.currency HAVING sum(b.debit_minor) <> sum(b.credit_minor);
END;

DO $$
BEGIN
    EXECUTE format('GRANT EXECUTE ON FUNCTION ledger_audit_v2 TO %I', current_setting('tenant_schemas.tenant_role'));
END $$;
