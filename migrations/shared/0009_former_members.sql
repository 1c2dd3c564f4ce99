-- Who former members of a tenant were, as the tenant knew them when they were removed. Frozen once merged.
--
-- A ledger keeps the movements of people who have left, and its reader has to know whose they were. A tenant forgets them
-- after a time of its own (`flask members forget-former`).

-- Triggers write it, so that no code which removes a member can omit it. An address below .invalid, which RFC 2606
-- reserves, is no person's: so a user whose address becomes one is forgotten in all tenants.
CREATE TABLE shared.former_members (
    tenant_id   uuid        NOT NULL,
    user_id     uuid        NOT NULL,
    tenant_role text        NOT NULL,
    email       text        NOT NULL,
    name        text        NOT NULL,
    removed_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT former_members_pkey PRIMARY KEY (tenant_id, user_id),
    CONSTRAINT former_members_tenant_fkey FOREIGN KEY (tenant_id, tenant_role)
        REFERENCES shared.tenants (id, role_name) ON UPDATE CASCADE ON DELETE CASCADE,
    CONSTRAINT former_members_user_id_fkey FOREIGN KEY (user_id) REFERENCES shared.users (id) ON DELETE CASCADE
);
CREATE INDEX former_members_user_id_idx ON shared.former_members (user_id);
CREATE INDEX former_members_tenant_id_removed_at_idx ON shared.former_members (tenant_id, removed_at);
CREATE INDEX former_members_tenant_role_user_id_idx ON shared.former_members (tenant_role, user_id);
-- As for memberships: the planner's guess would tell one tenant what share of all former members another has.
ALTER TABLE shared.former_members ALTER COLUMN tenant_id SET STATISTICS 0;
ALTER TABLE shared.former_members ALTER COLUMN tenant_role SET STATISTICS 0;
ALTER TABLE shared.former_members ENABLE ROW LEVEL SECURITY;
CREATE POLICY former_members_for_app ON shared.former_members TO wallet_app USING (true);
GRANT SELECT, DELETE ON shared.former_members TO wallet_app;

-- It has its owner's rights: who removes a member may write nothing here.
CREATE FUNCTION shared.memberships_note_former_v1() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        DELETE FROM shared.former_members f WHERE f.tenant_id = NEW.tenant_id AND f.user_id = NEW.user_id;
    ELSE
        INSERT INTO shared.former_members (tenant_id, user_id, tenant_role, email, name)
            SELECT OLD.tenant_id, OLD.user_id, OLD.tenant_role, u.email, coalesce(OLD.name, u.name)
            FROM shared.users u WHERE u.id = OLD.user_id AND u.email NOT LIKE '%.invalid'
            ON CONFLICT (tenant_id, user_id) DO UPDATE
                SET email = EXCLUDED.email, name = EXCLUDED.name, removed_at = EXCLUDED.removed_at;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER memberships_note_former AFTER INSERT OR DELETE ON shared.memberships
    FOR EACH ROW EXECUTE FUNCTION shared.memberships_note_former_v1();

CREATE FUNCTION shared.users_forget_anonymised_v1() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM shared.former_members f WHERE f.user_id = NEW.id;
    RETURN NULL;
END $$;
CREATE TRIGGER users_forget_anonymised AFTER UPDATE OF email ON shared.users
    FOR EACH ROW WHEN (NEW.email LIKE '%.invalid') EXECUTE FUNCTION shared.users_forget_anonymised_v1();

-- The members and former members of the tenant that asks. It reads with its owner's rights, as member_directory does.
CREATE VIEW shared.all_members WITH (security_barrier) AS
    SELECT m.user_id, u.email, coalesce(m.name, u.name) AS name, NULL::timestamptz AS removed_at
    FROM shared.memberships m
    JOIN shared.users u ON u.id = m.user_id
    WHERE m.tenant_role = current_user
    UNION ALL
    SELECT f.user_id, f.email, f.name, f.removed_at FROM shared.former_members f WHERE f.tenant_role = current_user;
GRANT SELECT ON shared.all_members TO wallet_tenants;
