-- Orders, paid from a wallet in the db transaction that makes them. Frozen once merged.
--
-- More refusals of class WA:
--   WA020 order_empty              WA023 product_not_found       WA026 order_not_found
--   WA021 too_many_items           WA024 product_withdrawn
--   WA022 quantity_out_of_range    WA025 product_without_price

-- An order has been paid: there is no other kind. user_id repeats the wallet's, for the list of a member's orders; it
-- has no foreign key, for checking it would lock a row of a shared table on every order. The row is the idempotency
-- record of its request. All that ever changes is that a paid order is cancelled.
CREATE TABLE orders (
    id                  uuid        NOT NULL,
    user_id             uuid        NOT NULL,
    wallet_id           uuid        NOT NULL,
    currency            text        NOT NULL,
    status              text        NOT NULL,
    total_minor         bigint      NOT NULL,
    idempotency_key     text        NOT NULL,
    request_fingerprint bytea       NOT NULL,
    payment_id          uuid        NOT NULL,
    refund_id           uuid,       -- what its cancelling gave back; null if nothing was left to refund
    cancel_key          text,       -- the idempotency key of its cancelling
    created_at          timestamptz NOT NULL,
    cancelled_at        timestamptz,
    CONSTRAINT orders_pkey PRIMARY KEY (id),
    CONSTRAINT orders_wallet_id_idempotency_key_key UNIQUE (wallet_id, idempotency_key),
    CONSTRAINT orders_wallet_id_cancel_key_key UNIQUE (wallet_id, cancel_key),
    CONSTRAINT orders_payment_id_key UNIQUE (payment_id),
    CONSTRAINT orders_wallet_fkey FOREIGN KEY (wallet_id, currency) REFERENCES wallets (id, currency),
    CONSTRAINT orders_payment_id_fkey FOREIGN KEY (payment_id) REFERENCES wallet_transactions (id),
    CONSTRAINT orders_refund_id_fkey FOREIGN KEY (refund_id) REFERENCES wallet_transactions (id),
    CONSTRAINT orders_status_known CHECK (status IN ('paid', 'cancelled')),
    CONSTRAINT orders_total_positive CHECK (total_minor > 0),
    CONSTRAINT orders_cancelled_has_its_time CHECK ((status = 'cancelled') = (cancelled_at IS NOT NULL)),
    CONSTRAINT orders_refunded_when_cancelled CHECK (refund_id IS NULL OR status = 'cancelled'),
    CONSTRAINT orders_idempotency_key_length CHECK (length(idempotency_key) BETWEEN 1 AND 200)
);
CREATE INDEX orders_user_id_created_at_idx ON orders (user_id, created_at, id);

-- What was ordered, with name and price as they were then. product_id has no foreign key: checking it would lock the
-- product's row in the shared schema, one row for the buyers of all tenants, and a loading of prices would wait for it.
CREATE TABLE order_items (
    order_id         uuid     NOT NULL,
    item_no          smallint NOT NULL,
    product_id       uuid     NOT NULL,
    sku              text     NOT NULL,
    name             text     NOT NULL,
    quantity         integer  NOT NULL,
    unit_price_minor bigint   NOT NULL,
    line_total_minor bigint   NOT NULL,
    CONSTRAINT order_items_pkey PRIMARY KEY (order_id, item_no),
    CONSTRAINT order_items_order_id_fkey FOREIGN KEY (order_id) REFERENCES orders (id),
    CONSTRAINT order_items_item_no_positive CHECK (item_no > 0),
    CONSTRAINT order_items_quantity_positive CHECK (quantity > 0),
    CONSTRAINT order_items_unit_price_positive CHECK (unit_price_minor > 0),
    CONSTRAINT order_items_line_total_multiplied CHECK (line_total_minor = unit_price_minor * quantity)
);

-- Roles lack the privilege to change anything here; for the owner there are these triggers.
CREATE FUNCTION orders_allow_cancelling_v1() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    allowed orders := old;
BEGIN
    allowed.status := 'cancelled';
    allowed.cancelled_at := new.cancelled_at;
    allowed.refund_id := new.refund_id;
    allowed.cancel_key := new.cancel_key;
    IF old.status <> 'paid' OR new IS DISTINCT FROM allowed THEN
        RAISE EXCEPTION 'an order can be cancelled once, and not changed' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN new;
END $$;
CREATE TRIGGER orders_change_by_cancelling BEFORE UPDATE ON orders
    FOR EACH ROW EXECUTE FUNCTION orders_allow_cancelling_v1();
CREATE TRIGGER orders_immutable BEFORE DELETE OR TRUNCATE ON orders
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_v1();
CREATE TRIGGER order_items_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON order_items
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_v1();

-- The lines of an order to be: names and prices as the catalogue has them now, all read by one statement and so from
-- one moment. The first item that can't be ordered is refused by name.
CREATE FUNCTION order_lines_v1(p_order_id uuid, p_currency text, p_items jsonb) RETURNS order_items[]
    LANGUAGE plpgsql SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
DECLARE
    max_items    constant integer := 100;
    max_quantity constant integer := 1000;
    asked        record;
    lines        order_items[] := '{}';
