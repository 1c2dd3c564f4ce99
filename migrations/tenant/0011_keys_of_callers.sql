-- squawk-ignore-file ban-drop-constraint, constraint-missing-not-valid, disallowed-unique-constraint
-- Idempotency keys are told apart by caller, and a bulk's key is its request's. Frozen once merged.
--
-- A caller is the wallet's owner, a user of the staff, or all API keys of the tenant together. No column says it: it follows
-- from `admin_id` and the wallet, so that rows of before are found by it too.

------------------------------------------------------------------------------------------------------------------------
-- Callers
------------------------------------------------------------------------------------------------------------------------

-- The one caller that all API keys of the tenant are: a service that got a new key still finds what it did before.
CREATE FUNCTION key_caller_of_services_v1() RETURNS uuid LANGUAGE sql IMMUTABLE
RETURN '00000000-0000-0000-0000-000000000000'::uuid;

-- The caller to whom the idempotency key of a movement belongs. The owner's own requests have no admin_id. An admin_id that
-- is no user's is an API key's. Also of an installation from which the tenant was restored: users are never deleted, so
-- a wrong guess can only refuse a key, and never post twice.
--
-- VOLATILE, or the planner would call it for an estimate: a look for a key that nobody used would lock shared.users.
CREATE FUNCTION key_caller_v1(admin_id uuid, owner_id uuid) RETURNS uuid LANGUAGE sql VOLATILE
RETURN CASE
    WHEN admin_id IS NULL THEN owner_id
    WHEN EXISTS (SELECT FROM shared.users u WHERE u.id = admin_id) THEN admin_id
    ELSE key_caller_of_services_v1()
END;

-- Whether this caller has used the key in no movement and no hold of the wallet, which the caller of this function has
-- locked.
CREATE FUNCTION key_is_unused_v1(p_wallet_id uuid, p_idempotency_key text, p_admin_id uuid) RETURNS boolean
    LANGUAGE sql VOLATILE
RETURN NOT EXISTS (
    SELECT FROM wallets w CROSS JOIN LATERAL (
        SELECT t.admin_id FROM wallet_transactions t
            WHERE t.wallet_id = w.id AND t.idempotency_key = p_idempotency_key
        UNION ALL
        SELECT NULL FROM holds h WHERE h.wallet_id = w.id AND h.idempotency_key = p_idempotency_key) used
    WHERE w.id = p_wallet_id AND key_caller_v1(used.admin_id, w.user_id) = key_caller_v1(p_admin_id, w.user_id));

------------------------------------------------------------------------------------------------------------------------
-- Tables
------------------------------------------------------------------------------------------------------------------------

-- The rules of a movement's row, as those of a wallet's. A key has up to 255 characters, and that of a bulk's item a
-- slash and a number more.
CREATE FUNCTION movement_is_sound_v2(
    type text, amount_minor bigint, seq bigint, created_at timestamptz, idempotency_key text, refund_of uuid,
    hold_id uuid, admin_id uuid, reason text, debit_account text, credit_account text)
    RETURNS boolean LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT AS $$
DECLARE
    broken text;
BEGIN
    IF type = 'payment' AND amount_minor < 0 AND seq > 0 AND isfinite(created_at) AND length(idempotency_key) BETWEEN 1 AND 260
        AND refund_of IS NULL AND debit_account = 'wallets' AND credit_account <> 'wallets' THEN
        RETURN true;
    END IF;
    broken := CASE
        WHEN coalesce(seq <= 0, true) THEN 'wallet_transactions_seq_positive'
        WHEN coalesce(NOT isfinite(created_at), true) THEN 'wallet_transactions_created_at_finite'
        WHEN coalesce(length(idempotency_key) NOT BETWEEN 1 AND 260, true)
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

ALTER TABLE wallet_transactions DROP CONSTRAINT wallet_transactions_sound;
ALTER TABLE wallet_transactions ADD CONSTRAINT wallet_transactions_sound CHECK (movement_is_sound_v2(
    type, amount_minor, seq, created_at, idempotency_key, refund_of, hold_id, admin_id, reason, debit_account,
    credit_account));

-- The functions look for a caller's key under the wallet's lock; this is the last word about all but API keys, which it
-- tells apart from each other.
ALTER TABLE wallet_transactions DROP CONSTRAINT wallet_transactions_wallet_id_idempotency_key_key;
ALTER TABLE wallet_transactions ADD CONSTRAINT wallet_transactions_wallet_id_idempotency_key_admin_id_key
    UNIQUE NULLS NOT DISTINCT (wallet_id, idempotency_key, admin_id);

-- Only the wallet's owner makes holds and orders, so their keys are all one caller's.
ALTER TABLE holds DROP CONSTRAINT holds_idempotency_key_length;
ALTER TABLE holds ADD CONSTRAINT holds_idempotency_key_length CHECK (length(idempotency_key) BETWEEN 1 AND 255);
ALTER TABLE orders DROP CONSTRAINT orders_idempotency_key_length;
ALTER TABLE orders ADD CONSTRAINT orders_idempotency_key_length CHECK (length(idempotency_key) BETWEEN 1 AND 255);

