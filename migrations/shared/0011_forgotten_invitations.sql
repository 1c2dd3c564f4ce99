-- Invitations of people whom their tenant has forgotten are deleted, with the address and the name. Frozen once merged.

CREATE INDEX invitations_email_idx ON shared.invitations (email);
CREATE INDEX invitations_accepted_by_idx ON shared.invitations (accepted_by) WHERE accepted_by IS NOT NULL;

-- A former member is forgotten: so are the invitations that they accepted, and those to their address that nobody
-- accepted. Who is a member again is not forgotten.
CREATE FUNCTION shared.former_members_erase_v1() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM shared.invitations i
        WHERE i.tenant_id = OLD.tenant_id
            AND (i.accepted_by = OLD.user_id OR i.accepted_by IS NULL AND i.email = OLD.email)
            AND NOT EXISTS (
                SELECT FROM shared.memberships m WHERE m.tenant_id = OLD.tenant_id AND m.user_id = OLD.user_id);
    RETURN NULL;
END $$;
CREATE TRIGGER former_members_erase AFTER DELETE ON shared.former_members
    FOR EACH ROW EXECUTE FUNCTION shared.former_members_erase_v1();

-- A user whose address becomes one below .invalid is forgotten in all tenants.
CREATE FUNCTION shared.users_erase_invitations_v1() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM shared.invitations i
        WHERE i.accepted_by = NEW.id OR i.accepted_by IS NULL AND i.email = OLD.email;
    RETURN NULL;
END $$;
CREATE TRIGGER users_erase_invitations AFTER UPDATE OF email ON shared.users
    FOR EACH ROW WHEN (NEW.email LIKE '%.invalid') EXECUTE FUNCTION shared.users_erase_invitations_v1();

-- Those who were forgotten before this revision.
DELETE FROM shared.invitations i
    WHERE i.accepted_by IS NOT NULL
        AND NOT EXISTS (
            SELECT FROM shared.memberships m WHERE m.tenant_id = i.tenant_id AND m.user_id = i.accepted_by)
        AND NOT EXISTS (
            SELECT FROM shared.former_members f WHERE f.tenant_id = i.tenant_id AND f.user_id = i.accepted_by);
