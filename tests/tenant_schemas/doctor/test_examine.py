"""The doctor finds nothing on a sound installation, lists its blind spots, and changes nothing."""

from tenant_schemas.doctor import Severity, examine, unseen
from tenant_schemas.migrations.history import Migrations
from tenant_schemas.roles import ServiceRoles
from tenant_schemas.testing.plugin import Database
from tests.factories.doctor import assert_remedied, engine, findings
from tests.factories.locks import held_tenant


def test_a_sound_installation_has_no_findings(database: Database) -> None:
    with database.admin_engine().connect() as connection:
        assert findings(connection) == []


def test_nor_when_a_superuser_looks(database: Database) -> None:
    with engine(database).connect() as connection:
        assert findings(connection) == []


def test_the_migrator_is_told_what_only_a_superuser_sees(database: Database) -> None:
    with database.admin_engine().connect() as connection:
        assert any("pg_hba" in what for what in unseen(connection))
    with engine(database).connect() as connection:
        assert unseen(connection) == []


def test_a_throw_away_server_is_known_for_one(database: Database) -> None:
    """Its start settings are the findings; there is no other error."""
    with database.admin_engine().connect() as connection:
        off = {"fsync", "full_page_writes", "synchronous_commit"}
        off = {name for name in off if connection.exec_driver_sql(f"SHOW {name}").scalar_one() == "off"}
        found = findings(connection, exempt=frozenset())
    assert {finding.check for finding in found if finding.severity is Severity.ERROR} == off


def test_it_reads_only_and_leaves_the_db_transaction_as_it_was(database: Database) -> None:
    with engine(database).connect() as connection:
        connection.exec_driver_sql("CREATE TEMP TABLE before () ON COMMIT DROP")
        findings(connection)
        assert connection.exec_driver_sql("SHOW transaction_read_only").scalar_one() == "off"
        connection.exec_driver_sql("TABLE pg_temp.before")
        connection.rollback()


def test_a_database_with_no_installation_is_one_finding(database: Database, tenancy_migrations: Migrations) -> None:
    migrations = Migrations(tenancy_migrations.setup_cfg, ServiceRoles.named("nobodys"))
    with database.admin_engine().connect() as connection:
        assert [finding.check for finding in examine(connection, migrations)] == ["prepared"]


def test_a_locked_tenant_is_one_finding_that_names_the_session(fresh_database: Database) -> None:
    with held_tenant(fresh_database, "km") as pid, fresh_database.admin_engine().connect() as connection:
        found = findings(connection, lock_timeout_ms=50, is_full=True)
    (finding,) = found
    assert (finding.check, finding.where) == ("unreadable", "schema km_schema")
    assert f"process {pid}" in finding.what


def test_a_schema_that_the_migrator_may_not_use_hides_no_other(fresh_database: Database) -> None:
    """As a restore with --no-owner --no-acl leaves it."""
    superuser = fresh_database.as_superuser()
    superuser.execute("UPDATE eur_schema.alembic_version SET version_num = '0001'")
    superuser.execute("REVOKE ALL ON SCHEMA km_schema FROM wallet_owner")
    superuser.execute("ALTER SCHEMA km_schema OWNER TO postgres")
    with fresh_database.admin_engine().connect() as connection:
        found = findings(connection)
        names = {(finding.check, finding.where) for finding in found}
        assert {("unreadable", "schema km_schema"), ("revision", "schema eur_schema")} <= names
    with engine(fresh_database).connect() as connection:
        assert_remedied(connection, fresh_database, [one for one in found if one.check == "unreadable"], {"eur_schema"})
