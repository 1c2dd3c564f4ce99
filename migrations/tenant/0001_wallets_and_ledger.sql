-- A tenant's money. Frozen once merged: a change is a new revision, and a changed function is a new version.
--
-- The text names no tenant: it runs with the search_path of one schema and grants to the role in the setting
-- tenant_schemas.tenant_role. Functions in PL/pgSQL keep that path for good (SET search_path FROM CURRENT); those in
-- SQL are bound to this schema's tables when they are made, and can be inlined.
--
-- Refusals are errors of class WA, told apart by SQLSTATE; the message is the HTTP problem's code, the detail is JSON:
--   WA001 insufficient_funds        WA005 idempotency_key_reused   WA009 credit_limit_below_used
--   WA002 wallet_frozen             WA006 wallet_not_found         WA010 wallet_not_empty
--   WA003 wallet_closed             WA007 payment_not_found        WA011 version_mismatch
--   WA004 refund_exceeds_payment    WA008 member_not_found

-- One wallet for a member and currency. All amounts are in the currency's minor unit (ISO 4217).
-- available = balance + credit limit - held. The balance is signed: above zero it is the member's deposit, below zero
-- it is credit used, so the two can't both be there. Only the payer's own row is ever locked; the room left on each
-- page keeps its updates HOT.
CREATE TABLE wallets (
    id                    uuid        NOT NULL DEFAULT gen_random_uuid(),
    user_id               uuid        NOT NULL,
    currency              text        NOT NULL,
    status                text        NOT NULL DEFAULT 'active',
    balance_minor         bigint      NOT NULL DEFAULT 0,
    credit_limit_minor    bigint      NOT NULL DEFAULT 0,
    held_minor            bigint      NOT NULL DEFAULT 0,
    deposit_balance_minor bigint      NOT NULL GENERATED ALWAYS AS (greatest(balance_minor, 0)) STORED,
    credit_used_minor     bigint      NOT NULL GENERATED ALWAYS AS (greatest(-balance_minor, 0)) STORED,
    version               integer     NOT NULL DEFAULT 1,   -- of limit and status, for If-Match; money does not raise it
    last_seq              bigint      NOT NULL DEFAULT 0,
    last_hash             bytea       NOT NULL,
    last_posted_at        timestamptz,
    opened_at             timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT wallets_pkey PRIMARY KEY (id),
    CONSTRAINT wallets_user_id_currency_key UNIQUE (user_id, currency),
    CONSTRAINT wallets_id_currency_key UNIQUE (id, currency),
    CONSTRAINT wallets_user_id_fkey FOREIGN KEY (user_id) REFERENCES shared.users (id),
    CONSTRAINT wallets_currency_is_code CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT wallets_status_known CHECK (status IN ('active', 'frozen', 'closed')),
    CONSTRAINT wallets_credit_limit_not_negative CHECK (credit_limit_minor >= 0),
    CONSTRAINT wallets_held_not_negative CHECK (held_minor >= 0),
    CONSTRAINT wallets_available_not_negative CHECK (balance_minor + credit_limit_minor - held_minor >= 0),
    CONSTRAINT wallets_closed_is_empty CHECK (status <> 'closed' OR (balance_minor = 0 AND held_minor = 0))
) WITH (fillfactor = 50);
CREATE INDEX wallets_opened_at_id_idx ON wallets (opened_at, id);