-- The idempotency record of a bulk as a whole, written with its first postings. The items have theirs in the ledger.
CREATE TABLE bulk_requests (
    caller_id           uuid        NOT NULL,
    idempotency_key     text        NOT NULL,
    request_fingerprint text        NOT NULL,   -- of the list of items, and whether it is atomic
    created_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT bulk_requests_pkey PRIMARY KEY (caller_id, idempotency_key),
    CONSTRAINT bulk_requests_idempotency_key_length CHECK (length(idempotency_key) BETWEEN 1 AND 255)
);
CREATE TRIGGER bulk_requests_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON bulk_requests
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_v1();

------------------------------------------------------------------------------------------------------------------------
-- Posting
------------------------------------------------------------------------------------------------------------------------

-- The answer to a movement that was not posted: the one that an earlier request with the same key posted, or the
-- refusal. The caller has locked the wallet. p_payment_id and p_refundable_minor are the payment of a refund and what was
-- left of it.
CREATE FUNCTION wallet_not_posted_v2(
    p_wallet_id uuid, p_type text, p_amount_minor bigint, p_idempotency_key text,
    p_admin_id uuid, p_order_id text, p_refund_of uuid, p_description text, p_reference text, p_reason text,
    p_hold_id uuid, p_payment_id uuid, p_refundable_minor bigint,
    OUT posted wallet_transactions, OUT refundable_minor bigint)
    LANGUAGE plpgsql SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
DECLARE
    wallet      wallets;
    caller_id   uuid;
    asked_by    uuid := p_admin_id;   -- in the earlier request
    requested   wallet_transactions;
    effect      bigint;
    available   bigint;
BEGIN
    SELECT * INTO wallet FROM wallets w WHERE w.id = p_wallet_id;
    caller_id := key_caller_v1(p_admin_id, wallet.user_id);
    SELECT * INTO posted FROM wallet_transactions t
        WHERE t.wallet_id = p_wallet_id AND t.idempotency_key = p_idempotency_key
            AND key_caller_v1(t.admin_id, wallet.user_id) = caller_id;
    IF FOUND THEN
        IF caller_id = key_caller_of_services_v1() THEN   -- Under another API key it is the same request.
            asked_by := posted.admin_id;
        END IF;
        IF posted.debit_account IS NOT NULL THEN
            requested.request_fingerprint := movement_fingerprint_v2(p_type, p_amount_minor, asked_by, p_order_id,
                p_refund_of, p_hold_id, p_description, p_reference, p_reason, NULL);
        ELSE
            requested.type := p_type;
            requested.admin_id := asked_by;
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
    PERFORM FROM holds h WHERE h.wallet_id = p_wallet_id AND h.idempotency_key = p_idempotency_key
        AND caller_id = wallet.user_id;
    IF FOUND THEN
        RAISE EXCEPTION 'idempotency_key_reused' USING ERRCODE = 'WA005';
    END IF;

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
-- The usual movement costs three statements. Whatever does not allow one leads to wallet_not_posted_v2, which says why.
-- The statement that writes the movement looks for the key itself: one that waited for the lock sees it only there.
--
-- Sequential scans are off because a connection that first posts into a small ledger would keep plans that scan it,
-- and slow down as it grows, until somebody analyzes the tables.
CREATE FUNCTION wallet_post_v4(
    p_wallet_id uuid, p_user_id uuid, p_currency text, p_type text, p_amount_minor bigint, p_idempotency_key text,
    p_admin_id uuid, p_order_id text, p_refund_of uuid, p_description text, p_reference text, p_reason text,
    p_hold_id uuid DEFAULT NULL,
    OUT id uuid, OUT wallet_id uuid, OUT currency text, OUT seq bigint, OUT type text, OUT amount_minor bigint,
    OUT balance_after_minor bigint, OUT order_id text, OUT created_at timestamptz, OUT refundable_minor bigint,
    OUT replayed boolean, OUT admin_id uuid)
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
    admin_id := p_admin_id;
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
                WHERE t.id = p_refund_of AND t.wallet_id = wallet_post_v4.wallet_id AND t.type = 'payment';
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
        PERFORM FROM holds h WHERE h.id = p_hold_id AND h.wallet_id = wallet_post_v4.wallet_id
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
                    WHERE t.wallet_id = wallet_post_v4.wallet_id AND t.idempotency_key = p_idempotency_key)
                AND NOT EXISTS (SELECT FROM holds h
                    WHERE h.wallet_id = wallet_post_v4.wallet_id AND h.idempotency_key = p_idempotency_key);
        replayed := NOT FOUND;
    END IF;
    IF replayed THEN
        IF may_post AND key_is_unused_v1(wallet_id, p_idempotency_key, p_admin_id) THEN   -- The key is another caller's.
            INSERT INTO wallet_transactions (id, wallet_id, currency, seq, type, amount_minor, balance_after_minor,
                    idempotency_key, request_fingerprint, admin_id, order_id, refund_of, hold_id, description, reference,
                    reason, created_at, hash, debit_account, credit_account)
                SELECT id, wallet_id, currency, seq, p_type, amount_minor, balance_after_minor,
                    p_idempotency_key, fingerprint, p_admin_id, order_id, p_refund_of, p_hold_id, p_description, p_reference,
                    p_reason, created_at, previous_hash, debit_account, credit_account;
            replayed := false;
        ELSE
            SELECT (n.posted).id, (n.posted).currency, (n.posted).seq, (n.posted).type, (n.posted).amount_minor,
                    (n.posted).balance_after_minor, (n.posted).order_id, (n.posted).created_at, n.refundable_minor,
                    (n.posted).admin_id
                INTO id, currency, seq, type, amount_minor, balance_after_minor, order_id, created_at, refundable_minor,
                    admin_id
                FROM wallet_not_posted_v2(wallet_id, p_type, p_amount_minor, p_idempotency_key, p_admin_id, p_order_id,
                    p_refund_of, p_description, p_reference, p_reason, p_hold_id, payment_id, refundable_minor) n;
            RETURN;
        END IF;
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

