"""The doctor finds faulty tables, functions, triggers and other objects of the schemas."""

import pytest

from tenant_schemas.testing.plugin import Database
from tests.factories.doctor import assert_found_alone, broken, seen

BROKEN = [
    ("ALTER TABLE shared.memberships DISABLE TRIGGER ALL",
     "trigger_off", "table shared.memberships"),
    ("ALTER TABLE shared.memberships ADD CONSTRAINT later CHECK (role <> 'x') NOT VALID",
     "not_valid", "constraint later on shared.memberships"),
    ("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'shared.memberships_pkey'::regclass",
     "not_valid", "index shared.memberships_pkey"),
    ("ALTER TABLE shared.products OWNER TO postgres", "owner", "table shared.products"),
    ("CREATE FUNCTION shared.f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';"
     " ALTER FUNCTION shared.f() OWNER TO wallet_owner; REVOKE ALL ON FUNCTION shared.f() FROM PUBLIC",
     "definer_path", "function shared.f()"),
    ("CREATE FUNCTION shared.f() RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path TO pg_temp, shared AS"
     " 'SELECT 1'; ALTER FUNCTION shared.f() OWNER TO wallet_owner; REVOKE ALL ON FUNCTION shared.f() FROM PUBLIC",
     "definer_path", "function shared.f()"),
    ("CREATE FUNCTION shared.f() RETURNS int LANGUAGE internal AS 'pg_backend_pid';"
     " ALTER FUNCTION shared.f() OWNER TO wallet_owner; REVOKE ALL ON FUNCTION shared.f() FROM PUBLIC",
     "language", "function shared.f()"),
    ("CREATE FUNCTION public.f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
     " REVOKE ALL ON FUNCTION public.f() FROM PUBLIC;"
     " CREATE EVENT TRIGGER watcher ON ddl_command_start EXECUTE FUNCTION public.f();"
     " ALTER EVENT TRIGGER watcher DISABLE",
     "event_trigger", "event trigger watcher"),
    ("CREATE PUBLICATION everything FOR ALL TABLES", "publication", "publication everything"),
    ("CREATE FOREIGN DATA WRAPPER w; CREATE SERVER elsewhere FOREIGN DATA WRAPPER w",
     "foreign_server", "foreign server elsewhere"),
    ("SELECT lo_create(4711)", "large_object", "large object 4711"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "check", "where"), BROKEN)
def test_what_is_broken_is_found_and_nothing_else(database: Database, statement: str, check: str, where: str) -> None:
    assert_found_alone(database, statement, check, where)


def test_an_extension_in_shared_is_one_finding(database: Database) -> None:
    """Its functions belong to a superuser, are written in C and are open to PUBLIC."""
    with broken(database, "CREATE EXTENSION pg_trgm SCHEMA shared") as connection:
        assert seen(connection) == [("extension", "extension pg_trgm")]


def test_an_extension_in_a_tenants_schema_is_one_object_of_drift(database: Database) -> None:
    with broken(database, "CREATE EXTENSION pg_trgm SCHEMA km_schema") as connection:
        assert seen(connection) == [("schema_drift", "schema km_schema"), ("extension", "extension pg_trgm")]
