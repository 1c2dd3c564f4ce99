-- Many movements in one call. Frozen once merged.

-- The one writer of money, of many movements: what wallet_post_v2 does for one, by the same rules. p_items is an array
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
CREATE FUNCTION wallet_post_many_v1(
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
            movement.amount_minor := (item.item ->> 'amount_minor')::bigint
                * CASE WHEN movement.type = 'payment' THEN -1 ELSE 1 END;
            movement.idempotency_key := item.item ->> 'idempotency_key';
            movement.admin_id := p_admin_id;
            movement.order_id := item.item ->> 'order_id';
            movement.description := item.item ->> 'description';
            movement.reference := item.item ->> 'reference';
            movement.reason := item.item ->> 'reason';
            movement.request_fingerprint := movement_fingerprint_v1(
                movement, (item.item ->> 'amount_minor')::bigint, p_batch);

            IF wallet.id IS NULL THEN
                RAISE EXCEPTION 'wallet_not_found' USING ERRCODE = 'WA006';
            ELSIF item.is_key_of_hold OR (item.earlier).request_fingerprint <> movement.request_fingerprint THEN
                RAISE EXCEPTION 'idempotency_key_reused' USING ERRCODE = 'WA005';
            ELSIF (item.earlier).id IS NOT NULL THEN
                answers[item.no] := item.earlier;
                replays[item.no] := true;
                CONTINUE;
            END IF;
            applied := movement_apply_v1(wallet, movement);
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
    INSERT INTO ledger_entries
        SELECT m.id, 1,
            CASE WHEN m.amount_minor > 0 THEN movement_counterpart_v1(m.type) ELSE 'wallets' END,
            CASE WHEN m.amount_minor > 0 THEN 'wallets' ELSE movement_counterpart_v1(m.type) END,
            abs(m.amount_minor)
        FROM unnest(movements) m;
    UPDATE wallets w SET
        balance_minor = c.balance_minor,
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

DO $$
BEGIN
    EXECUTE format('GRANT EXECUTE ON FUNCTION wallet_post_many_v1 TO %I',
        current_setting('tenant_schemas.tenant_role'));
END $$;