-- The ledger: every movement of a wallet, numbered without gaps and chained by hash. amount is signed by its effect on
-- the balance. The row is the idempotency record too: (wallet, key) is unique and the fingerprint tells a repeat of
-- the request from another one. admin_id has no foreign key: checking it would lock a row of a shared table on every
-- posting, and users are never deleted.
CREATE TABLE wallet_transactions (
    id                  uuid        NOT NULL,
    wallet_id           uuid        NOT NULL,
    currency            text        NOT NULL,
    seq                 bigint      NOT NULL,
    type                text        NOT NULL,
    amount_minor        bigint      NOT NULL,
    balance_after_minor bigint      NOT NULL,
    idempotency_key     text        NOT NULL,
    request_fingerprint bytea       NOT NULL,
    admin_id            uuid,
    order_id            text,
    refund_of           uuid,
    description         text,
    reference           text,
    reason              text,
    created_at          timestamptz NOT NULL,
    hash                bytea       NOT NULL,
    CONSTRAINT wallet_transactions_pkey PRIMARY KEY (id),
    CONSTRAINT wallet_transactions_wallet_id_seq_key UNIQUE (wallet_id, seq),
    CONSTRAINT wallet_transactions_wallet_id_idempotency_key_key UNIQUE (wallet_id, idempotency_key),
    CONSTRAINT wallet_transactions_wallet_fkey FOREIGN KEY (wallet_id, currency) REFERENCES wallets (id, currency),
    CONSTRAINT wallet_transactions_refund_of_fkey FOREIGN KEY (refund_of) REFERENCES wallet_transactions (id),
    CONSTRAINT wallet_transactions_seq_positive CHECK (seq > 0),
    CONSTRAINT wallet_transactions_created_at_finite CHECK (isfinite(created_at)),
    CONSTRAINT wallet_transactions_idempotency_key_length CHECK (length(idempotency_key) BETWEEN 1 AND 200),
    CONSTRAINT wallet_transactions_type_and_sign CHECK (
        CASE type
            WHEN 'deposit' THEN amount_minor > 0
            WHEN 'payment' THEN amount_minor < 0
            WHEN 'refund' THEN amount_minor > 0
            WHEN 'adjustment' THEN amount_minor <> 0
            WHEN 'opening' THEN amount_minor <> 0
            ELSE false
        END),
    CONSTRAINT wallet_transactions_refund_names_payment CHECK ((type = 'refund') = (refund_of IS NOT NULL)),
    CONSTRAINT wallet_transactions_adjustment_explained CHECK (
        type <> 'adjustment' OR (admin_id IS NOT NULL AND coalesce(reason, '') ~ '\S'))
);
CREATE INDEX wallet_transactions_wallet_id_created_at_idx ON wallet_transactions (wallet_id, created_at, seq);
CREATE INDEX wallet_transactions_refund_of_idx ON wallet_transactions (refund_of) WHERE refund_of IS NOT NULL;

-- The chart of accounts. `wallets` is the control account: wallets are its sub-ledger. No balance is kept here and no
-- foreign key points here, so that no posting locks a row that others need too.
CREATE TABLE ledger_accounts (
    code        text NOT NULL,
    name        text NOT NULL,
    kind        text NOT NULL,
    normal_side text NOT NULL,
    CONSTRAINT ledger_accounts_pkey PRIMARY KEY (code),
    CONSTRAINT ledger_accounts_side_follows_kind CHECK (
        CASE kind
            WHEN 'asset' THEN normal_side = 'debit'
            WHEN 'expense' THEN normal_side = 'debit'
            WHEN 'liability' THEN normal_side = 'credit'
            WHEN 'equity' THEN normal_side = 'credit'
            WHEN 'revenue' THEN normal_side = 'credit'
            ELSE false
        END)
);
INSERT INTO ledger_accounts (code, name, kind, normal_side) VALUES
    ('wallets', 'Wallets of members', 'liability', 'credit'),
    ('cash', 'Cash received for deposits', 'asset', 'debit'),
    ('sales', 'Sales paid from wallets', 'revenue', 'credit'),
    ('adjustments', 'Corrections by admins', 'expense', 'debit'),
    ('opening_balances', 'Balances brought from the old system', 'equity', 'credit');

