-- squawk-ignore-file ban-drop-constraint, constraint-missing-not-valid
-- The posting path without what it repeated. Frozen once merged.
--
-- A movement has its first ledger entry in its own row (debit_account, credit_account); ledger_entries has the entries of
-- older movements. A CHECK is one function for each table, because PostgreSQL parses and plans the text of each CHECK and
-- generated column again in every statement. An update of a wallet is HOT again: no index reads its balance.

------------------------------------------------------------------------------------------------------------------------
-- Wallets: derived amounts are derived when they are read
------------------------------------------------------------------------------------------------------------------------

ALTER TABLE wallets ADD COLUMN uses_credit boolean NOT NULL DEFAULT false;   -- the balance is below zero
UPDATE wallets SET uses_credit = true WHERE balance_minor < 0;
DROP INDEX wallets_credit_used_idx;
CREATE INDEX wallets_uses_credit_idx ON wallets (id) WHERE uses_credit;

CREATE OR REPLACE VIEW trial_balance WITH (security_invoker) AS
    SELECT p.currency, p.account, NULL AS part, a.kind,
        greatest(sum(p.debit_minor) - sum(p.credit_minor), 0) AS debit_minor,
        greatest(sum(p.credit_minor) - sum(p.debit_minor), 0) AS credit_minor
    FROM ledger_postings p
    LEFT JOIN ledger_accounts a ON a.code = p.account
    WHERE p.account <> 'wallets'
    GROUP BY p.currency, p.account, a.kind
    UNION ALL
    SELECT w.currency, 'wallets', 'owed to members', 'liability', 0, sum(greatest(w.balance_minor, 0))
    FROM wallets w GROUP BY w.currency
    UNION ALL
    SELECT w.currency, 'wallets', 'owed by members', 'asset', sum(greatest(-w.balance_minor, 0)), 0
    FROM wallets w GROUP BY w.currency;

