"""The doctor finds faulty attributes, memberships, defaults and passwords of roles."""

import pytest

from tenant_schemas.testing.plugin import Database
from tests.factories.doctor import assert_found_alone, assert_remedied, broken, findings, seen

pytestmark = pytest.mark.changes_roles

BROKEN = [
    ("ALTER ROLE wallet_app CREATEDB", "role_attribute", "role wallet_app"),
    ("ALTER ROLE wallet_app BYPASSRLS", "role_attribute", "role wallet_app"),
    ("ALTER ROLE wallet_app CREATEROLE", "role_attribute", "role wallet_app"),
    ("ALTER ROLE wallet_migrator SUPERUSER", "role_attribute", "role wallet_migrator"),
    ("ALTER ROLE wallet_owner LOGIN", "role_attribute", "role wallet_owner"),
    ("ALTER ROLE wallet_tenants LOGIN", "role_attribute", "role wallet_tenants"),
    ("ALTER ROLE wallet_pool INHERIT", "role_attribute", "role wallet_pool"),
    ("ALTER ROLE wallet_backup NOBYPASSRLS", "role_attribute", "role wallet_backup"),
    ("ALTER ROLE wallet_relay BYPASSRLS", "role_attribute", "role wallet_relay"),
    ("ALTER ROLE tenant_eur REPLICATION", "role_attribute", "role tenant_eur"),
    ("ALTER ROLE tenant_eur BYPASSRLS", "role_attribute", "role tenant_eur"),
    ("ALTER ROLE tenant_eur NOLOGIN", "role_attribute", "role tenant_eur"),
    ("GRANT tenant_km TO wallet_app", "membership", "role tenant_km"),
    ("GRANT tenant_km TO tenant_eur", "membership", "role tenant_km"),
    ("GRANT wallet_owner TO wallet_app", "membership", "role wallet_owner"),
    ("GRANT wallet_owner TO wallet_pool", "membership", "role wallet_owner"),
    ("GRANT wallet_tenants TO wallet_app", "membership", "role wallet_tenants"),
    ("GRANT pg_read_all_data TO tenant_eur", "membership", "role pg_read_all_data"),
    ("GRANT pg_monitor TO wallet_app", "membership", "role pg_monitor"),
    ("REVOKE wallet_tenants FROM tenant_eur GRANTED BY wallet_migrator", "membership", "role wallet_tenants"),
    ("REVOKE tenant_eur FROM wallet_pool GRANTED BY wallet_migrator; REVOKE tenant_eur FROM wallet_pool",
     "membership", "role tenant_eur"),
    ("GRANT tenant_eur TO wallet_pool WITH INHERIT TRUE", "membership", "role tenant_eur"),
    ("GRANT pg_read_all_stats TO wallet_backup WITH INHERIT FALSE", "membership", "role pg_read_all_stats"),
    ("REVOKE tenant_eur FROM wallet_migrator CASCADE", "administration", "role tenant_eur"),
    ("REVOKE ADMIN OPTION FOR wallet_tenants FROM wallet_migrator CASCADE", "administration", "role wallet_tenants"),
    ("GRANT tenant_km TO tenant_eur WITH ADMIN OPTION; GRANT tenant_km TO wallet_app GRANTED BY tenant_eur",
     "membership", "role tenant_km"),
    ("REVOKE pg_read_all_data FROM wallet_backup", "membership", "role pg_read_all_data"),
    ("ALTER ROLE tenant_eur SET work_mem TO '1GB'", "role_default", "role tenant_eur"),
    ("ALTER ROLE tenant_eur SET search_path TO km_schema, pg_temp", "role_default", "role tenant_eur"),
    ("ALTER ROLE wallet_app SET role TO none", "role_default", "role wallet_app"),
    ("ALTER ROLE wallet_app RESET ALL", "role_default", "role wallet_app"),
    ("ALTER ROLE ALL SET session_replication_role TO replica", "role_default", "every role"),
    ("GRANT wallet_tenants TO tenant_eur WITH ADMIN OPTION", "membership", "role wallet_tenants"),
    ("ALTER ROLE tenant_eur VALID UNTIL '2020-01-01'", "login", "role tenant_eur"),
    ("ALTER ROLE wallet_app CONNECTION LIMIT 0", "login", "role wallet_app"),
    ("CREATE ROLE visitor LOGIN SUPERUSER", "powerful_login", "role visitor"),
    ("CREATE ROLE visitor LOGIN CREATEROLE", "powerful_login", "role visitor"),
    ("CREATE ROLE visitor LOGIN IN ROLE pg_read_all_data", "powerful_login", "role visitor"),
    ("CREATE ROLE visitor LOGIN IN ROLE pg_write_all_data", "powerful_login", "role visitor"),
    ("REVOKE pg_read_all_stats FROM wallet_backup", "membership", "role pg_read_all_stats"),
    ("GRANT pg_write_all_data TO wallet_backup", "membership", "role pg_write_all_data"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "check", "where"), BROKEN)
def test_what_is_broken_is_found_and_nothing_else(database: Database, statement: str, check: str, where: str) -> None:
    assert_found_alone(database, statement, check, where)


def test_the_pool_is_out_of_place_where_each_tenant_logs_in_itself(database: Database) -> None:
    with broken(database) as connection:
        found = set(seen(connection, shared_logins=False))
        assert_remedied(connection, database, findings(connection, shared_logins=False), shared_logins=False)
    assert found == {
        ("role_attribute", "role wallet_pool"),
        ("membership", "role tenant_eur"),
        ("membership", "role tenant_km"),
        ("privilege", f"database {database.name}"),
    }


def test_a_default_for_one_database_is_found_too(database: Database) -> None:
    """It overrides the default for all databases."""
    change = f"ALTER ROLE tenant_km IN DATABASE {database.name} SET search_path TO shared"
    assert_found_alone(database, change, "role_default", "role tenant_km")


@pytest.mark.parametrize(
    "change", ["SET session_replication_role TO replica", "SET TimeZone TO 'Asia/Tokyo'", "RESET TimeZone"]
)
def test_what_every_session_starts_with_is_the_time_zone_alone(database: Database, change: str) -> None:
    fault = f"ALTER DATABASE {database.name} {change}"
    assert_found_alone(database, fault, "role_default", f"database {database.name}")


def test_a_login_without_a_password_is_the_superusers_to_find(database: Database) -> None:
    with broken(database, "ALTER ROLE tenant_eur PASSWORD NULL") as connection:
        found = findings(connection)
        assert [(one.check, one.where) for one in found] == [("password", "role tenant_eur")]
        assert_remedied(connection, database, found)


def test_a_tenant_that_owns_something_is_found(database: Database) -> None:
    with broken(database, "CREATE SCHEMA lair AUTHORIZATION tenant_eur") as connection:
        found = findings(connection)
        assert ("owns", "role tenant_eur") in {(one.check, one.where) for one in found}
        assert_remedied(connection, database, [one for one in found if one.check == "owns"], left={"lair"})


def test_a_password_that_is_no_scram_verifier_is_the_superusers_to_find(database: Database) -> None:
    md5 = f"md5{'0' * 32}"
    with broken(database, f"ALTER ROLE wallet_app PASSWORD '{md5}'") as connection:
        found = findings(connection)
        assert [(one.check, one.where) for one in found] == [("password", "role wallet_app")]
        assert_remedied(connection, database, found)