-- Double entry that can't be unbalanced: one row is a debit and a credit of the same amount.
CREATE TABLE ledger_entries (
    transaction_id uuid     NOT NULL,
    entry_no       smallint NOT NULL,
    debit_account  text     NOT NULL,
    credit_account text     NOT NULL,
    amount_minor   bigint   NOT NULL,
    CONSTRAINT ledger_entries_pkey PRIMARY KEY (transaction_id, entry_no),
    CONSTRAINT ledger_entries_transaction_id_fkey FOREIGN KEY (transaction_id) REFERENCES wallet_transactions (id),
    CONSTRAINT ledger_entries_entry_no_positive CHECK (entry_no > 0),
    CONSTRAINT ledger_entries_amount_positive CHECK (amount_minor > 0),
    CONSTRAINT ledger_entries_accounts_differ CHECK (debit_account <> credit_account)
);

-- What people did to wallets besides moving money: who, what, from, to.
CREATE TABLE audit_log (
    id         uuid        NOT NULL DEFAULT gen_random_uuid(),
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor_id   uuid        NOT NULL,
    action     text        NOT NULL,
    wallet_id  uuid        NOT NULL,
    before     jsonb       NOT NULL,
    after      jsonb       NOT NULL,
    request_id text,
    CONSTRAINT audit_log_pkey PRIMARY KEY (id)
);
CREATE INDEX audit_log_wallet_id_at_idx ON audit_log (wallet_id, at);

-- Immutable for everybody: roles lack the privilege, and for the owner there is this trigger.
CREATE FUNCTION refuse_change_v1() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', tg_table_name USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER wallet_transactions_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON wallet_transactions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_v1();
CREATE TRIGGER ledger_entries_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_v1();
CREATE TRIGGER audit_log_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_v1();

-- The chain: sha256 (FIPS 180-4) of the previous hash and of all the row's own fields and entries, as jsonb writes
-- them. Null fields are left out, so a column added later changes no old hash. Times go in as seconds of the epoch and
-- bytes as hex: no setting of a session can change what is hashed.
CREATE FUNCTION wallet_transaction_hash_v1(previous_hash bytea, posted wallet_transactions, entries jsonb)
    RETURNS bytea LANGUAGE sql STABLE
RETURN sha256(previous_hash || convert_to((jsonb_strip_nulls(
    to_jsonb(posted) - 'hash'
    || jsonb_build_object(
        'created_at', extract(epoch FROM posted.created_at)::text,
        'request_fingerprint', encode(posted.request_fingerprint, 'hex'),
        'entries', entries)))::text, 'UTF8'));

-- Where a wallet's chain starts: with whose it is, in what currency.
CREATE FUNCTION wallet_genesis_hash_v1(wallet_id uuid, user_id uuid, currency text) RETURNS bytea
    LANGUAGE sql STABLE
RETURN sha256(uuid_send(wallet_id) || uuid_send(user_id) || convert_to(currency, 'UTF8'));