BEGIN
    IF jsonb_array_length(p_items) = 0 THEN
        RAISE EXCEPTION 'order_empty' USING ERRCODE = 'WA020';
    ELSIF jsonb_array_length(p_items) > max_items THEN
        RAISE EXCEPTION 'too_many_items' USING ERRCODE = 'WA021', DETAIL = jsonb_build_object('limit', max_items);
    END IF;
    FOR asked IN
        SELECT i.item_no, i.item ->> 0 AS product_id, (i.item ->> 1)::numeric AS quantity,
            p.id, p.sku, p.name, p.status, r.price_minor
        FROM jsonb_array_elements(p_items) WITH ORDINALITY AS i (item, item_no)
        LEFT JOIN shared.products p ON p.id = (i.item ->> 0)::uuid
        LEFT JOIN shared.product_prices r ON r.product_id = p.id AND r.currency = p_currency
        ORDER BY i.item_no
    LOOP
        IF asked.quantity NOT BETWEEN 1 AND max_quantity THEN
            RAISE EXCEPTION 'quantity_out_of_range' USING ERRCODE = 'WA022',
                DETAIL = jsonb_build_object('productId', asked.product_id, 'limit', max_quantity);
        ELSIF asked.id IS NULL THEN
            RAISE EXCEPTION 'product_not_found' USING ERRCODE = 'WA023',
                DETAIL = jsonb_build_object('productId', asked.product_id);
        ELSIF asked.status <> 'active' THEN
            RAISE EXCEPTION 'product_withdrawn' USING ERRCODE = 'WA024',
                DETAIL = jsonb_build_object('productId', asked.product_id);
        ELSIF asked.price_minor IS NULL THEN
            RAISE EXCEPTION 'product_without_price' USING ERRCODE = 'WA025',
                DETAIL = jsonb_build_object('productId', asked.product_id, 'currency', p_currency);
        END IF;
        lines := lines || ROW(p_order_id, asked.item_no, asked.id, asked.sku, asked.name, asked.quantity,
            asked.price_minor, asked.price_minor * asked.quantity)::order_items;
    END LOOP;
    RETURN lines;
END $$;

-- The items of an order as they are shown.
CREATE FUNCTION order_items_shown_v1(p_order_id uuid) RETURNS jsonb LANGUAGE sql STABLE
RETURN (SELECT jsonb_agg(to_jsonb(i) - 'order_id' ORDER BY i.item_no) FROM order_items i WHERE i.order_id = p_order_id);

-- Place an order and pay it from the member's wallet in the currency: both, or with an error neither. p_items is
-- [[product's id, quantity], …].
--
-- The wallet's row lock orders everything, as in wallet_post_v2: a second request with the same key waits for it and
-- is answered with the first answer, whatever became of the order meanwhile. The payment has the request's own key, so
-- a key that was used for any other posting on this wallet is refused. Prices are read under the lock.
CREATE FUNCTION order_place_v1(
    p_user_id uuid, p_currency text, p_items jsonb, p_idempotency_key text,
    OUT placed orders, OUT items jsonb, OUT balance_after_minor bigint, OUT replayed boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
DECLARE
    wallet      wallets;
    payment     wallet_transactions;
    lines       order_items[];
    fingerprint bytea := sha256(convert_to(jsonb_build_array('order', p_items)::text, 'UTF8'));
BEGIN
    SELECT * INTO wallet FROM wallets w WHERE w.user_id = p_user_id AND w.currency = p_currency FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'wallet_not_found' USING ERRCODE = 'WA006';
    END IF;

    SELECT * INTO placed FROM orders o WHERE o.wallet_id = wallet.id AND o.idempotency_key = p_idempotency_key;
    replayed := FOUND;
    IF replayed THEN
        IF placed.request_fingerprint <> fingerprint THEN
            RAISE EXCEPTION 'idempotency_key_reused' USING ERRCODE = 'WA005';
        END IF;
        placed.status := 'paid';
        placed.cancelled_at := NULL;
        placed.refund_id := NULL;
        items := order_items_shown_v1(placed.id);
        SELECT t.balance_after_minor INTO balance_after_minor FROM wallet_transactions t WHERE t.id = placed.payment_id;
        RETURN;
    END IF;

    placed.id := gen_random_uuid();
    lines := order_lines_v1(placed.id, p_currency, p_items);
    SELECT sum(l.line_total_minor) INTO placed.total_minor FROM unnest(lines) l;
    SELECT (p.posted).* INTO payment FROM wallet_post_v2(
        wallet.id, 'payment', placed.total_minor, p_idempotency_key, NULL, placed.id::text, NULL, NULL, NULL, NULL) p;
    placed.user_id := p_user_id;
    placed.wallet_id := wallet.id;
    placed.currency := wallet.currency;
    placed.status := 'paid';
    placed.idempotency_key := p_idempotency_key;
    placed.request_fingerprint := fingerprint;
    placed.payment_id := payment.id;
    placed.created_at := payment.created_at;
    INSERT INTO orders SELECT placed.*;
    INSERT INTO order_items SELECT * FROM unnest(lines);
    items := order_items_shown_v1(placed.id);
    balance_after_minor := payment.balance_after_minor;
END $$;

-- Cancel a member's own order and refund what is left of its payment; nothing, if an admin has given all back before.
-- Cancelling twice is cancelling once, whatever the keys. Under the wallet's lock, like every refund.
CREATE FUNCTION order_cancel_v1(
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
        WHERE t.wallet_id = cancelled.wallet_id AND t.idempotency_key = p_idempotency_key;
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

DO $$
DECLARE
    tenant_role text := current_setting('tenant_schemas.tenant_role');
BEGIN
    EXECUTE format('GRANT SELECT ON orders, order_items TO %I', tenant_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION order_place_v1, order_cancel_v1 TO %I', tenant_role);
END $$;
