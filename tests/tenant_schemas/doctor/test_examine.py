"""The doctor finds nothing on a sound installation, and each thing that is broken by its name and place.

Most of what is broken here is broken in a db transaction that is rolled back, and examined from inside it as the
migrator: PostgreSQL's DDL is transactional, roles included.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection

from app.tenancy import MIGRATIONS
from tenant_schemas.doctor import Finding, Severity, examine, unseen
from tenant_schemas.doctor.server import check_settings
from tenant_schemas.lifecycle.provision import provision
from tenant_schemas.migrations.history import Migrations
from tenant_schemas.roles import ServiceRoles
from tenant_schemas.schema_diff import compare
from tenant_schemas.testing.plugin import Database, make_tenant

pytestmark = pytest.mark.changes_roles

# The tests' server is thrown away, so nothing on it must outlive a crash; and its other databases are nobody's.
THROWN_AWAY = frozenset({"fsync", "full_page_writes", "synchronous_commit", "data_checksums", "other_database"})
# Of a server that was given to the tests, and how it lets them in, nothing is known.
THEIR_SERVER = frozenset({"pg_hba", "ssl", "max_prepared_transactions", "log_statement", "password_encryption"})
EXEMPT = THROWN_AWAY | THEIR_SERVER
TENANTS_SCHEMA = "schema eur_schema"


def engine(database: Database) -> sa.Engine:
    url = sa.make_url(database.url()).set(drivername="postgresql+psycopg")
    return sa.create_engine(url, poolclass=sa.NullPool)


@contextmanager
def broken(database: Database, *statements: str) -> Iterator[Connection]:
    """The superuser's connection after these statements. They are rolled back."""
    with engine(database).connect() as connection, connection.begin() as transaction:
        for statement in statements:
            connection.exec_driver_sql(statement)
        yield connection
        transaction.rollback()


def findings(connection: Connection, **options: Any) -> list[Finding]:
    return examine(connection, MIGRATIONS, **({"shared_logins": True, "exempt": EXEMPT} | options))


def seen(connection: Connection, **options: Any) -> list[tuple[str, str]]:
    """What was found, as the migrator would find it."""
    connection.exec_driver_sql("SET LOCAL SESSION AUTHORIZATION wallet_migrator")
    return [(finding.check, finding.where) for finding in findings(connection, **options)]


# A sound installation.


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
    """What it was started with is what is found; nothing else is an error."""
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


def test_a_database_with_no_installation_is_one_finding(database: Database) -> None:
    migrations = Migrations(MIGRATIONS.setup_cfg, ServiceRoles.named("nobodys"))
    with database.admin_engine().connect() as connection:
        assert [finding.check for finding in examine(connection, migrations)] == ["prepared"]


# One thing broken, one finding.