-- Open the member's wallet, or return the one there is; `opened` tells which.
CREATE FUNCTION wallet_open_v1(p_user_id uuid, p_currency text, OUT wallet wallets, OUT opened boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    new_id uuid := gen_random_uuid();
BEGIN
    PERFORM FROM shared.memberships m JOIN shared.tenants t ON t.id = m.tenant_id
        WHERE m.user_id = p_user_id AND t.schema_name = current_schema();
    IF NOT FOUND THEN
        RAISE EXCEPTION 'member_not_found' USING ERRCODE = 'WA008';
    END IF;
    PERFORM FROM shared.tenants t WHERE t.schema_name = current_schema()
        AND (t.settings ->> 'currency' = p_currency OR t.settings -> 'currencies' ? p_currency);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'this tenant has no wallets in %', p_currency USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO wallets (id, user_id, currency, last_hash)
        VALUES (new_id, p_user_id, p_currency, wallet_genesis_hash_v1(new_id, p_user_id, p_currency))
        ON CONFLICT (user_id, currency) DO NOTHING
        RETURNING * INTO wallet;
    opened := FOUND;
    IF NOT opened THEN
        SELECT * INTO wallet FROM wallets w WHERE w.user_id = p_user_id AND w.currency = p_currency;
    END IF;
END $$;

-- The one writer of money. It locks the wallet's row, answers a repeated key with the first result, checks, and writes
-- the transaction, its ledger entry and the balance: all or, with an error, nothing.
--
-- p_amount_minor is positive for deposit, payment and refund, signed for adjustment and opening. For a refund null
-- means all that is left of the payment.
--
-- The row lock orders everything: seq, created_at and the hash are taken under it, refunds of one payment queue on it
-- since they are all in the payment's wallet, and so does a second request with the same key.
--
-- Sequential scans are off because a connection that first posts into a small ledger would keep plans that scan it,
-- and slow down as it grows, until somebody analyzes the tables.
CREATE FUNCTION wallet_post_v1(
    p_wallet_id uuid, p_type text, p_amount_minor bigint, p_idempotency_key text,
    p_admin_id uuid, p_order_id text, p_refund_of uuid, p_description text, p_reference text, p_reason text,
    OUT posted wallet_transactions, OUT replayed boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
DECLARE
    wallet         wallets;
    payment        wallet_transactions;
    refundable     bigint;
    effect         bigint;
    available      bigint;
    counterpart    text;
    debit_account  text := 'wallets';
    credit_account text := 'wallets';
    fingerprint    bytea := sha256(convert_to(jsonb_build_array(
        p_type, p_amount_minor, p_admin_id, p_order_id, p_refund_of, p_description, p_reference, p_reason)::text, 'UTF8'));
BEGIN
    SELECT * INTO wallet FROM wallets w WHERE w.id = p_wallet_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'wallet_not_found' USING ERRCODE = 'WA006';
    END IF;

    SELECT * INTO posted FROM wallet_transactions t
        WHERE t.wallet_id = p_wallet_id AND t.idempotency_key = p_idempotency_key;
    replayed := FOUND;
    IF replayed THEN
        IF posted.request_fingerprint <> fingerprint THEN
            RAISE EXCEPTION 'idempotency_key_reused' USING ERRCODE = 'WA005';
        END IF;
        RETURN;
    END IF;

    IF wallet.status = 'closed' THEN
        RAISE EXCEPTION 'wallet_closed' USING ERRCODE = 'WA003';
    ELSIF wallet.status = 'frozen' AND p_type = 'payment' THEN
        RAISE EXCEPTION 'wallet_frozen' USING ERRCODE = 'WA002';
    END IF;

    CASE p_type
        WHEN 'deposit' THEN effect := p_amount_minor; counterpart := 'cash';
        WHEN 'payment' THEN effect := -p_amount_minor; counterpart := 'sales';
        WHEN 'adjustment' THEN effect := p_amount_minor; counterpart := 'adjustments';
        WHEN 'opening' THEN effect := p_amount_minor; counterpart := 'opening_balances';
        WHEN 'refund' THEN
            SELECT * INTO payment FROM wallet_transactions t
                WHERE t.id = p_refund_of AND t.wallet_id = p_wallet_id AND t.type = 'payment';
            IF NOT FOUND THEN
                RAISE EXCEPTION 'payment_not_found' USING ERRCODE = 'WA007';
            END IF;
            SELECT -payment.amount_minor - coalesce(sum(t.amount_minor), 0) INTO refundable
                FROM wallet_transactions t WHERE t.refund_of = payment.id;
            effect := coalesce(p_amount_minor, refundable);
            IF effect > refundable OR refundable = 0 THEN
                RAISE EXCEPTION 'refund_exceeds_payment' USING ERRCODE = 'WA004', DETAIL = jsonb_build_object(
                    'currency', wallet.currency, 'refundable', refundable, 'required', effect);
            END IF;
            counterpart := 'sales';
        ELSE
            RAISE EXCEPTION 'unknown type of wallet transaction: %', p_type USING ERRCODE = 'invalid_parameter_value';
    END CASE;
    IF p_amount_minor = 0
        OR (p_amount_minor < 0 AND p_type NOT IN ('adjustment', 'opening'))
        OR (p_amount_minor IS NULL AND p_type <> 'refund') THEN
        RAISE EXCEPTION 'a % can''t have the amount %', p_type, p_amount_minor
            USING ERRCODE = 'invalid_parameter_value';
    END IF;

    available := wallet.balance_minor + wallet.credit_limit_minor - wallet.held_minor;
    IF effect < 0 AND available + effect < 0 THEN
        RAISE EXCEPTION 'insufficient_funds' USING ERRCODE = 'WA001', DETAIL = jsonb_build_object(
            'currency', wallet.currency, 'available', available, 'required', -effect,
            'shortfall', -effect - available);
    END IF;

    IF effect > 0 THEN debit_account := counterpart; ELSE credit_account := counterpart; END IF;
    posted.id := gen_random_uuid();
    posted.wallet_id := wallet.id;
    posted.currency := wallet.currency;
    posted.seq := wallet.last_seq + 1;
    posted.type := p_type;
    posted.amount_minor := effect;
    posted.balance_after_minor := wallet.balance_minor + effect;
    posted.idempotency_key := p_idempotency_key;
    posted.request_fingerprint := fingerprint;
    posted.admin_id := p_admin_id;
    posted.order_id := p_order_id;
    posted.refund_of := p_refund_of;
    posted.description := p_description;
    posted.reference := p_reference;
    posted.reason := p_reason;
    posted.created_at := greatest(clock_timestamp(), wallet.last_posted_at);
    posted.hash := wallet_transaction_hash_v1(wallet.last_hash, posted, jsonb_build_array(
        jsonb_build_array(1, debit_account, credit_account, abs(effect))));

    INSERT INTO wallet_transactions SELECT posted.*;
    INSERT INTO ledger_entries VALUES (posted.id, 1, debit_account, credit_account, abs(effect));
    UPDATE wallets w SET
        balance_minor = posted.balance_after_minor,
        last_seq = posted.seq,
        last_hash = posted.hash,
        last_posted_at = posted.created_at
        WHERE w.id = wallet.id;
END $$;

-- Change limit and status of the version the caller has seen; null leaves a thing as it is. Logged with before and
-- after in the same db transaction.
CREATE FUNCTION wallet_configure_v1(
    p_wallet_id uuid, p_version integer, p_actor_id uuid, p_credit_limit_minor bigint, p_status text, p_request_id text,
    OUT wallet wallets)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    old wallets;
BEGIN
    SELECT * INTO old FROM wallets w WHERE w.id = p_wallet_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'wallet_not_found' USING ERRCODE = 'WA006';
    ELSIF old.version IS DISTINCT FROM p_version THEN
        RAISE EXCEPTION 'version_mismatch' USING ERRCODE = 'WA011';
    ELSIF old.status = 'closed' THEN
        RAISE EXCEPTION 'wallet_closed' USING ERRCODE = 'WA003';
    ELSIF old.balance_minor + p_credit_limit_minor - old.held_minor < 0 THEN
        RAISE EXCEPTION 'credit_limit_below_used' USING ERRCODE = 'WA009', DETAIL = jsonb_build_object(
            'currency', old.currency, 'creditUsed', old.credit_used_minor, 'held', old.held_minor);
    ELSIF p_status = 'closed' AND (old.balance_minor <> 0 OR old.held_minor <> 0) THEN
        RAISE EXCEPTION 'wallet_not_empty' USING ERRCODE = 'WA010', DETAIL = jsonb_build_object(
            'currency', old.currency, 'balance', old.balance_minor, 'held', old.held_minor);
    END IF;
    UPDATE wallets w SET
        credit_limit_minor = coalesce(p_credit_limit_minor, w.credit_limit_minor),
        status = coalesce(p_status, w.status),
        version = w.version + 1
        WHERE w.id = p_wallet_id RETURNING * INTO wallet;
    INSERT INTO audit_log (actor_id, action, wallet_id, before, after, request_id) VALUES (
        p_actor_id, 'wallet.configure', p_wallet_id,
        jsonb_build_object('creditLimitMinor', old.credit_limit_minor, 'status', old.status),
        jsonb_build_object('creditLimitMinor', wallet.credit_limit_minor, 'status', wallet.status),
        p_request_id);
END $$;

-- Entries unrolled into debits and credits.
CREATE VIEW ledger_postings WITH (security_invoker) AS
    SELECT e.transaction_id, e.entry_no, t.currency, t.created_at, side.account, side.debit_minor, side.credit_minor
    FROM ledger_entries e
    JOIN wallet_transactions t ON t.id = e.transaction_id
    CROSS JOIN LATERAL (VALUES
        (e.debit_account, e.amount_minor, 0::bigint),
        (e.credit_account, 0::bigint, e.amount_minor)) AS side (account, debit_minor, credit_minor);

-- The trial balance by currency. The control account comes from its sub-ledger, the wallets, in two parts: what is
-- owed to members and what members owe. Debits equal credits only if wallets and ledger agree.
CREATE VIEW trial_balance WITH (security_invoker) AS
    SELECT p.currency, p.account, NULL AS part, a.kind,
        greatest(sum(p.debit_minor) - sum(p.credit_minor), 0) AS debit_minor,
        greatest(sum(p.credit_minor) - sum(p.debit_minor), 0) AS credit_minor
    FROM ledger_postings p
    LEFT JOIN ledger_accounts a ON a.code = p.account
    WHERE p.account <> 'wallets'
    GROUP BY p.currency, p.account, a.kind
    UNION ALL
    SELECT w.currency, 'wallets', 'owed to members', 'liability', 0, sum(w.deposit_balance_minor)
    FROM wallets w GROUP BY w.currency
    UNION ALL
    SELECT w.currency, 'wallets', 'owed by members', 'asset', sum(w.credit_used_minor), 0
    FROM wallets w GROUP BY w.currency;

-- Everything that does not hold, the first row of each wallet only; no rows means the ledger is sound. One statement,
-- so one snapshot: it may run while money moves. What it can't see is a history that was rewritten from some row to
-- its end with all its hashes, wallet included, or cut off there: against that, keep the chains' heads elsewhere too.
CREATE FUNCTION ledger_audit_v1(OUT wallet_id uuid, OUT seq bigint, OUT finding text) RETURNS SETOF record
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
        FROM audit_log a WHERE a.action = 'wallet.configure' ORDER BY a.wallet_id, a.at DESC
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
            CASE WHEN w.held_minor <> 0 THEN 'something is held that no hold explains' END
            ) AS finding
        FROM wallets w
        LEFT JOIN last_in_wallet l ON l.wallet_id = w.id
        LEFT JOIN last_configured c ON c.wallet_id = w.id
    )
    SELECT f.wallet_id, f.seq, f.finding FROM first_in_wallet f
    UNION ALL
    SELECT o.wallet_id, o.seq, o.finding FROM wallets_off o WHERE o.finding <> ''
    UNION ALL
    SELECT NULL, NULL, format('entry %s of %s belongs to no transaction', e.entry_no, e.transaction_id)
    FROM ledger_entries e WHERE NOT EXISTS (SELECT FROM wallet_transactions t WHERE t.id = e.transaction_id)
    UNION ALL
    SELECT NULL, NULL, format('the trial balance in %s is off by %s', b.currency, sum(b.debit_minor) - sum(b.credit_minor))
    FROM trial_balance b GROUP BY b.currency HAVING sum(b.debit_minor) <> sum(b.credit_minor);
END;

-- The tenant's role reads everything of its own and writes nothing but through the functions above.
DO $$
DECLARE
    tenant_role text := current_setting('tenant_schemas.tenant_role');
BEGIN
    EXECUTE format('GRANT SELECT ON alembic_version, wallets, wallet_transactions, ledger_accounts, ledger_entries,'
        ' audit_log, ledger_postings, trial_balance TO %I', tenant_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION wallet_transaction_hash_v1, wallet_genesis_hash_v1, wallet_open_v1,'
        ' wallet_post_v1, wallet_configure_v1, ledger_audit_v1 TO %I', tenant_role);
END $$;
