-- Holds, an order paid once, and the posting function that knows of both. Frozen once merged.
--
-- More refusals of class WA:
--   WA012 order_already_paid     WA015 hold_voided            WA018 expiry_in_the_past
--   WA013 hold_not_found         WA016 hold_expired
--   WA014 already_captured       WA017 capture_exceeds_hold

-- A hold is seen in the wallet's `held` and so in what is available, never in its balance. Its row changes as it is
-- captured, voided or expires; the payments it leads to are in the ledger, with hold_id.
CREATE TABLE holds (
    id                  uuid        NOT NULL DEFAULT gen_random_uuid(),
    wallet_id           uuid        NOT NULL,
    currency            text        NOT NULL,
    status              text        NOT NULL DEFAULT 'active',
    amount_minor        bigint      NOT NULL,
    captured_minor      bigint      NOT NULL DEFAULT 0,
    expires_at          timestamptz NOT NULL,
    order_id            text,
    description         text,
    idempotency_key     text        NOT NULL,
    request_fingerprint bytea       NOT NULL,
    created_at          timestamptz NOT NULL,
    ended_at            timestamptz,
    CONSTRAINT holds_pkey PRIMARY KEY (id),
    CONSTRAINT holds_wallet_id_idempotency_key_key UNIQUE (wallet_id, idempotency_key),
    CONSTRAINT holds_wallet_fkey FOREIGN KEY (wallet_id, currency) REFERENCES wallets (id, currency),
    CONSTRAINT holds_status_known CHECK (status IN ('active', 'captured', 'voided', 'expired')),
    CONSTRAINT holds_amount_positive CHECK (amount_minor > 0),
    CONSTRAINT holds_captured_within_amount CHECK (captured_minor BETWEEN 0 AND amount_minor),
    CONSTRAINT holds_captured_when_done CHECK (status <> 'captured' OR captured_minor = amount_minor),
    CONSTRAINT holds_expires_at_finite CHECK (isfinite(expires_at)),
    CONSTRAINT holds_ended_when_not_active CHECK ((status = 'active') = (ended_at IS NULL)),
    CONSTRAINT holds_idempotency_key_length CHECK (length(idempotency_key) BETWEEN 1 AND 200)
);
CREATE INDEX holds_active_expires_at_idx ON holds (expires_at) WHERE status = 'active';
CREATE INDEX holds_active_wallet_id_idx ON holds (wallet_id, expires_at) WHERE status = 'active';
CREATE INDEX holds_wallet_id_created_at_idx ON holds (wallet_id, created_at, id);
CREATE TRIGGER holds_kept BEFORE DELETE OR TRUNCATE ON holds
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_v1();

ALTER TABLE wallet_transactions ADD COLUMN hold_id uuid;
ALTER TABLE wallet_transactions ADD CONSTRAINT wallet_transactions_hold_id_fkey
    FOREIGN KEY (hold_id) REFERENCES holds (id);
ALTER TABLE wallet_transactions ADD CONSTRAINT wallet_transactions_hold_leads_to_payment
    CHECK (hold_id IS NULL OR type = 'payment');
CREATE INDEX wallet_transactions_hold_id_idx ON wallet_transactions (hold_id) WHERE hold_id IS NOT NULL;
CREATE INDEX wallet_transactions_created_at_idx ON wallet_transactions (created_at, wallet_id, seq);
CREATE INDEX wallet_transactions_order_id_idx ON wallet_transactions (order_id, created_at) WHERE order_id IS NOT NULL;

-- An order is paid once: by one payment, or by the captures of one hold. It is a table and no unique index on the
-- ledger because a ledger from before may hold an order twice, and can't be changed. Nobody changes a row.
CREATE TABLE order_payments (
    order_id       text NOT NULL,
    transaction_id uuid NOT NULL,   -- the payment, or the hold's first capture
    hold_id        uuid,
    claimed_at     timestamptz NOT NULL DEFAULT clock_timestamp(),   -- a second payment from before is of the old days
    CONSTRAINT order_payments_pkey PRIMARY KEY (order_id),
    CONSTRAINT order_payments_transaction_id_fkey FOREIGN KEY (transaction_id) REFERENCES wallet_transactions (id),
    CONSTRAINT order_payments_hold_id_fkey FOREIGN KEY (hold_id) REFERENCES holds (id)
);
CREATE TRIGGER order_payments_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON order_payments
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_v1();
INSERT INTO order_payments (order_id, transaction_id)
    SELECT DISTINCT ON (t.order_id) t.order_id, t.id
    FROM wallet_transactions t WHERE t.type = 'payment' AND t.order_id IS NOT NULL
    ORDER BY t.order_id, t.created_at, t.id;