BROKEN = [
    # Roles.
    ("ALTER ROLE wallet_app CREATEDB", "role_attribute", "role wallet_app"),
    ("ALTER ROLE wallet_app BYPASSRLS", "role_attribute", "role wallet_app"),
    ("ALTER ROLE wallet_app CREATEROLE", "role_attribute", "role wallet_app"),
    ("ALTER ROLE wallet_migrator SUPERUSER", "role_attribute", "role wallet_migrator"),
    ("ALTER ROLE wallet_owner LOGIN", "role_attribute", "role wallet_owner"),
    ("ALTER ROLE wallet_tenants LOGIN", "role_attribute", "role wallet_tenants"),
    ("ALTER ROLE wallet_pool INHERIT", "role_attribute", "role wallet_pool"),
    ("ALTER ROLE wallet_backup NOBYPASSRLS", "role_attribute", "role wallet_backup"),
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
    ("REVOKE pg_read_all_data FROM wallet_backup", "membership", "role pg_read_all_data"),
    ("ALTER ROLE tenant_eur SET work_mem TO '1GB'", "role_default", "role tenant_eur"),
    ("ALTER ROLE tenant_eur SET search_path TO km_schema, pg_temp", "role_default", "role tenant_eur"),
    ("ALTER ROLE wallet_app SET role TO none", "role_default", "role wallet_app"),
    ("ALTER ROLE wallet_app RESET ALL", "role_default", "role wallet_app"),
    ("CREATE ROLE tenant_stray LOGIN", "role_unregistered", "role tenant_stray"),
    ("ALTER ROLE ALL SET session_replication_role TO replica", "role_default", "every role"),
    ("GRANT wallet_tenants TO tenant_eur WITH ADMIN OPTION", "membership", "role wallet_tenants"),
    ("ALTER ROLE tenant_eur VALID UNTIL '2020-01-01'", "login", "role tenant_eur"),
    ("ALTER ROLE wallet_app CONNECTION LIMIT 0", "login", "role wallet_app"),
    ("CREATE ROLE visitor LOGIN SUPERUSER", "powerful_login", "role visitor"),
    ("CREATE ROLE visitor LOGIN CREATEROLE", "powerful_login", "role visitor"),
    ("CREATE ROLE visitor LOGIN IN ROLE pg_read_all_data", "powerful_login", "role visitor"),
    ("CREATE ROLE visitor LOGIN IN ROLE pg_write_all_data", "powerful_login", "role visitor"),
    ("REVOKE pg_read_all_stats FROM wallet_backup", "membership", "role pg_read_all_stats"),
    # Privileges.
    ("GRANT USAGE ON SCHEMA public TO PUBLIC", "public_privilege", "schema public"),
    ("GRANT SELECT ON shared.products TO PUBLIC", "public_privilege", "relation shared.products"),
    ("GRANT SELECT ON shared.users TO wallet_tenants", "policy_missing", "table shared.users"),
    ("GRANT SELECT ON shared.tenants TO tenant_eur", "privilege", "relation shared.tenants"),
    ("GRANT UPDATE ON shared.memberships TO wallet_tenants", "privilege", "relation shared.memberships"),
    ("GRANT UPDATE (name) ON shared.products TO wallet_tenants", "privilege", "column shared.products.name"),
    ("GRANT TRUNCATE ON shared.users TO wallet_app", "privilege", "relation shared.users"),
    ("GRANT REFERENCES ON shared.users TO wallet_app", "privilege", "relation shared.users"),
    ("GRANT DELETE ON shared.tenants TO wallet_app", "privilege", "relation shared.tenants"),
    ("GRANT UPDATE ON shared.alembic_version TO wallet_app", "privilege", "relation shared.alembic_version"),
    ("GRANT SELECT ON shared.users TO wallet_app WITH GRANT OPTION", "privilege", "relation shared.users"),
    ("GRANT SELECT ON shared.users TO wallet_pool", "privilege", "relation shared.users"),
    ("GRANT CREATE ON SCHEMA shared TO wallet_app", "privilege", "schema shared"),
    ("GRANT INSERT ON shared.users TO wallet_backup", "privilege", "relation shared.users"),
    ("GRANT pg_write_all_data TO wallet_backup", "membership", "role pg_write_all_data"),
    ("GRANT CREATE ON TABLESPACE pg_default TO tenant_eur", "privilege_elsewhere", "role tenant_eur"),
    ("GRANT EXECUTE ON FUNCTION pg_read_file(text) TO tenant_eur", "privilege_elsewhere", "role tenant_eur"),
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
    # Row-level security.
    ("ALTER TABLE shared.memberships DISABLE ROW LEVEL SECURITY", "row_security", "table shared.memberships"),
    ("CREATE TABLE shared.unguarded (id uuid PRIMARY KEY); ALTER TABLE shared.unguarded OWNER TO wallet_owner",
     "row_security", "table shared.unguarded"),
    ("CREATE TABLE shared.shut (id uuid); ALTER TABLE shared.shut OWNER TO wallet_owner;"
     " ALTER TABLE shared.shut ENABLE ROW LEVEL SECURITY", "policy_missing", "table shared.shut"),
    ("DROP POLICY memberships_own_rows ON shared.memberships", "policy_missing", "table shared.memberships"),
    ("CREATE POLICY all_rows ON shared.tenants TO wallet_tenants USING (true)",
     "policy_unbound", "table shared.tenants"),
    ("CREATE TABLE shared.notes (body text, about uuid REFERENCES shared.users);"
     " ALTER TABLE shared.notes OWNER TO wallet_owner; ALTER TABLE shared.notes ENABLE ROW LEVEL SECURITY;"
     " CREATE POLICY notes_for_all ON shared.notes TO wallet_tenants USING (true);"
     " GRANT SELECT ON shared.notes TO wallet_tenants", "policy_unbound", "table shared.notes"),
    ("CREATE POLICY p ON shared.memberships FOR SELECT TO tenant_eur USING (true)",
     "policy_of_stranger", "policy p on shared.memberships"),
    ("CREATE POLICY for_all ON shared.products USING (true)", "policy_of_public", "policy for_all on shared.products"),
    ("CREATE POLICY by_setting ON shared.users TO wallet_app USING (email = current_setting('app.email'))",
     "policy_not_plain", "policy by_setting on shared.users"),
    ("CREATE POLICY by_table ON shared.users TO wallet_app USING (EXISTS (SELECT FROM shared.memberships))",
     "policy_not_plain", "policy by_table on shared.users"),
    ("ALTER VIEW shared.member_directory RESET (security_barrier)", "view_open", "view shared.member_directory"),
    ("CREATE VIEW shared.everybody WITH (security_barrier) AS SELECT email FROM shared.users;"
     " ALTER VIEW shared.everybody OWNER TO wallet_owner; GRANT SELECT ON shared.everybody TO wallet_tenants",
     "view_open", "view shared.everybody"),
    # Objects.
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
    ("CREATE FUNCTION shared.f() RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path TO shared, pg_temp AS"
     " 'SELECT 1'; ALTER FUNCTION shared.f() OWNER TO wallet_owner", "public_privilege", "function shared.f()"),
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
    # The registry.
    ("CREATE SCHEMA stray AUTHORIZATION wallet_owner", "schema_unregistered", "schema stray"),
    ("CREATE SCHEMA stranger", "schema_unregistered", "schema stranger"),
    ("UPDATE eur_schema.alembic_version SET version_num = '0001'", "revision", TENANTS_SCHEMA),
    ("DELETE FROM eur_schema.alembic_version", "revision", TENANTS_SCHEMA),
    ("UPDATE shared.alembic_version SET version_num = '0001'", "behind", "schema shared"),
    ("UPDATE shared.tenants SET revision = '0001' WHERE slug = 'eur';"
     " UPDATE eur_schema.alembic_version SET version_num = '0001'", "behind", TENANTS_SCHEMA),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "check", "where"), BROKEN)