-- Credit in use, a row for each wallet that uses some, with its age; see 0004.
CREATE OR REPLACE VIEW credit_in_use WITH (security_invoker) AS
    SELECT w.id AS wallet_id, w.user_id, w.currency, w.credit_limit_minor, -w.balance_minor AS credit_used_minor, age.*
    FROM wallets w CROSS JOIN LATERAL (
        SELECT min(u.created_at) AS since,
            coalesce(sum(u.unpaid) FILTER (WHERE u.created_at > now() - interval '30 days'), 0)::bigint
                AS up_to_30_days_minor,
            coalesce(sum(u.unpaid) FILTER (WHERE u.created_at <= now() - interval '30 days'
                AND u.created_at > now() - interval '60 days'), 0)::bigint AS up_to_60_days_minor,
            coalesce(sum(u.unpaid) FILTER (WHERE u.created_at <= now() - interval '60 days'
                AND u.created_at > now() - interval '90 days'), 0)::bigint AS up_to_90_days_minor,
            coalesce(sum(u.unpaid) FILTER (WHERE u.created_at <= now() - interval '90 days'), 0)::bigint
                AS over_90_days_minor
        FROM (
            SELECT d.created_at, least(d.drawn, -w.balance_minor - coalesce(sum(d.drawn) OVER newer, 0)) AS unpaid
            FROM (
                SELECT t.seq, t.created_at, least(-t.amount_minor, -t.balance_after_minor) AS drawn
                FROM wallet_transactions t
                WHERE t.wallet_id = w.id AND t.amount_minor < 0 AND t.balance_after_minor < 0 AND t.seq > coalesce((
                    SELECT z.seq FROM wallet_transactions z WHERE z.wallet_id = w.id AND z.balance_after_minor >= 0
                    ORDER BY z.seq DESC LIMIT 1), 0)
            ) d
            WINDOW newer AS (ORDER BY d.seq DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
        ) u WHERE u.unpaid > 0
    ) age
    WHERE w.uses_credit;

-- squawk-ignore ban-drop-column
ALTER TABLE wallets DROP COLUMN deposit_balance_minor;
-- squawk-ignore ban-drop-column
ALTER TABLE wallets DROP COLUMN credit_used_minor;

-- What the dropped columns were, for code of an earlier release: PostgreSQL reads w.credit_used_minor as
-- credit_used_minor(w) where the table has no such column.
CREATE FUNCTION deposit_balance_minor(wallet wallets) RETURNS bigint LANGUAGE sql IMMUTABLE
RETURN greatest((wallet).balance_minor, 0);
CREATE FUNCTION credit_used_minor(wallet wallets) RETURNS bigint LANGUAGE sql IMMUTABLE
RETURN greatest(-(wallet).balance_minor, 0);

-- The rules of a wallet's row. Each has a name, which the error names as its constraint. The usual row passes at the
-- first line. A later revision must never replace this function by one that allows more: rows were checked by it.
CREATE FUNCTION wallet_is_sound_v1(
    status text, currency text, balance_minor bigint, credit_limit_minor bigint, held_minor bigint, uses_credit boolean)
    RETURNS boolean LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT AS $$
DECLARE
    broken text;
BEGIN
    IF balance_minor + credit_limit_minor >= held_minor AND held_minor >= 0 AND credit_limit_minor >= 0
        AND uses_credit = (balance_minor < 0) AND status = 'active' AND currency ~ '^[A-Z]{3}$' THEN
        RETURN true;
    END IF;
    broken := CASE
        WHEN NOT coalesce(currency ~ '^[A-Z]{3}$', false) THEN 'wallets_currency_is_code'
        WHEN coalesce(status NOT IN ('active', 'frozen', 'closed'), true) THEN 'wallets_status_known'
        WHEN coalesce(credit_limit_minor < 0, true) THEN 'wallets_credit_limit_not_negative'
        WHEN coalesce(held_minor < 0, true) THEN 'wallets_held_not_negative'
        WHEN coalesce(balance_minor + credit_limit_minor - held_minor < 0, true) THEN 'wallets_available_not_negative'
        WHEN status = 'closed' AND (balance_minor <> 0 OR held_minor <> 0) THEN 'wallets_closed_is_empty'
        WHEN coalesce(uses_credit <> (balance_minor < 0), true) THEN 'wallets_uses_credit_below_zero'
    END;
    IF broken IS NULL THEN
        RETURN true;
    END IF;
    RAISE EXCEPTION 'new row of wallets violates %', broken
        USING ERRCODE = 'check_violation', CONSTRAINT = broken, TABLE = 'wallets';
END $$;

ALTER TABLE wallets DROP CONSTRAINT wallets_currency_is_code;
ALTER TABLE wallets DROP CONSTRAINT wallets_status_known;
ALTER TABLE wallets DROP CONSTRAINT wallets_credit_limit_not_negative;
ALTER TABLE wallets DROP CONSTRAINT wallets_held_not_negative;
ALTER TABLE wallets DROP CONSTRAINT wallets_available_not_negative;
ALTER TABLE wallets DROP CONSTRAINT wallets_closed_is_empty;
ALTER TABLE wallets ADD CONSTRAINT wallets_sound CHECK (
    wallet_is_sound_v1(status, currency, balance_minor, credit_limit_minor, held_minor, uses_credit));

------------------------------------------------------------------------------------------------------------------------
-- Movements: the first ledger entry is in the row
------------------------------------------------------------------------------------------------------------------------

-- The accounts of a movement's first ledger entry; its amount is the movement's. Null in the movements of before, whose
-- entries are all in ledger_entries.
ALTER TABLE wallet_transactions ADD COLUMN debit_account text;
ALTER TABLE wallet_transactions ADD COLUMN credit_account text;

-- The rules of a movement's row, as those of a wallet's.
CREATE FUNCTION movement_is_sound_v1(
    type text, amount_minor bigint, seq bigint, created_at timestamptz, idempotency_key text, refund_of uuid,
    hold_id uuid, admin_id uuid, reason text, debit_account text, credit_account text)
    RETURNS boolean LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT AS $$
DECLARE
    broken text;
BEGIN
    IF type = 'payment' AND amount_minor < 0 AND seq > 0 AND isfinite(created_at) AND length(idempotency_key) BETWEEN 1 AND 200
        AND refund_of IS NULL AND debit_account = 'wallets' AND credit_account <> 'wallets' THEN
        RETURN true;
    END IF;
    broken := CASE
        WHEN coalesce(seq <= 0, true) THEN 'wallet_transactions_seq_positive'
        WHEN coalesce(NOT isfinite(created_at), true) THEN 'wallet_transactions_created_at_finite'
        WHEN coalesce(length(idempotency_key) NOT BETWEEN 1 AND 200, true)
            THEN 'wallet_transactions_idempotency_key_length'
        WHEN coalesce(NOT CASE type
                WHEN 'deposit' THEN amount_minor > 0
                WHEN 'payment' THEN amount_minor < 0
                WHEN 'refund' THEN amount_minor > 0
                WHEN 'adjustment' THEN amount_minor <> 0
                WHEN 'opening' THEN amount_minor <> 0
                ELSE false
            END, true) THEN 'wallet_transactions_type_and_sign'
        WHEN (type = 'refund') <> (refund_of IS NOT NULL) THEN 'wallet_transactions_refund_names_payment'
        WHEN type = 'adjustment' AND (admin_id IS NULL OR coalesce(reason, '') !~ '\S')
            THEN 'wallet_transactions_adjustment_explained'
        WHEN hold_id IS NOT NULL AND type <> 'payment' THEN 'wallet_transactions_hold_leads_to_payment'
        WHEN NOT coalesce(CASE WHEN amount_minor < 0 THEN debit_account = 'wallets' AND credit_account <> 'wallets'
                ELSE credit_account = 'wallets' AND debit_account <> 'wallets' END,
            debit_account IS NULL AND credit_account IS NULL) THEN 'wallet_transactions_entry_follows_sign'
    END;
    IF broken IS NULL THEN
        RETURN true;
    END IF;
    RAISE EXCEPTION 'new row of wallet_transactions violates %', broken
        USING ERRCODE = 'check_violation', CONSTRAINT = broken, TABLE = 'wallet_transactions';
END $$;

-- The new CHECK reads the whole ledger, about a second for a million movements.
ALTER TABLE wallet_transactions DROP CONSTRAINT wallet_transactions_seq_positive;
ALTER TABLE wallet_transactions DROP CONSTRAINT wallet_transactions_created_at_finite;
ALTER TABLE wallet_transactions DROP CONSTRAINT wallet_transactions_idempotency_key_length;
ALTER TABLE wallet_transactions DROP CONSTRAINT wallet_transactions_type_and_sign;
ALTER TABLE wallet_transactions DROP CONSTRAINT wallet_transactions_refund_names_payment;
ALTER TABLE wallet_transactions DROP CONSTRAINT wallet_transactions_adjustment_explained;
ALTER TABLE wallet_transactions DROP CONSTRAINT wallet_transactions_hold_leads_to_payment;
ALTER TABLE wallet_transactions ADD CONSTRAINT wallet_transactions_sound CHECK (movement_is_sound_v1(
    type, amount_minor, seq, created_at, idempotency_key, refund_of, hold_id, admin_id, reason, debit_account,
    credit_account));

-- The ledger entries of all movements: those in the movement's own row and those in ledger_entries.
CREATE VIEW movement_entries WITH (security_invoker) AS
    SELECT t.id AS transaction_id, 1::smallint AS entry_no, t.debit_account, t.credit_account,
        abs(greatest(t.amount_minor, -9223372036854775807)) AS amount_minor, t.currency, t.created_at
    FROM wallet_transactions t WHERE t.debit_account IS NOT NULL
    UNION ALL
    SELECT e.transaction_id, e.entry_no, e.debit_account, e.credit_account, e.amount_minor, t.currency, t.created_at
    FROM ledger_entries e JOIN wallet_transactions t ON t.id = e.transaction_id;

-- Entries unrolled into debits and credits.
CREATE OR REPLACE VIEW ledger_postings WITH (security_invoker) AS
    SELECT e.transaction_id, e.entry_no, e.currency, e.created_at, side.account, side.debit_minor, side.credit_minor
    FROM movement_entries e
    CROSS JOIN LATERAL (VALUES
        (e.debit_account, e.amount_minor, 0::bigint),
        (e.credit_account, 0::bigint, e.amount_minor)) AS side (account, debit_minor, credit_minor);

------------------------------------------------------------------------------------------------------------------------
-- The second form of the hash chain
------------------------------------------------------------------------------------------------------------------------

-- The id of a wallet's next movement: a UUID of version 7 (RFC 9562), so that ids of one time lie together in the
-- index. Its random bits are those of the hash before, which no other movement has.
CREATE FUNCTION movement_id_v1(created_at timestamptz, previous_hash bytea) RETURNS uuid LANGUAGE sql STABLE
RETURN overlay(overlay(encode(
    substring(int8send((date_part('epoch', created_at) * 1000)::bigint) FROM 3) || substring(previous_hash FOR 10),
    'hex') PLACING '7' FROM 13) PLACING '8' FROM 17)::uuid;

-- What tells a repeat of a request from another request under the same key.
CREATE FUNCTION movement_fingerprint_v2(
    type text, amount_minor bigint, admin_id uuid, order_id text, refund_of uuid, hold_id uuid, description text,
    reference text, reason text, batch text) RETURNS bytea LANGUAGE sql STABLE
RETURN sha256(convert_to(ROW(
    type, amount_minor, admin_id, order_id, refund_of, hold_id, description, reference, reason, batch)::text, 'UTF8'));

-- The chain: sha256 (FIPS 180-4) of the previous hash and of all the row's own fields, as PostgreSQL writes a row out.
-- A movement has this form if its row has its entry, and wallet_transaction_hash_v1 if not. Fields are uuid, bigint and
-- text, which no setting writes in another way; times and bytes go in as they are sent. A column that is added later
-- joins in a later version of this function, and only where it is not null: then old hashes stay.
CREATE FUNCTION wallet_transaction_hash_v2(
    previous_hash bytea, request_fingerprint bytea, created_at timestamptz, id uuid, wallet_id uuid, currency text,
    seq bigint, type text, amount_minor bigint, balance_after_minor bigint, idempotency_key text, admin_id uuid,
    order_id text, refund_of uuid, hold_id uuid, description text, reference text, reason text, debit_account text,
    credit_account text) RETURNS bytea LANGUAGE sql STABLE
RETURN sha256(previous_hash || request_fingerprint || timestamptz_send(created_at) || convert_to(ROW(
    id, wallet_id, currency, seq, type, amount_minor, balance_after_minor, idempotency_key, admin_id, order_id,
    refund_of, hold_id, description, reference, reason, debit_account, credit_account)::text, 'UTF8'));

------------------------------------------------------------------------------------------------------------------------
-- Posting
------------------------------------------------------------------------------------------------------------------------

-- The answer to a movement that was not posted: the one that an earlier request with the same key posted, or the
-- refusal. The caller has locked the wallet. p_payment_id and p_refundable_minor are the payment of a refund and what was
-- left of it.
CREATE FUNCTION wallet_not_posted_v1(
    p_wallet_id uuid, p_type text, p_amount_minor bigint, p_idempotency_key text,
    p_admin_id uuid, p_order_id text, p_refund_of uuid, p_description text, p_reference text, p_reason text,
    p_hold_id uuid, p_payment_id uuid, p_refundable_minor bigint,
    OUT posted wallet_transactions, OUT refundable_minor bigint)
    LANGUAGE plpgsql SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
DECLARE
    wallet      wallets;
    requested   wallet_transactions;
    effect      bigint;
    available   bigint;
BEGIN
    SELECT * INTO posted FROM wallet_transactions t
        WHERE t.wallet_id = p_wallet_id AND t.idempotency_key = p_idempotency_key;
    IF FOUND THEN
        IF posted.debit_account IS NOT NULL THEN
            requested.request_fingerprint := movement_fingerprint_v2(p_type, p_amount_minor, p_admin_id, p_order_id,
                p_refund_of, p_hold_id, p_description, p_reference, p_reason, NULL);
        ELSE
            requested.type := p_type;
            requested.admin_id := p_admin_id;
            requested.order_id := p_order_id;
            requested.refund_of := p_refund_of;
            requested.description := p_description;
            requested.reference := p_reference;
            requested.reason := p_reason;
            requested.hold_id := p_hold_id;
            requested.request_fingerprint := movement_fingerprint_v1(requested, p_amount_minor);
        END IF;
        IF posted.request_fingerprint <> requested.request_fingerprint THEN
            RAISE EXCEPTION 'idempotency_key_reused' USING ERRCODE = 'WA005';
        ELSIF p_type = 'refund' THEN
            SELECT -p.amount_minor - sum(t.amount_minor) INTO refundable_minor
                FROM wallet_transactions p JOIN wallet_transactions t ON t.refund_of = p.id
                WHERE p.id = p_refund_of AND t.seq <= posted.seq GROUP BY p.id;
        END IF;
        RETURN;
    END IF;
    PERFORM FROM holds h WHERE h.wallet_id = p_wallet_id AND h.idempotency_key = p_idempotency_key;
    IF FOUND THEN
        RAISE EXCEPTION 'idempotency_key_reused' USING ERRCODE = 'WA005';
    END IF;

    SELECT * INTO wallet FROM wallets w WHERE w.id = p_wallet_id;
    IF p_hold_id IS NOT NULL THEN
        PERFORM FROM holds h WHERE h.id = p_hold_id AND h.wallet_id = p_wallet_id
            AND h.order_id IS NOT DISTINCT FROM p_order_id
            AND h.captured_minor - p_amount_minor = (
                SELECT coalesce(-sum(t.amount_minor), 0) FROM wallet_transactions t WHERE t.hold_id = p_hold_id);
        IF NOT FOUND THEN
            RAISE EXCEPTION 'hold_not_found' USING ERRCODE = 'WA013';
        END IF;
    END IF;
    IF p_type = 'refund' THEN
        IF p_payment_id IS NULL THEN
            RAISE EXCEPTION 'payment_not_found' USING ERRCODE = 'WA007';
        END IF;
        effect := coalesce(p_amount_minor, p_refundable_minor);
        IF effect > p_refundable_minor OR p_refundable_minor = 0 THEN
            RAISE EXCEPTION 'refund_exceeds_payment' USING ERRCODE = 'WA004', DETAIL = jsonb_build_object(
                'currency', wallet.currency, 'refundable', p_refundable_minor, 'required', effect);
        END IF;
    ELSE
        effect := CASE WHEN p_type = 'payment' THEN -p_amount_minor ELSE p_amount_minor END;
    END IF;
    IF movement_counterpart_v1(p_type) IS NULL OR effect IS NULL OR effect = 0
        OR (p_type IN ('deposit', 'refund') AND effect < 0) OR (p_type = 'payment' AND effect > 0) THEN
        RAISE EXCEPTION 'there is no % of %', p_type, effect USING ERRCODE = 'invalid_parameter_value';
    ELSIF wallet.status = 'closed' THEN
        RAISE EXCEPTION 'wallet_closed' USING ERRCODE = 'WA003';
    ELSIF wallet.status = 'frozen' AND p_type = 'payment' THEN
        RAISE EXCEPTION 'wallet_frozen' USING ERRCODE = 'WA002';
    END IF;
    IF effect > 0 THEN   -- It is too much for a bigint, and PostgreSQL refuses the addition here.
        available := wallet.balance_minor + wallet.credit_limit_minor + effect;
    END IF;
    available := wallet.balance_minor + wallet.credit_limit_minor - wallet.held_minor;
    RAISE EXCEPTION 'insufficient_funds' USING ERRCODE = 'WA001', DETAIL = jsonb_build_object(
        'currency', wallet.currency, 'available', available, 'required', -effect, 'shortfall', -effect - available);
END $$;

-- The one writer of money, of one movement: it locks and reads the wallet, writes the movement, and writes the balance,
-- all or, with an error, nothing. A repeated key is answered with the first result.
--
-- The wallet is p_wallet_id, or else the member's in a currency.
--
-- p_amount_minor is positive for deposit, payment and refund, signed for adjustment and opening. For a refund null
-- means all that is left of the payment; refundable_minor is what is left of it afterwards.
--
-- The row lock orders everything: seq, created_at and the hash are taken under it, refunds of one payment queue on it
-- since they are all in the payment's wallet, and so does a second request with the same key. Two wallets that pay one
-- order queue on the order's row.
--
-- The usual movement costs three statements. Whatever does not allow one leads to wallet_not_posted_v1, which says why.
-- The statement that writes the movement looks for the key itself: one that waited for the lock sees it only there.
--
-- Sequential scans are off because a connection that first posts into a small ledger would keep plans that scan it,
-- and slow down as it grows, until somebody analyzes the tables.
CREATE FUNCTION wallet_post_v3(
    p_wallet_id uuid, p_user_id uuid, p_currency text, p_type text, p_amount_minor bigint, p_idempotency_key text,
    p_admin_id uuid, p_order_id text, p_refund_of uuid, p_description text, p_reference text, p_reason text,
    p_hold_id uuid DEFAULT NULL,
    OUT id uuid, OUT wallet_id uuid, OUT currency text, OUT seq bigint, OUT type text, OUT amount_minor bigint,
    OUT balance_after_minor bigint, OUT order_id text, OUT created_at timestamptz, OUT refundable_minor bigint,
    OUT replayed boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
DECLARE
    max_minor      constant bigint := 9223372036854775807;
    limit_minor    bigint;
    held           bigint;
    status         text;
    previous_hash  bytea;
    fingerprint    bytea;
    debit_account  text := 'wallets';
    credit_account text := 'sales';
    payment_id     uuid;
    may_post       boolean;
BEGIN
    IF p_wallet_id IS NULL THEN
        SELECT w.id, w.currency, w.last_seq + 1, w.balance_minor, w.credit_limit_minor, w.held_minor, w.status,
                w.last_hash, w.last_posted_at
            INTO wallet_id, currency, seq, balance_after_minor, limit_minor, held, status, previous_hash, created_at
            FROM wallets w WHERE w.user_id = p_user_id AND w.currency = p_currency FOR NO KEY UPDATE;
    ELSE
        SELECT w.id, w.currency, w.last_seq + 1, w.balance_minor, w.credit_limit_minor, w.held_minor, w.status,
                w.last_hash, w.last_posted_at
            INTO wallet_id, currency, seq, balance_after_minor, limit_minor, held, status, previous_hash, created_at
            FROM wallets w WHERE w.id = p_wallet_id FOR NO KEY UPDATE;
    END IF;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'wallet_not_found' USING ERRCODE = 'WA006';
    END IF;
    created_at := greatest(clock_timestamp(), created_at);   -- The time under the lock, not that of the question for it.

    type := p_type;
    order_id := p_order_id;
    IF p_type = 'payment' THEN
        amount_minor := -p_amount_minor;
        may_post := status = 'active' AND amount_minor < 0;
    ELSE
        credit_account := 'wallets';
        debit_account := movement_counterpart_v1(p_type);
        amount_minor := p_amount_minor;
        may_post := status <> 'closed' AND debit_account IS NOT NULL;
        IF p_type = 'refund' THEN
            SELECT t.id, t.order_id, -t.amount_minor - coalesce((
                    SELECT sum(r.amount_minor) FROM wallet_transactions r WHERE r.refund_of = t.id), 0)
                INTO payment_id, order_id, refundable_minor FROM wallet_transactions t
                WHERE t.id = p_refund_of AND t.wallet_id = wallet_post_v3.wallet_id AND t.type = 'payment';
            amount_minor := coalesce(p_amount_minor, refundable_minor);
            may_post := may_post AND amount_minor <= refundable_minor;
        END IF;
        IF amount_minor < 0 THEN
            credit_account := debit_account;
            debit_account := 'wallets';
            may_post := may_post AND p_type IN ('adjustment', 'opening');
        END IF;
    END IF;
    IF amount_minor < 0 THEN
        IF held > 0 THEN
            held := holds_let_go_v1(wallet_id);
        END IF;
        may_post := may_post AND balance_after_minor + limit_minor - held + amount_minor >= 0;
    ELSE   -- Neither the balance nor what the CHECK adds up becomes too much for a bigint.
        may_post := may_post AND amount_minor > 0 AND amount_minor <= max_minor - greatest(balance_after_minor + limit_minor, 0);
    END IF;
    IF may_post AND p_hold_id IS NOT NULL THEN
        -- Only hold_capture_v1 gets by: it has just noted in the hold what this payment is to bring.
        PERFORM FROM holds h WHERE h.id = p_hold_id AND h.wallet_id = wallet_post_v3.wallet_id
            AND h.order_id IS NOT DISTINCT FROM p_order_id
            AND h.captured_minor - p_amount_minor = (
                SELECT coalesce(-sum(t.amount_minor), 0) FROM wallet_transactions t WHERE t.hold_id = p_hold_id);
        may_post := FOUND;
    END IF;

    replayed := true;
    IF may_post THEN
        balance_after_minor := balance_after_minor + amount_minor;
        fingerprint := movement_fingerprint_v2(p_type, p_amount_minor, p_admin_id, p_order_id, p_refund_of, p_hold_id,
            p_description, p_reference, p_reason, NULL);
        id := movement_id_v1(created_at, previous_hash);
        previous_hash := wallet_transaction_hash_v2(previous_hash, fingerprint, created_at, id, wallet_id, currency, seq,
            p_type, amount_minor, balance_after_minor, p_idempotency_key, p_admin_id, order_id, p_refund_of, p_hold_id,
            p_description, p_reference, p_reason, debit_account, credit_account);
        INSERT INTO wallet_transactions (id, wallet_id, currency, seq, type, amount_minor, balance_after_minor,
                idempotency_key, request_fingerprint, admin_id, order_id, refund_of, hold_id, description, reference,
                reason, created_at, hash, debit_account, credit_account)
            SELECT id, wallet_id, currency, seq, p_type, amount_minor, balance_after_minor,
                p_idempotency_key, fingerprint, p_admin_id, order_id, p_refund_of, p_hold_id, p_description, p_reference,
                p_reason, created_at, previous_hash, debit_account, credit_account
            WHERE NOT EXISTS (SELECT FROM wallet_transactions t
                    WHERE t.wallet_id = wallet_post_v3.wallet_id AND t.idempotency_key = p_idempotency_key)
                AND NOT EXISTS (SELECT FROM holds h
                    WHERE h.wallet_id = wallet_post_v3.wallet_id AND h.idempotency_key = p_idempotency_key);
        replayed := NOT FOUND;
    END IF;
    IF replayed THEN
        SELECT (n.posted).id, (n.posted).currency, (n.posted).seq, (n.posted).type, (n.posted).amount_minor,
                (n.posted).balance_after_minor, (n.posted).order_id, (n.posted).created_at, n.refundable_minor
            INTO id, currency, seq, type, amount_minor, balance_after_minor, order_id, created_at, refundable_minor
            FROM wallet_not_posted_v1(wallet_id, p_type, p_amount_minor, p_idempotency_key, p_admin_id, p_order_id,
                p_refund_of, p_description, p_reference, p_reason, p_hold_id, payment_id, refundable_minor) n;
        RETURN;
    END IF;
    UPDATE wallets w SET
        balance_minor = balance_after_minor,
        uses_credit = balance_after_minor < 0,
        last_seq = seq,
        last_hash = previous_hash,
        last_posted_at = created_at
        WHERE w.id = wallet_id;

    IF p_type = 'refund' THEN
        refundable_minor := refundable_minor - amount_minor;
    ELSIF p_type = 'payment' AND p_order_id IS NOT NULL THEN
        INSERT INTO order_payments (order_id, transaction_id, hold_id) VALUES (p_order_id, id, p_hold_id)
            ON CONFLICT ON CONSTRAINT order_payments_pkey DO NOTHING;
        IF NOT FOUND THEN
            PERFORM FROM order_payments o WHERE o.order_id = p_order_id AND o.hold_id = p_hold_id;
            IF NOT FOUND THEN
                RAISE EXCEPTION 'order_already_paid' USING ERRCODE = 'WA012';
            END IF;
        END IF;
    END IF;
END $$;

-- Superseded by wallet_post_v3. What it answers is the movement without its hash and its fingerprint, which no release
-- reads.
CREATE OR REPLACE FUNCTION wallet_post_v2(
    p_wallet_id uuid, p_type text, p_amount_minor bigint, p_idempotency_key text,
    p_admin_id uuid, p_order_id text, p_refund_of uuid, p_description text, p_reference text, p_reason text,
    p_hold_id uuid DEFAULT NULL,
    OUT posted wallet_transactions, OUT replayed boolean, OUT refundable_minor bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
DECLARE
    answer record;
BEGIN
    answer := wallet_post_v3(p_wallet_id, NULL, NULL, p_type, p_amount_minor, p_idempotency_key, p_admin_id, p_order_id,
        p_refund_of, p_description, p_reference, p_reason, p_hold_id);
    posted.id := answer.id;
    posted.wallet_id := answer.wallet_id;
    posted.currency := answer.currency;
    posted.seq := answer.seq;
    posted.type := answer.type;
    posted.amount_minor := answer.amount_minor;
    posted.balance_after_minor := answer.balance_after_minor;
    posted.idempotency_key := p_idempotency_key;
    posted.admin_id := p_admin_id;
    posted.order_id := answer.order_id;
    posted.refund_of := p_refund_of;
    posted.description := p_description;
    posted.reference := p_reference;
    posted.reason := p_reason;
    posted.hold_id := p_hold_id;
    posted.created_at := answer.created_at;
    replayed := answer.replayed;
    refundable_minor := answer.refundable_minor;
END $$;

-- The rules of one movement, and the row it becomes. `wallet` is as it is under its lock; `movement` has the request's
-- own fields and fingerprint, its amount signed by its effect. Given back are both as they would be afterwards. Nothing
-- is written but that holds whose time is over are let go of, since they block no funds.
CREATE FUNCTION movement_apply_v2(INOUT wallet wallets, INOUT movement wallet_transactions)
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    available   bigint;
    counterpart text := movement_counterpart_v1(movement.type);
BEGIN
    IF counterpart IS NULL OR movement.amount_minor IS NULL OR movement.amount_minor = 0
        OR (movement.type IN ('deposit', 'refund') AND movement.amount_minor < 0)
        OR (movement.type = 'payment' AND movement.amount_minor > 0) THEN
        RAISE EXCEPTION 'there is no % of %', movement.type, movement.amount_minor
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF wallet.status = 'closed' THEN
        RAISE EXCEPTION 'wallet_closed' USING ERRCODE = 'WA003';
    ELSIF wallet.status = 'frozen' AND movement.type = 'payment' THEN
        RAISE EXCEPTION 'wallet_frozen' USING ERRCODE = 'WA002';
    END IF;

    IF movement.amount_minor < 0 THEN
        IF wallet.held_minor > 0 THEN
            wallet.held_minor := holds_let_go_v1(wallet.id);
        END IF;
        available := wallet.balance_minor + wallet.credit_limit_minor - wallet.held_minor;
        IF available + movement.amount_minor < 0 THEN
            RAISE EXCEPTION 'insufficient_funds' USING ERRCODE = 'WA001', DETAIL = jsonb_build_object(
                'currency', wallet.currency, 'available', available, 'required', -movement.amount_minor,
                'shortfall', -movement.amount_minor - available);
        END IF;
    END IF;

    movement.wallet_id := wallet.id;
    movement.currency := wallet.currency;
    movement.seq := wallet.last_seq + 1;
    movement.balance_after_minor := wallet.balance_minor + movement.amount_minor;
    movement.created_at := greatest(clock_timestamp(), wallet.last_posted_at);
    movement.id := movement_id_v1(movement.created_at, wallet.last_hash);
    movement.debit_account := CASE WHEN movement.amount_minor > 0 THEN counterpart ELSE 'wallets' END;
    movement.credit_account := CASE WHEN movement.amount_minor > 0 THEN 'wallets' ELSE counterpart END;
    movement.hash := wallet_transaction_hash_v2(wallet.last_hash, movement.request_fingerprint, movement.created_at,
        movement.id, movement.wallet_id, movement.currency, movement.seq, movement.type, movement.amount_minor,
        movement.balance_after_minor, movement.idempotency_key, movement.admin_id, movement.order_id, movement.refund_of,
        movement.hold_id, movement.description, movement.reference, movement.reason, movement.debit_account,
        movement.credit_account);

    wallet.balance_minor := movement.balance_after_minor;
    wallet.uses_credit := wallet.balance_minor < 0;
    -- What the CHECK of wallets adds up: if it is too much for a bigint, it is refused here and not when it is written.
    available := wallet.balance_minor + wallet.credit_limit_minor - wallet.held_minor;
    wallet.last_seq := movement.seq;
    wallet.last_hash := movement.hash;
    wallet.last_posted_at := movement.created_at;
END $$;

-- The one writer of money, of many movements: what wallet_post_v3 does for one, by the same rules. p_items is an array
-- of objects {wallet_id, type, amount_minor, idempotency_key, order_id, description, reference, reason}; refunds and
-- captures are not among them. The answer has one row for each item, in their order.
--
-- All or nothing with p_is_atomic: the first refusal, in the order of wallets, is raised with the item's place in its
-- detail. Else each item stands on its own and a refused one has a SQLSTATE instead of a transaction. p_batch tells the
-- whole request from others: an item whose key was used by another one refuses everything, in both ways.
--
-- One statement locks all the wallets, in the order of their ids, so that two calls can't block each other; one reads,
-- one to a table writes, with the orders in their order. Between them is a loop over memory: what is refused decides
-- what the next may spend, and each hash needs the one before.
CREATE FUNCTION wallet_post_many_v2(
    p_items jsonb, p_admin_id uuid, p_batch text, p_is_atomic boolean,
    OUT item_no integer, OUT posted wallet_transactions, OUT replayed boolean, OUT refused_by text, OUT detail text)
    RETURNS SETOF record LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
DECLARE
    item         record;
    applied      record;
    wallet       wallets;
    movement     wallet_transactions;
    touched      wallets[] := '{}';
    movements    wallet_transactions[] := '{}';   -- what is to be written
    answers      wallet_transactions[] := array_fill(NULL::wallet_transactions, ARRAY[jsonb_array_length(p_items)]);
    replays      boolean[] := array_fill(false, ARRAY[jsonb_array_length(p_items)]);
    refusals     text[] := array_fill(NULL::text, ARRAY[jsonb_array_length(p_items)]);
    details      text[] := array_fill(NULL::text, ARRAY[jsonb_array_length(p_items)]);
    orders_paid  jsonb := '{}';
    amount_minor bigint;
    claimed      bigint;
    reason       text;
BEGIN
    PERFORM FROM wallets w
        WHERE w.id IN (SELECT (i.item ->> 'wallet_id')::uuid FROM jsonb_array_elements(p_items) AS i (item))
        ORDER BY w.id FOR NO KEY UPDATE;

    FOR item IN
        -- Subqueries and no joins: a plan made while the ledger was small would join by the wallet alone.
        SELECT i.no, i.item, w AS wallet,
            (SELECT t FROM wallet_transactions t
                WHERE t.wallet_id = w.id AND t.idempotency_key = i.item ->> 'idempotency_key') AS earlier,
            EXISTS (SELECT FROM holds h
                WHERE h.wallet_id = w.id AND h.idempotency_key = i.item ->> 'idempotency_key') AS is_key_of_hold,
            i.item ->> 'type' = 'payment' AND EXISTS (
                SELECT FROM order_payments o WHERE o.order_id = i.item ->> 'order_id') AS order_is_paid
        FROM jsonb_array_elements(p_items) WITH ORDINALITY AS i (item, no)
        LEFT JOIN wallets w ON w.id = (i.item ->> 'wallet_id')::uuid
        ORDER BY w.id, i.no
    LOOP
        IF (item.wallet).id IS DISTINCT FROM wallet.id THEN
            wallet := item.wallet;
        END IF;
        BEGIN
            movement := NULL;
            movement.type := item.item ->> 'type';
            amount_minor := (item.item ->> 'amount_minor')::bigint;
            movement.amount_minor := CASE WHEN movement.type = 'payment' THEN -amount_minor ELSE amount_minor END;
            movement.idempotency_key := item.item ->> 'idempotency_key';
            movement.admin_id := p_admin_id;
            movement.order_id := item.item ->> 'order_id';
            movement.description := item.item ->> 'description';
            movement.reference := item.item ->> 'reference';
            movement.reason := item.item ->> 'reason';
            IF (item.earlier).id IS NOT NULL AND (item.earlier).debit_account IS NULL THEN
                movement.request_fingerprint := movement_fingerprint_v1(movement, amount_minor, p_batch);
            ELSE
                movement.request_fingerprint := movement_fingerprint_v2(movement.type, amount_minor,
                    movement.admin_id, movement.order_id, NULL, NULL, movement.description, movement.reference,
                    movement.reason, p_batch);
            END IF;

            IF wallet.id IS NULL THEN
                RAISE EXCEPTION 'wallet_not_found' USING ERRCODE = 'WA006';
            ELSIF item.is_key_of_hold OR (item.earlier).request_fingerprint <> movement.request_fingerprint THEN
                RAISE EXCEPTION 'idempotency_key_reused' USING ERRCODE = 'WA005';
            ELSIF (item.earlier).id IS NOT NULL THEN
                answers[item.no] := item.earlier;
                replays[item.no] := true;
                CONTINUE;
            END IF;
            applied := movement_apply_v2(wallet, movement);
            IF item.order_is_paid OR (movement.type = 'payment' AND orders_paid ? movement.order_id) THEN
                RAISE EXCEPTION 'order_already_paid' USING ERRCODE = 'WA012';
            END IF;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS reason = PG_EXCEPTION_DETAIL;
            IF SQLSTATE = 'WA005' OR (SQLSTATE NOT LIKE 'WA%' AND SQLSTATE <> '22003') THEN
                RAISE;
            ELSIF p_is_atomic THEN
                RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = SQLERRM,
                    DETAIL = coalesce(nullif(reason, ''), '{}')::jsonb || jsonb_build_object('item', item.no - 1);
            END IF;
            refusals[item.no] := SQLSTATE;
            details[item.no] := nullif(reason, '');
            CONTINUE;
        END;
        wallet := applied.wallet;
        movement := applied.movement;
        IF cardinality(touched) > 0 AND (touched[cardinality(touched)]).id = wallet.id THEN
            touched[cardinality(touched)] := wallet;
        ELSE
            touched[cardinality(touched) + 1] := wallet;
        END IF;
        movements[cardinality(movements) + 1] := movement;
        answers[item.no] := movement;
        IF movement.type = 'payment' AND movement.order_id IS NOT NULL THEN
            orders_paid := orders_paid || jsonb_build_object(movement.order_id, true);
        END IF;
    END LOOP;

    INSERT INTO wallet_transactions SELECT * FROM unnest(movements);
    UPDATE wallets w SET
        balance_minor = c.balance_minor,
        uses_credit = c.uses_credit,
        last_seq = c.last_seq,
        last_hash = c.last_hash,
        last_posted_at = c.last_posted_at
        FROM unnest(touched) c WHERE w.id = c.id;
    INSERT INTO order_payments (order_id, transaction_id)
        SELECT m.order_id, m.id FROM unnest(movements) m
        WHERE m.type = 'payment' AND m.order_id IS NOT NULL ORDER BY m.order_id
        ON CONFLICT (order_id) DO NOTHING;
    GET DIAGNOSTICS claimed = ROW_COUNT;
    IF claimed <> (SELECT count(*) FROM jsonb_object_keys(orders_paid)) THEN
        -- Somebody else paid one in this very moment: asked again, this function sees which.
        RAISE EXCEPTION 'order_already_paid' USING ERRCODE = 'WA012';
    END IF;

    RETURN QUERY SELECT n, answers[n], replays[n], refusals[n], details[n]
        FROM generate_series(1, jsonb_array_length(p_items)) n;
END $$;

-- Superseded by wallet_post_many_v2.
CREATE OR REPLACE FUNCTION wallet_post_many_v1(
    p_items jsonb, p_admin_id uuid, p_batch text, p_is_atomic boolean,
    OUT item_no integer, OUT posted wallet_transactions, OUT replayed boolean, OUT refused_by text, OUT detail text)
    RETURNS SETOF record LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    RETURN QUERY SELECT m.item_no, m.posted, m.replayed, m.refused_by, m.detail
        FROM wallet_post_many_v2(p_items, p_admin_id, p_batch, p_is_atomic) m;
END $$;

------------------------------------------------------------------------------------------------------------------------
-- A member's own payment, with the proof of the member's standing
------------------------------------------------------------------------------------------------------------------------

-- A row if the user may act as a member of this tenant now: the user is active, the session has not ended, the membership is
-- there, and the tenant is active and its row of the registry is this version. It reads `shared` with the rights of the
-- functions below, which are its owner's; nothing else may call it.
CREATE FUNCTION member_standing_v1(p_user_id uuid, p_session_id uuid, p_tenant_version integer) RETURNS SETOF uuid
    LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT m.user_id
    FROM shared.tenants t
    JOIN shared.memberships m ON m.tenant_id = t.id
    JOIN shared.users u ON u.id = m.user_id
    JOIN shared.sessions s ON s.user_id = m.user_id
    WHERE t.schema_name = current_schema() AND t.status = 'active' AND t.version = p_tenant_version
        AND m.user_id = p_user_id AND m.role IN ('member', 'admin')
        AND u.status = 'active' AND s.id = p_session_id AND s.ended_at IS NULL;
END;

-- More refusals of class WA:
--   WA090 standing_unproven   not an answer for a client: the service asks for the standing, and then pays or refuses

-- Pay from the member's own wallet, if the member's standing holds in this very statement and the tenant's row of the
-- registry still is the version that the service knows. Else as wallet_post_v3. The lock comes first, so that the
-- standing holds when the payment is posted, however long it waited.
CREATE FUNCTION wallet_pay_v1(
    p_user_id uuid, p_session_id uuid, p_tenant_version integer, p_currency text, p_amount_minor bigint,
    p_idempotency_key text, p_order_id text, p_description text,
    OUT id uuid, OUT wallet_id uuid, OUT seq bigint, OUT balance_after_minor bigint, OUT created_at timestamptz,
    OUT replayed boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
BEGIN
    PERFORM FROM wallets w WHERE w.user_id = p_user_id AND w.currency = p_currency FOR NO KEY UPDATE;
    PERFORM FROM member_standing_v1(p_user_id, p_session_id, p_tenant_version);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'standing_unproven' USING ERRCODE = 'WA090';
    END IF;
    SELECT p.id, p.wallet_id, p.seq, p.balance_after_minor, p.created_at, p.replayed
        INTO id, wallet_id, seq, balance_after_minor, created_at, replayed
        FROM wallet_post_v3(NULL, p_user_id, p_currency, 'payment', p_amount_minor, p_idempotency_key, NULL, p_order_id,
            NULL, p_description, NULL, NULL) p;
END $$;

-- Payments of members from their own wallets in one call, each with the proof of its standing. What can be posted now is
-- posted; an item that is not in the answer is to be asked for singly, by wallet_pay_v1, which has the right answer or
-- refusal for it. So nothing here waits: a wallet that somebody else has locked is left out.
--
-- Payments of one wallet are chained in the order of the items. Plans are generic, or each call would plan anew.
CREATE FUNCTION wallet_pay_many_v1(
    p_user_ids uuid[], p_session_ids uuid[], p_tenant_version integer, p_currency text, p_amounts_minor bigint[],
    p_idempotency_keys text[], p_descriptions text[],
    OUT item_no bigint, OUT id uuid, OUT wallet_id uuid, OUT seq bigint, OUT balance_after_minor bigint,
    OUT created_at timestamptz)
    RETURNS SETOF record LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off
    SET plan_cache_mode TO force_generic_plan AS $$
DECLARE
    locked constant uuid[] := ARRAY(
        SELECT w.id FROM wallets w WHERE w.user_id = ANY (p_user_ids) AND w.currency = p_currency
        FOR NO KEY UPDATE SKIP LOCKED);
BEGIN
    RETURN QUERY
    WITH RECURSIVE items AS MATERIALIZED (
        SELECT i.no, i.amount_minor, i.idempotency_key, i.description, w.id AS wallet_id,
            movement_fingerprint_v2('payment', i.amount_minor, NULL, NULL, NULL, NULL, i.description, NULL, NULL, NULL)
                AS fingerprint,
            row_number() OVER (PARTITION BY w.id ORDER BY i.no) AS place
        FROM unnest(p_user_ids, p_session_ids, p_amounts_minor, p_idempotency_keys, p_descriptions) WITH ORDINALITY
            AS i (user_id, session_id, amount_minor, idempotency_key, description, no)
        JOIN wallets w ON w.user_id = i.user_id AND w.currency = p_currency
        WHERE w.id = ANY (locked) AND w.status = 'active' AND w.held_minor = 0 AND i.amount_minor > 0
            AND NOT EXISTS (SELECT FROM wallet_transactions t
                WHERE t.wallet_id = w.id AND t.idempotency_key = i.idempotency_key)
            AND NOT EXISTS (SELECT FROM holds h WHERE h.wallet_id = w.id AND h.idempotency_key = i.idempotency_key)
            AND NOT EXISTS (SELECT FROM unnest(p_user_ids, p_idempotency_keys) WITH ORDINALITY AS e (user_id, key, no)
                WHERE e.user_id = i.user_id AND e.key = i.idempotency_key AND e.no < i.no)
            AND EXISTS (SELECT FROM member_standing_v1(i.user_id, i.session_id, p_tenant_version))
    ), chain AS (
        SELECT w.id AS wallet_id, 0::bigint AS place, NULL::bigint AS no, false AS is_posted, w.credit_limit_minor,
            w.balance_minor, w.last_seq AS seq, w.last_hash AS hash, w.last_posted_at AS created_at, NULL::uuid AS id
        FROM wallets w WHERE w.id = ANY (locked)
        UNION ALL
        SELECT c.wallet_id, i.place, i.no, next.is_posted, c.credit_limit_minor,
            CASE WHEN next.is_posted THEN c.balance_minor - i.amount_minor ELSE c.balance_minor END,
            CASE WHEN next.is_posted THEN c.seq + 1 ELSE c.seq END,
            CASE WHEN next.is_posted THEN wallet_transaction_hash_v2(c.hash, i.fingerprint, next.created_at, next.id,
                c.wallet_id, p_currency, c.seq + 1, 'payment', -i.amount_minor, c.balance_minor - i.amount_minor,
                i.idempotency_key, NULL, NULL, NULL, NULL, i.description, NULL, NULL, 'wallets', 'sales')
                ELSE c.hash END,
            CASE WHEN next.is_posted THEN next.created_at ELSE c.created_at END,
            next.id
        FROM chain c JOIN items i ON i.wallet_id = c.wallet_id AND i.place = c.place + 1
        CROSS JOIN LATERAL (
            SELECT c.balance_minor + c.credit_limit_minor >= i.amount_minor AS is_posted, at.created_at,
                movement_id_v1(at.created_at, c.hash) AS id
            FROM (SELECT greatest(clock_timestamp(), c.created_at) AS created_at OFFSET 0) at OFFSET 0) next
    ), posted AS (
        INSERT INTO wallet_transactions (id, wallet_id, currency, seq, type, amount_minor, balance_after_minor,
                idempotency_key, request_fingerprint, description, created_at, hash, debit_account, credit_account)
            SELECT c.id, c.wallet_id, p_currency, c.seq, 'payment', -i.amount_minor, c.balance_minor, i.idempotency_key,
                i.fingerprint, i.description, c.created_at, c.hash, 'wallets', 'sales'
            FROM chain c JOIN items i ON i.no = c.no WHERE c.is_posted
    ), moved AS (
        UPDATE wallets w SET
            balance_minor = l.balance_minor,
            uses_credit = l.balance_minor < 0,
            last_seq = l.seq,
            last_hash = l.hash,
            last_posted_at = l.created_at
            FROM (SELECT DISTINCT ON (c.wallet_id) c.* FROM chain c WHERE c.is_posted ORDER BY c.wallet_id, c.place DESC) l
            WHERE w.id = l.wallet_id
    ) SELECT c.no, c.id, c.wallet_id, c.seq, c.balance_minor, c.created_at FROM chain c WHERE c.is_posted;
END $$;

------------------------------------------------------------------------------------------------------------------------
-- What else reads what has changed
------------------------------------------------------------------------------------------------------------------------

-- Change limit and status of the version the caller has seen; null leaves a thing as it is. Logged with before and
-- after in the same db transaction. A limit can be raised up to the policy's ceiling, and lowered to what is used.
CREATE FUNCTION wallet_configure_v3(
    p_wallet_id uuid, p_version integer, p_actor_id uuid, p_credit_limit_minor bigint, p_status text, p_request_id text,
    OUT wallet wallets)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
DECLARE
    old       wallets;
    max_limit bigint;
BEGIN
    SELECT * INTO old FROM wallets w WHERE w.id = p_wallet_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'wallet_not_found' USING ERRCODE = 'WA006';
    END IF;
    IF old.held_minor > 0 THEN
        old.held_minor := holds_let_go_v1(old.id);
    END IF;
    SELECT p.max_limit_minor INTO max_limit FROM credit_policies p WHERE p.currency = old.currency;
    IF old.version IS DISTINCT FROM p_version THEN
        RAISE EXCEPTION 'version_mismatch' USING ERRCODE = 'WA011';
    ELSIF old.status = 'closed' THEN
        RAISE EXCEPTION 'wallet_closed' USING ERRCODE = 'WA003';
    ELSIF old.balance_minor + p_credit_limit_minor - old.held_minor < 0 THEN
        RAISE EXCEPTION 'credit_limit_below_used' USING ERRCODE = 'WA009', DETAIL = jsonb_build_object(
            'currency', old.currency, 'creditUsed', greatest(-old.balance_minor, 0), 'held', old.held_minor);
    ELSIF p_credit_limit_minor > greatest(max_limit, old.credit_limit_minor) AND max_limit IS NOT NULL THEN
        RAISE EXCEPTION 'credit_limit_above_policy' USING ERRCODE = 'WA019', DETAIL = jsonb_build_object(
            'currency', old.currency, 'maxLimit', max_limit, 'required', p_credit_limit_minor);
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

-- Superseded by wallet_configure_v3.
CREATE OR REPLACE FUNCTION wallet_configure_v2(
    p_wallet_id uuid, p_version integer, p_actor_id uuid, p_credit_limit_minor bigint, p_status text, p_request_id text,
    OUT wallet wallets)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    wallet := wallet_configure_v3(p_wallet_id, p_version, p_actor_id, p_credit_limit_minor, p_status, p_request_id);
END $$;

-- Write the entry of a movement that was posted for a member, in the statement that posts it. Amounts are in minor units.
CREATE FUNCTION audit_posted_v2(
    p_entry jsonb, p_type text, p_wallet_id uuid, p_transaction_id uuid, p_amount_minor bigint,
    p_balance_after_minor bigint, p_replayed boolean) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT audit_note_v1(p_entry || jsonb_build_object(
        'action', 'wallet.' || p_type,
        'wallet_id', p_wallet_id,
        'before', jsonb_build_object('balanceMinor', p_balance_after_minor - p_amount_minor),
        'after', jsonb_strip_nulls(jsonb_build_object(
            'transactionId', p_transaction_id, 'amountMinor', p_amount_minor,
            'balanceMinor', p_balance_after_minor, 'replayed', nullif(p_replayed, false)))));
END;

-- Superseded by audit_posted_v2.
CREATE OR REPLACE FUNCTION audit_posted_v1(p_entry jsonb, p_posted wallet_transactions, p_replayed boolean) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT audit_posted_v2(p_entry, (p_posted).type, (p_posted).wallet_id, (p_posted).id, (p_posted).amount_minor,
        (p_posted).balance_after_minor, p_replayed);
END;

-- Everything that does not hold, the first row of each wallet only; no rows means the ledger is sound. One statement,
-- so one snapshot: it may run while money moves. What it can't see is a history that was rewritten from some row to
-- its end with all its hashes, wallet included, or cut off there: against that, keep the chains' heads elsewhere too.
-- Of the audit log it names the first entry that does not hold. It knows both forms of the chain, and of entries.
CREATE FUNCTION ledger_audit_v4(OUT wallet_id uuid, OUT seq bigint, OUT finding text) RETURNS SETOF record
    LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
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
            CASE WHEN t.balance_after_minor <> sum(t.amount_minor) OVER chain
                THEN 'balance after is not the sum of the amounts' END,
            CASE WHEN t.created_at < lag(t.created_at) OVER chain THEN 'time runs backwards' END,
            CASE WHEN t.debit_account IS NOT NULL AND e.transaction_id IS NOT NULL
                THEN 'it has an entry besides its own' END,
            CASE WHEN CASE WHEN t.debit_account IS NULL THEN e.effect_minor IS DISTINCT FROM t.amount_minor
                    ELSE (t.amount_minor > 0) <> (t.credit_account = 'wallets')
                        OR (t.amount_minor < 0) <> (t.debit_account = 'wallets') END
                THEN 'entries do not add up to the amount' END,
            CASE WHEN NOT e.accounts_are_known
                    OR t.debit_account NOT IN (SELECT a.code FROM ledger_accounts a)
                    OR t.credit_account NOT IN (SELECT a.code FROM ledger_accounts a)
                THEN 'an entry names an unknown account' END,
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
            CASE WHEN h.are_off THEN 'a hold''s captures are not what its payments say' END,
            CASE WHEN w.uses_credit <> (w.balance_minor < 0) THEN 'whether it uses credit is not what its balance says' END
            ) AS finding
        FROM wallets w
        LEFT JOIN last_in_wallet l ON l.wallet_id = w.id
        LEFT JOIN last_configured c ON c.wallet_id = w.id
        LEFT JOIN holds_of h ON h.wallet_id = w.id
    ), log_checked AS (
        SELECT a.seq, concat_ws('; ',
            CASE WHEN a.seq <> row_number() OVER chain THEN 'seq has a gap' END,
            CASE WHEN a.at <= lag(a.at) OVER chain THEN 'time runs backwards' END,
            CASE WHEN a.hash <> audit_hash_v1(coalesce(lag(a.hash) OVER chain, sha256('audit log')), a)
                THEN 'hash does not match the entry or the one before' END) AS finding
        FROM audit_log a WINDOW chain AS (ORDER BY a.seq)
    ), log_last AS (
        SELECT a.seq, a.hash, a.at FROM audit_log a ORDER BY a.seq DESC LIMIT 1
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
    FROM trial_balance b GROUP BY b.currency HAVING sum(b.debit_minor) <> sum(b.credit_minor)
    UNION ALL
    (SELECT NULL, NULL, format('audit log entry %s: %s', c.seq, c.finding)
        FROM log_checked c WHERE c.finding <> '' ORDER BY c.seq LIMIT 1)
    UNION ALL
    SELECT NULL, NULL, format('the audit log''s last entry is %s, and its chain says %s', coalesce(l.seq, 0), h.last_seq)
    FROM (SELECT) one LEFT JOIN audit_chain h ON true LEFT JOIN log_last l ON true
    WHERE (h.last_seq, h.last_hash, h.last_at) IS DISTINCT FROM
        (coalesce(l.seq, 0), coalesce(l.hash, sha256('audit log')), coalesce(l.at, '-infinity'));
$$;

-- Superseded by ledger_audit_v4.
CREATE OR REPLACE FUNCTION ledger_audit_v1(OUT wallet_id uuid, OUT seq bigint, OUT finding text) RETURNS SETOF record
    LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT a.wallet_id, a.seq, a.finding FROM ledger_audit_v4() a;
END;

-- Superseded by ledger_audit_v4.
CREATE OR REPLACE FUNCTION ledger_audit_v2(OUT wallet_id uuid, OUT seq bigint, OUT finding text) RETURNS SETOF record
    LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT a.wallet_id, a.seq, a.finding FROM ledger_audit_v4() a;
END;

-- Superseded by ledger_audit_v4.
CREATE OR REPLACE FUNCTION ledger_audit_v3(OUT wallet_id uuid, OUT seq bigint, OUT finding text) RETURNS SETOF record
    LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT a.wallet_id, a.seq, a.finding FROM ledger_audit_v4() a;
END;

DO $$
DECLARE
    tenant_role text := current_setting('tenant_schemas.tenant_role');
BEGIN
    EXECUTE format('GRANT SELECT ON movement_entries TO %I', tenant_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION deposit_balance_minor, credit_used_minor, wallet_post_v3,'
        ' wallet_post_many_v2, wallet_pay_v1, wallet_pay_many_v1, wallet_configure_v3, audit_posted_v2,'
        ' wallet_transaction_hash_v2, ledger_audit_v4 TO %I', tenant_role);
END $$;