-- Let go of the wallet's holds whose time is over, and return what is still held. The caller has locked the wallet.
CREATE FUNCTION holds_let_go_v1(p_wallet_id uuid) RETURNS bigint
    LANGUAGE plpgsql SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
DECLARE
    moment     timestamptz := clock_timestamp();   -- A variable, since no index helps to compare with a volatile function.
    released   bigint;
    still_held bigint;
BEGIN
    WITH ended AS (
        UPDATE holds h SET status = 'expired', ended_at = moment
        WHERE h.wallet_id = p_wallet_id AND h.status = 'active' AND h.expires_at <= moment
        RETURNING h.amount_minor - h.captured_minor AS left_minor
    ) SELECT coalesce(sum(e.left_minor), 0) INTO released FROM ended e;
    UPDATE wallets w SET held_minor = w.held_minor - released WHERE w.id = p_wallet_id AND released > 0;
    SELECT w.held_minor INTO still_held FROM wallets w WHERE w.id = p_wallet_id;
    RETURN still_held;
END $$;

-- What tells a repeat of a request from another request under the same key.
CREATE FUNCTION movement_fingerprint_v1(movement wallet_transactions, amount_minor bigint, batch text DEFAULT NULL)
    RETURNS bytea LANGUAGE sql STABLE
RETURN sha256(convert_to((
    jsonb_build_array(movement.type, amount_minor, movement.admin_id, movement.order_id, movement.refund_of,
        movement.description, movement.reference, movement.reason)
    || CASE WHEN movement.hold_id IS NULL THEN '[]' ELSE jsonb_build_array(movement.hold_id) END
    || CASE WHEN batch IS NULL THEN '[]' ELSE jsonb_build_array(batch) END)::text, 'UTF8'));

-- The account on the other side of a movement, across from `wallets`.
CREATE FUNCTION movement_counterpart_v1(type text) RETURNS text LANGUAGE sql IMMUTABLE
RETURN CASE type
    WHEN 'deposit' THEN 'cash'
    WHEN 'payment' THEN 'sales'
    WHEN 'refund' THEN 'sales'
    WHEN 'adjustment' THEN 'adjustments'
    WHEN 'opening' THEN 'opening_balances'
END;

-- The rules of one movement, and the row it becomes. `wallet` is as it is under its lock; `movement` has the request's
-- own fields, its amount signed by its effect. Given back are both as they would be afterwards, and the accounts of the
-- ledger entry. Nothing is written but that holds whose time is over are let go of, since they block no funds.
CREATE FUNCTION movement_apply_v1(
    INOUT wallet wallets, INOUT movement wallet_transactions, OUT debit_account text, OUT credit_account text)
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

    movement.id := gen_random_uuid();
    movement.wallet_id := wallet.id;
    movement.currency := wallet.currency;
    movement.seq := wallet.last_seq + 1;
    movement.balance_after_minor := wallet.balance_minor + movement.amount_minor;
    movement.created_at := greatest(clock_timestamp(), wallet.last_posted_at);
    debit_account := CASE WHEN movement.amount_minor > 0 THEN counterpart ELSE 'wallets' END;
    credit_account := CASE WHEN movement.amount_minor > 0 THEN 'wallets' ELSE counterpart END;
    movement.hash := wallet_transaction_hash_v1(wallet.last_hash, movement, jsonb_build_array(
        jsonb_build_array(1, debit_account, credit_account, abs(movement.amount_minor))));

    wallet.balance_minor := movement.balance_after_minor;
    -- What the CHECK of wallets adds up: if it is too much for a bigint, it is refused here and not when it is written.
    available := wallet.balance_minor + wallet.credit_limit_minor - wallet.held_minor;
    wallet.last_seq := movement.seq;
    wallet.last_hash := movement.hash;
    wallet.last_posted_at := movement.created_at;
END $$;