def test_what_is_broken_is_found_and_nothing_else(database: Database, statement: str, check: str, where: str) -> None:
    """A grant may be wrong in two ways at once; then the second is of the same thing."""
    with broken(database, statement) as connection:
        found = seen(connection)
    assert (check, where) in found
    others = set(found) - {(check, where)}
    assert all(where.partition(" ")[2].rpartition(".")[2] in other for _, other in others), others


def test_the_pool_is_out_of_place_where_each_tenant_logs_in_itself(database: Database) -> None:
    with broken(database) as connection:
        found = set(seen(connection, shared_logins=False))
    assert found == {
        ("role_attribute", "role wallet_pool"),
        ("membership", "role tenant_eur"),
        ("membership", "role tenant_km"),
        ("privilege", f"database {database.name}"),
    }


@pytest.mark.parametrize("privilege", ["CONNECT", "TEMP", "CREATE"])
def test_the_database_is_open_to_public(database: Database, privilege: str) -> None:
    with broken(database, f"GRANT {privilege} ON DATABASE {database.name} TO PUBLIC") as connection:
        assert seen(connection) == [("public_privilege", f"database {database.name}")]


def test_a_default_for_one_database_is_found_too(database: Database) -> None:
    """It would win over the default for all."""
    change = f"ALTER ROLE tenant_km IN DATABASE {database.name} SET search_path TO shared"
    with broken(database, change) as connection:
        assert seen(connection) == [("role_default", "role tenant_km")]


@pytest.mark.parametrize(
    "change", ["SET session_replication_role TO replica", "SET TimeZone TO 'Asia/Tokyo'", "RESET TimeZone"]
)
def test_what_every_session_starts_with_is_the_time_zone_alone(database: Database, change: str) -> None:
    with broken(database, f"ALTER DATABASE {database.name} {change}") as connection:
        assert set(seen(connection)) == {("role_default", f"database {database.name}")}


