-- Dry runs open a missing wallet without an audit entry. Frozen once merged.

-- Open the member's wallet, if it is missing, in a db transaction that is rolled back: as wallet_open_v3, without its
-- audit entry. An entry would lock the head of the audit log's chain before what the dry run locks, and every change
-- locks the head last. If the db transaction were committed, ledger_audit_v4 would report a wallet with a credit limit.
CREATE FUNCTION wallet_rehearse_v1(p_user_id uuid, p_currency text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM FROM shared.memberships m JOIN shared.tenants t ON t.id = m.tenant_id
        WHERE m.user_id = p_user_id AND t.schema_name = current_schema();
    IF NOT FOUND THEN
        RAISE EXCEPTION 'member_not_found' USING ERRCODE = 'WA008';
    END IF;
    PERFORM FROM wallets_insert_missing_v1(ARRAY[p_user_id], p_currency);
END $$;

DO $$
BEGIN
    EXECUTE format('GRANT EXECUTE ON FUNCTION wallet_rehearse_v1 TO %I', current_setting('tenant_schemas.tenant_role'));
END $$;