-- The one writer of money, of one movement. It locks the wallet's row, answers a repeated key with the first result,
-- checks, and writes the transaction, its ledger entry and the balance: all or, with an error, nothing.
--
-- p_amount_minor is positive for deposit, payment and refund, signed for adjustment and opening. For a refund null
-- means all that is left of the payment; refundable_minor is what is left of it afterwards.
--
-- The row lock orders everything: seq, created_at and the hash are taken under it, refunds of one payment queue on it
-- since they are all in the payment's wallet, and so does a second request with the same key. Two wallets that pay one
-- order queue on the order's row.
--
-- Sequential scans are off because a connection that first posts into a small ledger would keep plans that scan it,
-- and slow down as it grows, until somebody analyzes the tables.
CREATE FUNCTION wallet_post_v2(
    p_wallet_id uuid, p_type text, p_amount_minor bigint, p_idempotency_key text,
    p_admin_id uuid, p_order_id text, p_refund_of uuid, p_description text, p_reference text, p_reason text,
    p_hold_id uuid DEFAULT NULL,
    OUT posted wallet_transactions, OUT replayed boolean, OUT refundable_minor bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
DECLARE
    wallet   wallets;
    movement wallet_transactions;
    payment  wallet_transactions;
    applied  record;
BEGIN
    movement.type := p_type;
    movement.idempotency_key := p_idempotency_key;
    movement.admin_id := p_admin_id;
    movement.order_id := p_order_id;
    movement.refund_of := p_refund_of;
    movement.description := p_description;
    movement.reference := p_reference;
    movement.reason := p_reason;
    movement.hold_id := p_hold_id;
    movement.request_fingerprint := movement_fingerprint_v1(movement, p_amount_minor);

    SELECT * INTO wallet FROM wallets w WHERE w.id = p_wallet_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'wallet_not_found' USING ERRCODE = 'WA006';
    END IF;

    SELECT * INTO posted FROM wallet_transactions t
        WHERE t.wallet_id = p_wallet_id AND t.idempotency_key = p_idempotency_key;
    replayed := FOUND;
    IF replayed THEN
        IF posted.request_fingerprint <> movement.request_fingerprint THEN
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

    IF p_hold_id IS NOT NULL THEN
        -- Only hold_capture_v1 gets by: it has just noted in the hold what this payment is to bring.
        PERFORM FROM holds h WHERE h.id = p_hold_id AND h.wallet_id = p_wallet_id
            AND h.order_id IS NOT DISTINCT FROM p_order_id
            AND h.captured_minor - p_amount_minor = (
                SELECT coalesce(-sum(t.amount_minor), 0) FROM wallet_transactions t WHERE t.hold_id = p_hold_id);
        IF NOT FOUND THEN
            RAISE EXCEPTION 'hold_not_found' USING ERRCODE = 'WA013';
        END IF;
    END IF;

    IF p_type = 'refund' THEN
        SELECT * INTO payment FROM wallet_transactions t
            WHERE t.id = p_refund_of AND t.wallet_id = p_wallet_id AND t.type = 'payment';
        IF NOT FOUND THEN
            RAISE EXCEPTION 'payment_not_found' USING ERRCODE = 'WA007';
        END IF;
        SELECT -payment.amount_minor - coalesce(sum(t.amount_minor), 0) INTO refundable_minor
            FROM wallet_transactions t WHERE t.refund_of = payment.id;
        movement.amount_minor := coalesce(p_amount_minor, refundable_minor);
        IF movement.amount_minor > refundable_minor OR refundable_minor = 0 THEN
            RAISE EXCEPTION 'refund_exceeds_payment' USING ERRCODE = 'WA004', DETAIL = jsonb_build_object(
                'currency', wallet.currency, 'refundable', refundable_minor, 'required', movement.amount_minor);
        END IF;
        refundable_minor := refundable_minor - movement.amount_minor;
        movement.order_id := payment.order_id;
    ELSE
        movement.amount_minor := CASE WHEN p_type = 'payment' THEN -p_amount_minor ELSE p_amount_minor END;
    END IF;

    applied := movement_apply_v1(wallet, movement);
    wallet := applied.wallet;
    posted := applied.movement;
    INSERT INTO wallet_transactions SELECT posted.*;
    INSERT INTO ledger_entries VALUES (posted.id, 1, applied.debit_account, applied.credit_account, abs(posted.amount_minor));
    UPDATE wallets w SET
        balance_minor = wallet.balance_minor,
        last_seq = wallet.last_seq,
        last_hash = wallet.last_hash,
        last_posted_at = wallet.last_posted_at
        WHERE w.id = wallet.id;

    IF p_type = 'payment' AND p_order_id IS NOT NULL THEN
        INSERT INTO order_payments (order_id, transaction_id, hold_id) VALUES (p_order_id, posted.id, p_hold_id)
            ON CONFLICT (order_id) DO NOTHING;
        IF NOT FOUND THEN
            PERFORM FROM order_payments o WHERE o.order_id = p_order_id AND o.hold_id = p_hold_id;
            IF NOT FOUND THEN
                RAISE EXCEPTION 'order_already_paid' USING ERRCODE = 'WA012';
            END IF;
        END IF;
    END IF;
END $$;

-- Yesterday's door leads to today's room, so that nothing is posted past the rules above while old code still runs.
CREATE OR REPLACE FUNCTION wallet_post_v1(
    p_wallet_id uuid, p_type text, p_amount_minor bigint, p_idempotency_key text,
    p_admin_id uuid, p_order_id text, p_refund_of uuid, p_description text, p_reference text, p_reason text,
    OUT posted wallet_transactions, OUT replayed boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    answer record;
BEGIN
    answer := wallet_post_v2(p_wallet_id, p_type, p_amount_minor, p_idempotency_key,
        p_admin_id, p_order_id, p_refund_of, p_description, p_reference, p_reason);
    posted := answer.posted;
    replayed := answer.replayed;
END $$;

-- Let go of the holds whose time is over, of up to p_limit wallets; those that somebody is just using are left for the
-- next time. Returns how many wallets had something to let go of.
CREATE FUNCTION holds_expire_v1(p_limit integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
DECLARE
    moment timestamptz := clock_timestamp();
    due    uuid;
    count  integer := 0;
BEGIN
    FOR due IN
        SELECT w.id FROM wallets w
        JOIN (SELECT DISTINCT h.wallet_id FROM holds h WHERE h.status = 'active' AND h.expires_at <= moment) over
            ON over.wallet_id = w.id
        LIMIT p_limit FOR NO KEY UPDATE OF w SKIP LOCKED
    LOOP
        PERFORM holds_let_go_v1(due);
        count := count + 1;
    END LOOP;
    RETURN count;
END $$;

-- Authorise: set an amount aside until a moment, seven days from now if it is null. A repeated key is answered with
-- the hold it made, as it is now.
CREATE FUNCTION hold_authorise_v1(
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
    PERFORM FROM wallet_transactions t WHERE t.wallet_id = p_wallet_id AND t.idempotency_key = p_idempotency_key;
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
CREATE FUNCTION hold_capture_v1(
    p_wallet_id uuid, p_hold_id uuid, p_amount_minor bigint, p_idempotency_key text,
    OUT posted wallet_transactions, OUT replayed boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
DECLARE
    hold   holds;
    answer record;
    amount bigint;
BEGIN
    PERFORM FROM wallets w WHERE w.id = p_wallet_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'hold_not_found' USING ERRCODE = 'WA013';
    END IF;
    -- The row that was posted has the hold, which a key used for anything else has not. Its amount is what a null
    -- came to.
    SELECT * INTO posted FROM wallet_transactions t
        WHERE t.wallet_id = p_wallet_id AND t.idempotency_key = p_idempotency_key;
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

-- Void: let go of what is left. Voiding twice is voiding once, and what has expired is let go of already.
CREATE FUNCTION hold_void_v1(p_wallet_id uuid, p_hold_id uuid, OUT hold holds)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
BEGIN
    PERFORM FROM wallets w WHERE w.id = p_wallet_id FOR NO KEY UPDATE;
    PERFORM holds_let_go_v1(p_wallet_id);
    SELECT * INTO hold FROM holds h WHERE h.id = p_hold_id AND h.wallet_id = p_wallet_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'hold_not_found' USING ERRCODE = 'WA013';
    ELSIF hold.status = 'captured' THEN
        RAISE EXCEPTION 'already_captured' USING ERRCODE = 'WA014';
    ELSIF hold.status = 'active' THEN
        UPDATE wallets w SET held_minor = w.held_minor - (hold.amount_minor - hold.captured_minor)
            WHERE w.id = p_wallet_id;
        UPDATE holds h SET status = 'voided', ended_at = clock_timestamp() WHERE h.id = hold.id RETURNING * INTO hold;
    END IF;
END $$;

DO $$
DECLARE
    tenant_role text := current_setting('tenant_schemas.tenant_role');
BEGIN
    EXECUTE format('GRANT SELECT ON holds, order_payments TO %I', tenant_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION wallet_post_v2, holds_expire_v1, hold_authorise_v1, hold_capture_v1,'
        ' hold_void_v1 TO %I', tenant_role);
END $$;
