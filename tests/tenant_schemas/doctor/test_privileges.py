"""The doctor finds unintended privileges."""

import pytest

from tenant_schemas.testing.plugin import Database
from tests.factories.doctor import assert_found_alone, broken, findings, run_remedy

pytestmark = pytest.mark.changes_roles

BROKEN = [
    ("GRANT USAGE ON SCHEMA public TO PUBLIC", "public_privilege", "schema public"),
    ("GRANT SELECT ON shared.products TO PUBLIC", "public_privilege", "relation shared.products"),
    ("GRANT SELECT ON shared.tenants TO tenant_eur", "privilege", "relation shared.tenants"),
    ("GRANT UPDATE ON shared.memberships TO wallet_tenants", "privilege", "relation shared.memberships"),
    ("GRANT UPDATE (name) ON shared.products TO wallet_tenants", "privilege", "column shared.products.name"),
    ("GRANT TRUNCATE ON shared.users TO wallet_app", "privilege", "relation shared.users"),
    ("GRANT REFERENCES ON shared.users TO wallet_app", "privilege", "relation shared.users"),
    ("GRANT DELETE ON shared.tenants TO wallet_app", "privilege", "relation shared.tenants"),
    ("GRANT UPDATE ON shared.alembic_version TO wallet_app", "privilege", "relation shared.alembic_version"),
    ("GRANT SELECT ON shared.users TO wallet_app WITH GRANT OPTION", "privilege", "relation shared.users"),
    ("GRANT SELECT ON shared.users TO wallet_pool", "privilege", "relation shared.users"),
    ("GRANT USAGE ON km_schema.events_n TO tenant_km", "privilege", "sequence km_schema.events_n"),
    ("GRANT SELECT ON km_schema.wallets TO tenant_km WITH GRANT OPTION;"
     " SET LOCAL ROLE tenant_km; GRANT SELECT ON km_schema.wallets TO tenant_eur; RESET ROLE",
     "privilege", "relation km_schema.wallets"),
    ("CREATE VIEW public.v AS SELECT 1; GRANT SELECT ON public.v TO tenant_eur", "privilege", "relation public.v"),
    ("GRANT CREATE ON SCHEMA shared TO wallet_app", "privilege", "schema shared"),
    ("GRANT INSERT ON shared.users TO wallet_backup", "privilege", "relation shared.users"),
    ("GRANT SELECT ON shared.users TO wallet_relay", "privilege", "relation shared.users"),
    ("GRANT UPDATE ON shared.tenants TO wallet_relay", "privilege", "relation shared.tenants"),
    ("GRANT CREATE ON TABLESPACE pg_default TO tenant_eur", "privilege_elsewhere", "role tenant_eur"),
    ("GRANT EXECUTE ON FUNCTION pg_read_file(text) TO tenant_eur", "privilege_elsewhere", "role tenant_eur"),
    ("GRANT SELECT ON pg_catalog.pg_shadow TO tenant_eur", "privilege_elsewhere", "role tenant_eur"),
    ("GRANT SELECT (rolpassword) ON pg_catalog.pg_authid TO tenant_eur", "privilege_elsewhere", "role tenant_eur"),
    ("GRANT SET ON PARAMETER work_mem TO tenant_eur", "privilege_elsewhere", "role tenant_eur"),
    ("GRANT USAGE ON LANGUAGE plpgsql TO tenant_eur", "privilege_elsewhere", "role tenant_eur"),
    ("CREATE FOREIGN DATA WRAPPER w; GRANT USAGE ON FOREIGN DATA WRAPPER w TO tenant_eur",
     "privilege_elsewhere", "role tenant_eur"),
    ("ALTER DEFAULT PRIVILEGES FOR ROLE wallet_owner IN SCHEMA shared GRANT SELECT ON TABLES TO wallet_tenants",
     "default_privileges", "default privileges on new relations belonging to role wallet_owner in schema shared"),
    ("ALTER DEFAULT PRIVILEGES FOR ROLE wallet_owner GRANT EXECUTE ON FUNCTIONS TO PUBLIC",
     "default_privileges", "role wallet_owner"),
    ("GRANT EXECUTE ON FUNCTION pg_advisory_lock(bigint) TO PUBLIC", "catalogue_open", "pg_advisory_lock(bigint)"),
    ("GRANT EXECUTE ON FUNCTION pg_relation_size(regclass, text) TO PUBLIC", "catalogue_open",
     "pg_relation_size(regclass,text)"),
    ("GRANT EXECUTE ON FUNCTION set_config TO PUBLIC", "catalogue_open", "set_config(text,text,boolean)"),
    ("GRANT SELECT ON pg_class TO PUBLIC", "catalogue_open", "pg_class"),
    ("GRANT USAGE ON LANGUAGE plpgsql TO PUBLIC", "catalogue_open", "language plpgsql"),
    ("GRANT SELECT ON pg_authid TO PUBLIC", "catalogue_open", "pg_authid"),
    ("GRANT SELECT ON pg_statistic TO PUBLIC", "catalogue_open", "pg_statistic"),
    ("GRANT SELECT (rolpassword) ON pg_authid TO PUBLIC", "catalogue_open", "pg_authid.rolpassword"),
    ("GRANT SELECT (reltuples) ON pg_class TO PUBLIC", "catalogue_open", "pg_class.reltuples"),
    ("GRANT UPDATE (relname) ON pg_class TO PUBLIC", "catalogue_open", "pg_class.relname"),
    ("GRANT EXECUTE ON FUNCTION pg_read_file(text) TO PUBLIC", "catalogue_open", "pg_read_file(text)"),
    ("GRANT EXECUTE ON FUNCTION pg_ls_dir(text) TO PUBLIC", "catalogue_open", "pg_ls_dir(text)"),
    ("GRANT EXECUTE ON FUNCTION lo_import(text) TO PUBLIC", "catalogue_open", "lo_import(text)"),
    ("GRANT INSERT ON information_schema.sql_features TO PUBLIC", "catalogue_open", "information_schema.sql_features"),
    ("CREATE FUNCTION shared.f() RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path TO shared, pg_temp AS"
     " 'SELECT 1'; ALTER FUNCTION shared.f() OWNER TO wallet_owner", "public_privilege", "function shared.f()"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "check", "where"), BROKEN)
def test_what_is_broken_is_found_and_nothing_else(database: Database, statement: str, check: str, where: str) -> None:
    assert_found_alone(database, statement, check, where)


@pytest.mark.parametrize("privilege", ["CONNECT", "TEMP", "CREATE"])
def test_the_database_is_open_to_public(database: Database, privilege: str) -> None:
    fault = f"GRANT {privilege} ON DATABASE {database.name} TO PUBLIC"
    assert_found_alone(database, fault, "public_privilege", f"database {database.name}")


def test_grants_that_were_lost_are_repaired(database: Database) -> None:
    with broken(database, "REVOKE SELECT ON eur_schema.wallets FROM tenant_eur") as connection:
        found = findings(connection)
        assert [(one.check, one.remedy) for one in found] == [
            ("schema_drift", "Run `python -m scripts.repair_tenant eur`.")
        ]
        run_remedy(connection, database, found[0].remedy)
        assert findings(connection) == []