def test_a_login_without_a_password_is_the_superusers_to_find(database: Database) -> None:
    with broken(database, "ALTER ROLE tenant_eur PASSWORD NULL") as connection:
        assert [(one.check, one.where) for one in findings(connection)] == [("password", "role tenant_eur")]


def test_a_tenant_that_owns_something_is_found(database: Database) -> None:
    with broken(database, "CREATE SCHEMA lair AUTHORIZATION tenant_eur") as connection:
        assert ("owns", "role tenant_eur") in seen(connection)


def test_a_schema_that_is_gone_is_found_once(database: Database) -> None:
    with broken(database, "DROP SCHEMA km_schema CASCADE") as connection:
        assert seen(connection) == [("revision", "schema km_schema"), ("schema_missing", "schema km_schema")]


def test_a_role_that_is_gone_is_found(database: Database) -> None:
    renamed = "ALTER ROLE tenant_km RENAME TO tenant_lost"
    with broken(database, renamed) as connection:
        found = seen(connection)
    assert ("role_missing", "role tenant_km") in found
    assert ("role_unregistered", "role tenant_lost") in found


def test_a_password_that_is_no_scram_verifier_is_the_superusers_to_find(database: Database) -> None:
    md5 = f"md5{'0' * 32}"
    with broken(database, f"ALTER ROLE wallet_app PASSWORD '{md5}'") as connection:
        assert [(one.check, one.where) for one in findings(connection)] == [("password", "role wallet_app")]
        assert seen(connection) == []


# Tenants' schemas differ in nothing but the name.

DIFFERENT = [
    ("ALTER TABLE eur_schema.wallets ADD COLUMN nickname text", "column wallets.nickname"),
    ("ALTER TABLE eur_schema.wallets ALTER COLUMN opened_at DROP DEFAULT", "column wallets.opened_at"),
    ("ALTER TABLE eur_schema.wallets ALTER COLUMN version TYPE bigint", "column wallets.version"),
    ("ALTER TABLE eur_schema.orders SET (fillfactor = 70)", "relation orders"),
    ("ALTER TABLE eur_schema.wallets DROP CONSTRAINT wallets_status_known", "constraint wallets.wallets_status_known"),
    ("DROP INDEX eur_schema.wallets_opened_at_id_idx", "index wallets_opened_at_id_idx"),
    ("CREATE INDEX extra ON eur_schema.wallets (status)", "index extra"),
    ("CREATE OR REPLACE FUNCTION eur_schema.movement_counterpart_v1(type text) RETURNS text LANGUAGE sql IMMUTABLE"
     " RETURN 'cash'::text", "function movement_counterpart_v1(text)"),
    ("ALTER FUNCTION eur_schema.wallet_post_v2 RESET enable_seqscan", "function wallet_post_v2("),
    ("ALTER FUNCTION eur_schema.refuse_change_v1() SET search_path TO km_schema, pg_temp",
     "function refuse_change_v1()"),
    ("ALTER TABLE eur_schema.wallet_transactions DISABLE TRIGGER USER", "trigger wallet_transactions."),
    ("ALTER TABLE eur_schema.wallet_transactions DISABLE TRIGGER ALL",
     "trigger wallet_transactions.ledger_entries_transaction_id_fkey"),
    ("CREATE OR REPLACE VIEW eur_schema.ledger_postings WITH (security_invoker) AS SELECT * FROM ("
     "TABLE eur_schema.ledger_postings) x LIMIT 1", "relation ledger_postings"),
    ("COMMENT ON TABLE eur_schema.wallets IS 'x'", "relation wallets"),
    ("COMMENT ON COLUMN eur_schema.wallets.status IS 'x'", "column wallets.status"),
    ("REVOKE SELECT ON eur_schema.holds FROM tenant_eur", "rights on relation holds"),
    ("REVOKE EXECUTE ON FUNCTION eur_schema.hold_void_v1 FROM tenant_eur",
     "rights on function hold_void_v1(uuid,uuid)"),
    ("REVOKE USAGE ON SCHEMA eur_schema FROM tenant_eur", "rights on schema itself"),
    ("ALTER TABLE eur_schema.wallets ENABLE ROW LEVEL SECURITY", "relation wallets"),
    ("CREATE SEQUENCE eur_schema.numbers; ALTER SEQUENCE eur_schema.numbers OWNER TO wallet_owner", "relation numbers"),
    ("CREATE TYPE eur_schema.mood AS ENUM ('good'); ALTER TYPE eur_schema.mood OWNER TO wallet_owner", "type mood"),
    ("CREATE RULE r AS ON DELETE TO eur_schema.holds DO INSTEAD NOTHING", "rule holds.r"),
    ("CREATE STATISTICS eur_schema.s ON id, status FROM eur_schema.wallets", "statistics s"),
    ("ALTER TABLE eur_schema.wallets ALTER COLUMN status SET STATISTICS 7", "column wallets.status"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "what"), DIFFERENT)