-- More refusals of class WA:
--   WA090 standing_unproven   not an answer for a client: the service asks for the standing, and then pays or refuses
--
-- Pay from the member's own wallet, if the member's standing holds in this very statement and the tenant's row of the
-- registry still is the version that the service knows. Else as wallet_post_v4. The lock comes first, so that the
-- standing holds when the payment is posted, however long it waited.
CREATE FUNCTION wallet_pay_v2(
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
        FROM wallet_post_v4(NULL, p_user_id, p_currency, 'payment', p_amount_minor, p_idempotency_key, NULL, p_order_id,
            NULL, p_description, NULL, NULL) p;
END $$;

-- The one writer of money, of many movements: what wallet_post_v4 does for one, by the same rules. p_items is an array
-- of objects {wallet_id, type, amount_minor, idempotency_key, order_id, description, reference, reason}; refunds and
-- captures are not among them. The answer has one row for each item, in their order.
--
-- All or nothing with p_is_atomic: the first refusal, in the order of wallets, is raised with the item's place in its
-- detail. Else each item stands on its own and a refused one has a SQLSTATE instead of a transaction. p_batch tells the
-- whole request from others. Another one of the caller with p_idempotency_key, the bulk's own key, is refused as a whole,
-- and two at once follow one another. An item whose key the caller used in another request refuses everything, in both
-- ways; the detail has its place and its wallet.
--
-- One statement locks all the wallets, in the order of their ids, so that two calls can't block each other; one reads,
-- one to a table writes, with the orders in their order. Between them is a loop over memory: what is refused decides
-- what the next may spend, and each hash needs the one before.
CREATE FUNCTION wallet_post_many_v3(
    p_items jsonb, p_admin_id uuid, p_batch text, p_is_atomic boolean, p_idempotency_key text DEFAULT NULL,
    OUT item_no integer, OUT posted wallet_transactions, OUT replayed boolean, OUT refused_by text, OUT detail text)
    RETURNS SETOF record LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
DECLARE
    caller       constant uuid := key_caller_v1(p_admin_id, NULL);
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
    IF p_idempotency_key IS NOT NULL THEN
        INSERT INTO bulk_requests (caller_id, idempotency_key, request_fingerprint)
            VALUES (caller, p_idempotency_key, p_batch) ON CONFLICT ON CONSTRAINT bulk_requests_pkey DO NOTHING;
        PERFORM FROM bulk_requests b WHERE b.caller_id = caller AND b.idempotency_key = p_idempotency_key
            AND b.request_fingerprint <> p_batch;
        IF FOUND THEN
            RAISE EXCEPTION 'idempotency_key_reused' USING ERRCODE = 'WA005';
        END IF;
    END IF;

    PERFORM FROM wallets w
        WHERE w.id IN (SELECT (i.item ->> 'wallet_id')::uuid FROM jsonb_array_elements(p_items) AS i (item))
        ORDER BY w.id FOR NO KEY UPDATE;

    FOR item IN
        -- Subqueries and no joins: a plan made while the ledger was small would join by the wallet alone.
        SELECT i.no, i.item, w AS wallet,
            (SELECT t FROM wallet_transactions t
                WHERE t.wallet_id = w.id AND t.idempotency_key = i.item ->> 'idempotency_key'
                    AND key_caller_v1(t.admin_id, w.user_id) = coalesce(caller, w.user_id)) AS earlier,
            coalesce(caller, w.user_id) = w.user_id AND EXISTS (SELECT FROM holds h
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
            IF (item.earlier).id IS NOT NULL AND caller = key_caller_of_services_v1() THEN
                movement.admin_id := (item.earlier).admin_id;   -- Under another API key it is the same request.
            END IF;
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
                RAISE EXCEPTION 'idempotency_key_reused' USING ERRCODE = 'WA005',
                    DETAIL = jsonb_build_object('item', item.no - 1, 'walletId', wallet.id);
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

------------------------------------------------------------------------------------------------------------------------
-- Holds, orders and opening balances
------------------------------------------------------------------------------------------------------------------------

-- Authorise: set an amount aside until a moment, seven days from now if it is null. A repeated key is answered with
-- the hold it made, as it is now.
CREATE FUNCTION hold_authorise_v2(
    p_wallet_id uuid, p_amount_minor bigint, p_idempotency_key text, p_expires_at timestamptz, p_order_id text,
    p_description text, OUT hold holds, OUT replayed boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
DECLARE
    wallet      wallets;
    available   bigint;
    fingerprint bytea := sha256(convert_to(jsonb_build_array(
        'hold', p_amount_minor, extract(epoch FROM p_expires_at), p_order_id, p_description)::text, 'UTF8'));
BEGIN
    SELECT * INTO wallet FROM wallets w WHERE w.id = p_wallet_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'wallet_not_found' USING ERRCODE = 'WA006';
    END IF;
    PERFORM holds_let_go_v1(p_wallet_id);
    SELECT * INTO hold FROM holds h WHERE h.wallet_id = p_wallet_id AND h.idempotency_key = p_idempotency_key;
    replayed := FOUND;
    IF replayed THEN
        IF hold.request_fingerprint <> fingerprint THEN
            RAISE EXCEPTION 'idempotency_key_reused' USING ERRCODE = 'WA005';
        END IF;
        RETURN;
    END IF;
    PERFORM FROM wallet_transactions t WHERE t.wallet_id = p_wallet_id AND t.idempotency_key = p_idempotency_key
        AND key_caller_v1(t.admin_id, wallet.user_id) = wallet.user_id;
    IF FOUND THEN
        RAISE EXCEPTION 'idempotency_key_reused' USING ERRCODE = 'WA005';
    END IF;
    IF wallet.status = 'closed' THEN
        RAISE EXCEPTION 'wallet_closed' USING ERRCODE = 'WA003';
    ELSIF wallet.status = 'frozen' THEN
        RAISE EXCEPTION 'wallet_frozen' USING ERRCODE = 'WA002';
    ELSIF p_expires_at <= clock_timestamp() THEN
        RAISE EXCEPTION 'expiry_in_the_past' USING ERRCODE = 'WA018';
    END IF;
    PERFORM FROM order_payments o WHERE o.order_id = p_order_id;
    IF FOUND THEN
        RAISE EXCEPTION 'order_already_paid' USING ERRCODE = 'WA012';
    END IF;
    SELECT w.balance_minor + w.credit_limit_minor - w.held_minor INTO available FROM wallets w WHERE w.id = p_wallet_id;
    IF available < p_amount_minor THEN
        RAISE EXCEPTION 'insufficient_funds' USING ERRCODE = 'WA001', DETAIL = jsonb_build_object(
            'currency', wallet.currency, 'available', available, 'required', p_amount_minor,
            'shortfall', p_amount_minor - available);
    END IF;
    INSERT INTO holds (wallet_id, currency, amount_minor, expires_at, order_id, description, idempotency_key,
            request_fingerprint, created_at)
        VALUES (wallet.id, wallet.currency, p_amount_minor,
            coalesce(p_expires_at, clock_timestamp() + interval '7 days'), p_order_id, p_description,
            p_idempotency_key, fingerprint, clock_timestamp())
        RETURNING * INTO hold;
    UPDATE wallets w SET held_minor = w.held_minor + p_amount_minor WHERE w.id = wallet.id;
END $$;

-- Capture the whole rest of a hold (null) or part of it, as a payment that names the hold.
CREATE FUNCTION hold_capture_v2(
    p_wallet_id uuid, p_hold_id uuid, p_amount_minor bigint, p_idempotency_key text,
    OUT posted wallet_transactions, OUT replayed boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
DECLARE
    owner_id uuid;
    hold     holds;
    answer   record;
    amount   bigint;
BEGIN
    SELECT w.user_id INTO owner_id FROM wallets w WHERE w.id = p_wallet_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'hold_not_found' USING ERRCODE = 'WA013';
    END IF;
    -- The row that was posted has the hold, which a key used for anything else has not. Its amount is what a null
    -- came to.
    SELECT * INTO posted FROM wallet_transactions t
        WHERE t.wallet_id = p_wallet_id AND t.idempotency_key = p_idempotency_key
            AND key_caller_v1(t.admin_id, owner_id) = owner_id;
    replayed := FOUND;
    IF replayed THEN
        IF posted.hold_id IS DISTINCT FROM p_hold_id
            OR (p_amount_minor IS NOT NULL AND posted.amount_minor <> -p_amount_minor) THEN
            RAISE EXCEPTION 'idempotency_key_reused' USING ERRCODE = 'WA005';
        END IF;
        RETURN;
    END IF;
    PERFORM holds_let_go_v1(p_wallet_id);
    SELECT * INTO hold FROM holds h WHERE h.id = p_hold_id AND h.wallet_id = p_wallet_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'hold_not_found' USING ERRCODE = 'WA013';
    ELSIF hold.status = 'captured' THEN
        RAISE EXCEPTION 'already_captured' USING ERRCODE = 'WA014';
    ELSIF hold.status = 'voided' THEN
        RAISE EXCEPTION 'hold_voided' USING ERRCODE = 'WA015';
    ELSIF hold.status = 'expired' THEN
        RAISE EXCEPTION 'hold_expired' USING ERRCODE = 'WA016';
    END IF;
    amount := coalesce(p_amount_minor, hold.amount_minor - hold.captured_minor);
    IF amount > hold.amount_minor - hold.captured_minor THEN
        RAISE EXCEPTION 'capture_exceeds_hold' USING ERRCODE = 'WA017', DETAIL = jsonb_build_object(
            'currency', hold.currency, 'capturable', hold.amount_minor - hold.captured_minor, 'required', amount);
    ELSIF amount <= 0 THEN
        RAISE EXCEPTION 'there is no capture of %', amount USING ERRCODE = 'invalid_parameter_value';
    END IF;
    UPDATE holds h SET
        captured_minor = h.captured_minor + amount,
        status = CASE WHEN h.captured_minor + amount = h.amount_minor THEN 'captured' ELSE 'active' END,
        ended_at = CASE WHEN h.captured_minor + amount = h.amount_minor THEN clock_timestamp() END
        WHERE h.id = hold.id;
    UPDATE wallets w SET held_minor = w.held_minor - amount WHERE w.id = p_wallet_id;
    answer := wallet_post_v2(p_wallet_id, 'payment', amount, p_idempotency_key,
        NULL, hold.order_id, NULL, hold.description, NULL, NULL, hold.id);
    posted := answer.posted;
END $$;

-- Cancel a member's own order and refund what is left of its payment; nothing, if an admin has given all back before.
-- Cancelling twice is cancelling once, whatever the keys. Under the wallet's lock, like every refund.
CREATE FUNCTION order_cancel_v2(
    p_user_id uuid, p_order_id uuid, p_idempotency_key text,
    OUT cancelled orders, OUT items jsonb, OUT refunded_minor bigint, OUT balance_after_minor bigint,
    OUT replayed boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
DECLARE
    refund     wallet_transactions;
    left_minor bigint;
BEGIN
    PERFORM FROM wallets w WHERE w.id = (
        SELECT o.wallet_id FROM orders o WHERE o.id = p_order_id AND o.user_id = p_user_id) FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'order_not_found' USING ERRCODE = 'WA026';
    END IF;
    SELECT * INTO cancelled FROM orders o WHERE o.id = p_order_id;
    SELECT * INTO refund FROM wallet_transactions t
        WHERE t.wallet_id = cancelled.wallet_id AND t.idempotency_key = p_idempotency_key
            AND key_caller_v1(t.admin_id, p_user_id) = p_user_id;
    IF FOUND AND refund.id IS DISTINCT FROM cancelled.refund_id THEN
        RAISE EXCEPTION 'idempotency_key_reused' USING ERRCODE = 'WA005';
    END IF;
    PERFORM FROM orders o WHERE o.wallet_id = cancelled.wallet_id AND o.cancel_key = p_idempotency_key
        AND o.id <> p_order_id
        UNION ALL SELECT FROM holds h WHERE h.wallet_id = cancelled.wallet_id AND h.idempotency_key = p_idempotency_key;
    IF FOUND THEN
        RAISE EXCEPTION 'idempotency_key_reused' USING ERRCODE = 'WA005';
    END IF;

    replayed := cancelled.status = 'cancelled';
    IF NOT replayed THEN
        SELECT cancelled.total_minor - coalesce(sum(t.amount_minor), 0) INTO left_minor
            FROM wallet_transactions t WHERE t.refund_of = cancelled.payment_id;
        IF left_minor > 0 THEN
            SELECT (p.posted).* INTO refund FROM wallet_post_v2(
                cancelled.wallet_id, 'refund', left_minor, p_idempotency_key,
                NULL, cancelled.id::text, cancelled.payment_id, NULL, NULL, NULL) p;
        END IF;
        UPDATE orders o SET
            status = 'cancelled',
            cancelled_at = coalesce(refund.created_at, clock_timestamp()),
            refund_id = refund.id,
            cancel_key = p_idempotency_key
            WHERE o.id = p_order_id RETURNING * INTO cancelled;
    END IF;
    items := order_items_shown_v1(cancelled.id);
    SELECT t.amount_minor, t.balance_after_minor INTO refunded_minor, balance_after_minor
        FROM wallet_transactions t WHERE t.id = cancelled.refund_id;
    refunded_minor := coalesce(refunded_minor, 0);
END $$;

-- Bring calculated balances into the ledger; p_items as above. Posted is what a calculated balance differs from the
-- opening transactions that stand, under a key made of their number and the source's hash: the same rows again post
-- nothing, more rows post the difference, and the rows of before post it back.
--
-- A balance is a fact of the old system: a wallet whose limit is lower than the credit it brings gets a limit that just
-- covers it, whatever the policy's ceiling, logged as wallet.import; and when a later import brings it less, it goes down
-- again, to what it was before at the lowest. Without p_raise_limits no limit is touched and such a user is refused
-- instead. Opens what wallets are missing and locks all of them in the order of their ids. With what is found now comes
-- what this call did: what it posted, and whether it raised the limit.
--
-- As it was in 0006, but for two things. It opens the wallets itself, so that it has locked all of them before the first
-- entry takes the chain's lock. And of the log's entries only those that tell of a limit say what was granted.
--
-- The key of an opening has commas, which no key of a request has, so that no member's request stands in its way.
CREATE FUNCTION openings_post_v2(
    p_items jsonb, p_currency text, p_raise_limits boolean,
    OUT reconciled reconciliations, OUT moved_minor bigint, OUT limit_raised boolean)
    RETURNS SETOF record LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
    SET enable_seqscan TO off AS $$
DECLARE
    user_ids uuid[];
    opened   jsonb;
    due      jsonb;
    raises   jsonb := '{}';   -- this and the next two by user
    refusals jsonb;
    moved    jsonb;
BEGIN
    SELECT array_agg((i.item ->> 'user_id')::uuid) INTO user_ids FROM jsonb_array_elements(p_items) AS i (item);
    PERFORM FROM shared.tenants t WHERE t.schema_name = current_schema()
        AND (t.settings ->> 'currency' = p_currency OR t.settings -> 'currencies' ? p_currency);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'this tenant has no wallets in %', p_currency USING ERRCODE = 'invalid_parameter_value';
    END IF;
    WITH missing AS MATERIALIZED (
        SELECT m.user_id, gen_random_uuid() AS wallet_id
        FROM shared.memberships m JOIN shared.tenants t ON t.id = m.tenant_id
        WHERE t.schema_name = current_schema() AND m.user_id = ANY (user_ids)
            AND NOT EXISTS (SELECT FROM wallets w WHERE w.user_id = m.user_id AND w.currency = p_currency)
    ), made AS (
        INSERT INTO wallets (id, user_id, currency, credit_limit_minor, last_hash)
        SELECT m.wallet_id, m.user_id, p_currency, coalesce(p.default_limit_minor, 0),
            wallet_genesis_hash_v1(m.wallet_id, m.user_id, p_currency)
        FROM missing m LEFT JOIN credit_policies p ON p.currency = p_currency
        ORDER BY m.user_id
        ON CONFLICT (user_id, currency) DO NOTHING
        RETURNING id, credit_limit_minor, status
    ) SELECT coalesce(jsonb_agg(to_jsonb(m)) FILTER (WHERE m.credit_limit_minor > 0), '[]') INTO opened FROM made m;
    PERFORM FROM wallets w WHERE w.user_id = ANY (user_ids) AND w.currency = p_currency
        ORDER BY w.id FOR NO KEY UPDATE;
    INSERT INTO audit_log (action, wallet_id, before, after)
        SELECT 'wallet.open', o.id,
            jsonb_build_object('creditLimitMinor', 0, 'status', o.status),
            jsonb_build_object('creditLimitMinor', o.credit_limit_minor, 'status', o.status)
        FROM jsonb_to_recordset(opened) AS o (id uuid, credit_limit_minor bigint, status text);
    PERFORM holds_let_go_v1(w.id) FROM wallets w
        WHERE w.user_id = ANY (user_ids) AND w.currency = p_currency AND w.held_minor > 0;

    SELECT coalesce(jsonb_agg(jsonb_build_object('wallet_id', w.id, 'type', 'opening',
            'amount_minor', i.calculated_minor - stands.posted_minor,
            'idempotency_key', format('opening,%s,%s', stands.count, i.source_hash))), '[]') INTO due
        FROM jsonb_to_recordset(p_items) AS i (user_id uuid, calculated_minor bigint, source_hash text)
        JOIN wallets w ON w.user_id = i.user_id AND w.currency = p_currency
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(t.amount_minor), 0) AS posted_minor, count(*) AS count
            FROM wallet_transactions t WHERE t.wallet_id = w.id AND t.type = 'opening') stands
        WHERE i.calculated_minor <> stands.posted_minor;

    IF p_raise_limits THEN
        WITH short AS MATERIALIZED (
            SELECT w.id, w.status, w.credit_limit_minor, w.held_minor - w.balance_minor::numeric - d.amount_minor AS needed_minor
            FROM jsonb_to_recordset(due) AS d (wallet_id uuid, amount_minor numeric)   -- There is always room in numeric.
            JOIN wallets w ON w.id = d.wallet_id
            WHERE w.status <> 'closed' AND d.amount_minor < 0
                AND d.amount_minor + w.balance_minor + w.credit_limit_minor - w.held_minor < 0
                AND w.held_minor - w.balance_minor::numeric - d.amount_minor <= 9223372036854775807
        ), raised AS (
            UPDATE wallets w SET credit_limit_minor = s.needed_minor, version = w.version + 1
            FROM short s WHERE w.id = s.id RETURNING w.user_id
        ), logged AS (
            INSERT INTO audit_log (action, wallet_id, before, after)
            SELECT 'wallet.import', s.id,
                jsonb_build_object('creditLimitMinor', s.credit_limit_minor, 'status', s.status),
                jsonb_build_object('creditLimitMinor', s.needed_minor, 'status', s.status)
            FROM short s
        ) SELECT coalesce(jsonb_object_agg(r.user_id, true), '{}') INTO raises FROM raised r;
    END IF;

    SELECT coalesce(jsonb_object_agg(w.user_id, p.refused_by) FILTER (WHERE p.refused_by IS NOT NULL), '{}'),
        coalesce(jsonb_object_agg(w.user_id, (p.posted).amount_minor) FILTER (WHERE p.refused_by IS NULL), '{}')
        INTO refusals, moved
        FROM wallet_post_many_v3(due, NULL, NULL, false) p
        JOIN wallets w ON w.id = (due -> (p.item_no - 1) ->> 'wallet_id')::uuid;

    IF p_raise_limits THEN
        WITH lent AS MATERIALIZED (
            SELECT w.id, w.status, w.credit_limit_minor,
                greatest(w.held_minor - w.balance_minor, granted.limit_minor, 0) AS enough_minor
            FROM wallets w
            CROSS JOIN LATERAL (
                SELECT a.action FROM audit_log a
                WHERE a.wallet_id = w.id AND a.before -> 'creditLimitMinor' <> a.after -> 'creditLimitMinor'
                ORDER BY a.at DESC LIMIT 1) latest
            LEFT JOIN LATERAL (
                SELECT (a.after ->> 'creditLimitMinor')::bigint AS limit_minor FROM audit_log a
                WHERE a.wallet_id = w.id AND a.action <> 'wallet.import' AND a.after ? 'creditLimitMinor'
                ORDER BY a.at DESC LIMIT 1) granted ON true
            WHERE w.user_id = ANY (user_ids) AND w.currency = p_currency AND w.status <> 'closed'
                AND w.credit_limit_minor > 0 AND latest.action = 'wallet.import'
        ), lowered AS (
            UPDATE wallets w SET credit_limit_minor = l.enough_minor, version = w.version + 1
            FROM lent l WHERE w.id = l.id AND l.enough_minor < l.credit_limit_minor
        ) INSERT INTO audit_log (action, wallet_id, before, after)
            SELECT 'wallet.import', l.id,
                jsonb_build_object('creditLimitMinor', l.credit_limit_minor, 'status', l.status),
                jsonb_build_object('creditLimitMinor', l.enough_minor, 'status', l.status)
            FROM lent l WHERE l.enough_minor < l.credit_limit_minor;
    END IF;
    RETURN QUERY SELECT c, coalesce((moved ->> c.user_id::text)::bigint, 0), raises ? c.user_id::text
        FROM openings_compare_v1(p_items, p_currency, refusals) c;
END $$;

------------------------------------------------------------------------------------------------------------------------
-- The earlier versions
------------------------------------------------------------------------------------------------------------------------

-- Superseded by wallet_post_v4.
CREATE OR REPLACE FUNCTION wallet_post_v3(
    p_wallet_id uuid, p_user_id uuid, p_currency text, p_type text, p_amount_minor bigint, p_idempotency_key text,
    p_admin_id uuid, p_order_id text, p_refund_of uuid, p_description text, p_reference text, p_reason text,
    p_hold_id uuid DEFAULT NULL,
    OUT id uuid, OUT wallet_id uuid, OUT currency text, OUT seq bigint, OUT type text, OUT amount_minor bigint,
    OUT balance_after_minor bigint, OUT order_id text, OUT created_at timestamptz, OUT refundable_minor bigint,
    OUT replayed boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
BEGIN
    SELECT p.id, p.wallet_id, p.currency, p.seq, p.type, p.amount_minor, p.balance_after_minor, p.order_id, p.created_at,
            p.refundable_minor, p.replayed
        INTO id, wallet_id, currency, seq, type, amount_minor, balance_after_minor, order_id, created_at,
            refundable_minor, replayed
        FROM wallet_post_v4(p_wallet_id, p_user_id, p_currency, p_type, p_amount_minor, p_idempotency_key, p_admin_id,
            p_order_id, p_refund_of, p_description, p_reference, p_reason, p_hold_id) p;
END $$;

-- Superseded by wallet_post_v4. What it answers is the movement without its hash and its fingerprint, which no release
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
    answer := wallet_post_v4(p_wallet_id, NULL, NULL, p_type, p_amount_minor, p_idempotency_key, p_admin_id, p_order_id,
        p_refund_of, p_description, p_reference, p_reason, p_hold_id);
    posted.id := answer.id;
    posted.wallet_id := answer.wallet_id;
    posted.currency := answer.currency;
    posted.seq := answer.seq;
    posted.type := answer.type;
    posted.amount_minor := answer.amount_minor;
    posted.balance_after_minor := answer.balance_after_minor;
    posted.idempotency_key := p_idempotency_key;
    posted.admin_id := answer.admin_id;
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

-- Superseded by wallet_pay_v2.
CREATE OR REPLACE FUNCTION wallet_pay_v1(
    p_user_id uuid, p_session_id uuid, p_tenant_version integer, p_currency text, p_amount_minor bigint,
    p_idempotency_key text, p_order_id text, p_description text,
    OUT id uuid, OUT wallet_id uuid, OUT seq bigint, OUT balance_after_minor bigint, OUT created_at timestamptz,
    OUT replayed boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
BEGIN
    SELECT p.id, p.wallet_id, p.seq, p.balance_after_minor, p.created_at, p.replayed
        INTO id, wallet_id, seq, balance_after_minor, created_at, replayed
        FROM wallet_pay_v2(p_user_id, p_session_id, p_tenant_version, p_currency, p_amount_minor, p_idempotency_key,
            p_order_id, p_description) p;
END $$;

-- Superseded by wallet_post_many_v3.
CREATE OR REPLACE FUNCTION wallet_post_many_v2(
    p_items jsonb, p_admin_id uuid, p_batch text, p_is_atomic boolean,
    OUT item_no integer, OUT posted wallet_transactions, OUT replayed boolean, OUT refused_by text, OUT detail text)
    RETURNS SETOF record LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
BEGIN
    RETURN QUERY SELECT m.item_no, m.posted, m.replayed, m.refused_by, m.detail
        FROM wallet_post_many_v3(p_items, p_admin_id, p_batch, p_is_atomic) m;
END $$;

-- Superseded by hold_authorise_v2.
CREATE OR REPLACE FUNCTION hold_authorise_v1(
    p_wallet_id uuid, p_amount_minor bigint, p_idempotency_key text, p_expires_at timestamptz, p_order_id text,
    p_description text, OUT hold holds, OUT replayed boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
DECLARE
    answer record;
BEGIN
    answer := hold_authorise_v2(p_wallet_id, p_amount_minor, p_idempotency_key, p_expires_at, p_order_id, p_description);
    hold := answer.hold;
    replayed := answer.replayed;
END $$;

-- Superseded by hold_capture_v2.
CREATE OR REPLACE FUNCTION hold_capture_v1(
    p_wallet_id uuid, p_hold_id uuid, p_amount_minor bigint, p_idempotency_key text,
    OUT posted wallet_transactions, OUT replayed boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
DECLARE
    answer record;
BEGIN
    answer := hold_capture_v2(p_wallet_id, p_hold_id, p_amount_minor, p_idempotency_key);
    posted := answer.posted;
    replayed := answer.replayed;
END $$;

-- Superseded by order_cancel_v2.
CREATE OR REPLACE FUNCTION order_cancel_v1(
    p_user_id uuid, p_order_id uuid, p_idempotency_key text,
    OUT cancelled orders, OUT items jsonb, OUT refunded_minor bigint, OUT balance_after_minor bigint,
    OUT replayed boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
DECLARE
    answer record;
BEGIN
    answer := order_cancel_v2(p_user_id, p_order_id, p_idempotency_key);
    cancelled := answer.cancelled;
    items := answer.items;
    refunded_minor := answer.refunded_minor;
    balance_after_minor := answer.balance_after_minor;
    replayed := answer.replayed;
END $$;

-- Superseded by openings_post_v2.
CREATE OR REPLACE FUNCTION openings_post_v1(
    p_items jsonb, p_currency text, p_raise_limits boolean,
    OUT reconciled reconciliations, OUT moved_minor bigint, OUT limit_raised boolean)
    RETURNS SETOF record LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
    SET enable_seqscan TO off AS $$
BEGIN
    RETURN QUERY SELECT o.reconciled, o.moved_minor, o.limit_raised
        FROM openings_post_v2(p_items, p_currency, p_raise_limits) o;
END $$;

DO $$
DECLARE
    tenant_role text := current_setting('tenant_schemas.tenant_role');
BEGIN
    EXECUTE format('GRANT SELECT ON bulk_requests TO %I', tenant_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION wallet_post_v4, wallet_pay_v2, wallet_post_many_v3, hold_authorise_v2,'
        ' hold_capture_v2, order_cancel_v2, openings_post_v2 TO %I', tenant_role);
END $$;