def test_a_schema_that_differs_is_named_with_what_differs(database: Database, statement: str, what: str) -> None:
    """Of two that differ neither is the majority; one of them is named, and the other."""
    with broken(database, statement) as connection:
        connection.exec_driver_sql("SET LOCAL SESSION AUTHORIZATION wallet_migrator")
        found = [one for one in findings(connection) if one.check == "likeness"]
    assert [one.severity for one in found] == [Severity.ERROR]
    assert what in found[0].what


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TRIGGER {trigger} ON {schema}.wallet_transactions",
        "ALTER TABLE {schema}.wallets DROP CONSTRAINT wallets_status_known",
        "GRANT EXECUTE ON FUNCTION {schema}.refuse_change_v1() TO tenant_{slug}",
        "GRANT SELECT (xmin) ON {schema}.wallets TO tenant_{slug}",
    ],
)
def test_a_fault_that_all_tenants_have_is_found(database: Database, statement: str) -> None:
    """No tenant is the others' measure: the migrations are."""
    trigger = "SELECT tgname FROM pg_trigger WHERE tgrelid = 'eur_schema.wallet_transactions'::regclass"
    with broken(database) as connection:
        names = {"trigger": connection.exec_driver_sql(f"{trigger} AND NOT tgisinternal LIMIT 1").scalar_one()}
        for slug in ("eur", "km"):
            connection.exec_driver_sql(statement.format(schema=f"{slug}_schema", slug=slug, **names))
        assert set(seen(connection)) == {("likeness", "schema eur_schema"), ("likeness", "schema km_schema")}


def test_nothing_of_the_new_schema_stays(database: Database) -> None:
    schemas = "SELECT array_agg(nspname ORDER BY nspname)::text FROM pg_namespace"
    with database.admin_engine().connect() as connection:
        before = connection.exec_driver_sql(schemas).scalar_one()
        findings(connection)
        assert connection.exec_driver_sql(schemas).scalar_one() == before
        assert connection.exec_driver_sql("SELECT current_user").scalar_one() == "wallet_migrator"


def test_in_a_db_transaction_that_only_reads_nothing_is_made(database: Database) -> None:
    with database.admin_engine().connect() as connection:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        assert findings(connection) == []


def test_the_most_are_right(fresh_database: Database) -> None:
    make_tenant(fresh_database, MIGRATIONS, "aa", {})
    with broken(fresh_database, "ALTER TABLE km_schema.wallets ADD COLUMN nickname text") as connection:
        assert seen(connection) == [("likeness", "schema km_schema")]
    with broken(fresh_database, "ALTER TABLE aa_schema.wallets ADD COLUMN nickname text") as connection:
        assert seen(connection) == [("likeness", "schema aa_schema")]


def test_a_schema_may_be_called_like_a_table_or_an_alias(fresh_database: Database) -> None:
    """Its name stands in its own views and functions, where it means something else."""
    for slug, schema_name in (("ww", "w"), ("ws", "wallets"), ("us", "user"), ("hh", "h")):
        provision(
            fresh_database.admin_engine(),
            MIGRATIONS,
            slug=slug,
            name=slug,
            settings={},
            tenant_secret=fresh_database.tenant_secret,
            schema_name=schema_name,
        )
    with broken(fresh_database) as connection:
        assert seen(connection) == []
    with broken(fresh_database, "ALTER TABLE wallets.holds ADD COLUMN nickname text") as connection:
        assert seen(connection) == [("likeness", "schema wallets")]


def test_schemas_of_different_revisions_are_not_compared(database: Database) -> None:
    statements = (
        "UPDATE shared.tenants SET revision = '0001' WHERE slug = 'eur'",
        "UPDATE eur_schema.alembic_version SET version_num = '0001'",
        "ALTER TABLE eur_schema.wallets ADD COLUMN nickname text",
    )
    with broken(database, *statements) as connection:
        assert seen(connection) == [("behind", TENANTS_SCHEMA)]


def test_many_tenants_are_examined_some_at_a_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no lock is kept on what was looked at."""
    monkeypatch.setattr(compare, "TENANTS_AT_ONCE", 1)
    locks = (
        "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation"
        " WHERE l.pid = pg_backend_pid() AND c.relnamespace <> 'pg_catalog'::regnamespace"
    )
    with engine(database).connect() as connection:
        assert findings(connection) == []
        assert connection.exec_driver_sql(locks).scalar_one() == 0


# The server's settings.

SOUND = {
    "server_version_num": "180000",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "data_checksums": "on",
    "password_encryption": "scram-sha-256",
    "log_statement": "none",
    "max_prepared_transactions": "0",
    "listen_addresses": "localhost, 127.0.0.1",
    "ssl": "off",
}


def test_sound_settings_have_no_findings() -> None:
    assert list(check_settings(SOUND)) == []
    for local in ({"synchronous_commit": "local"}, {"listen_addresses": "*", "ssl": "on"}, {"log_statement": "ddl"}):
        assert list(check_settings(SOUND | local)) == []


@pytest.mark.parametrize(
    ("name", "value", "check", "severity"),
    [
        ("server_version_num", "140012", "version", Severity.ERROR),
        ("server_version_num", "190000", "version", Severity.ERROR),
        ("fsync", "off", "fsync", Severity.ERROR),
        ("full_page_writes", "off", "full_page_writes", Severity.ERROR),
        ("synchronous_commit", "off", "synchronous_commit", Severity.ERROR),
        ("zero_damaged_pages", "on", "zero_damaged_pages", Severity.ERROR),
        ("ignore_checksum_failure", "on", "ignore_checksum_failure", Severity.ERROR),
        ("allow_system_table_mods", "on", "allow_system_table_mods", Severity.ERROR),
        ("lo_compat_privileges", "on", "lo_compat_privileges", Severity.ERROR),
        ("data_checksums", "off", "data_checksums", Severity.WARNING),
        ("password_encryption", "md5", "password_encryption", Severity.WARNING),
        ("log_statement", "all", "log_statement", Severity.WARNING),
        ("log_statement", "mod", "log_statement", Severity.WARNING),
        ("max_prepared_transactions", "2", "max_prepared_transactions", Severity.WARNING),
        ("listen_addresses", "*", "ssl", Severity.WARNING),
    ],
)
def test_a_setting_that_is_not_sound_is_one_finding(name: str, value: str, check: str, severity: Severity) -> None:
    assert [(one.check, one.severity) for one in check_settings(SOUND | {name: value})] == [(check, severity)]


def test_a_server_with_fewer_connections_than_one_process_may_open_is_found(database: Database) -> None:
    with database.admin_engine().connect() as connection:
        assert findings(connection, max_connections=10) == []
        assert [one.check for one in findings(connection, max_connections=100_000)] == ["max_connections"]


def test_other_databases_that_are_open_are_found(database: Database) -> None:
    opened = "GRANT CONNECT ON DATABASE template1 TO PUBLIC"
    with broken(database, opened) as connection:
        found = seen(connection, exempt=EXEMPT - {"other_database"})
    assert ("other_database", "database template1") in found
    closed = "REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC"
    with broken(database, closed) as connection:
        found = seen(connection, exempt=EXEMPT - {"other_database"})
    assert not {("other_database", f"database {name}") for name in ("postgres", "template1")} & set(found)
