"""A schema's stamp changes with each change that its fingerprint could show, and with nothing else that is frequent."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, Engine, NullPool, create_engine, make_url

from tenant_schemas.migrations.history import Migrations
from tenant_schemas.schema_diff import catalog, compare, stamps
from tenant_schemas.schema_diff.catalog import fingerprints_of
from tenant_schemas.schema_diff.compare import drifted_objects, find_drift
from tenant_schemas.schema_diff.stamps import stamps_of, store_stamps, stored_fingerprints
from tenant_schemas.tenant import Tenant
from tenant_schemas.testing.plugin import Database, make_tenant
from tests.factories.doctor import broken, engine

pytestmark = [pytest.mark.both_servers, pytest.mark.changes_roles]

MADE_FIRST = (
    "CREATE SEQUENCE km_schema.numbers",
    "CREATE TYPE km_schema.mood AS ENUM ('good', 'bad')",
    "CREATE DOMAIN km_schema.positive AS integer DEFAULT 1 CONSTRAINT is_positive CHECK (VALUE > 0)",
    "CREATE STATISTICS km_schema.s ON id, status FROM km_schema.wallets",
    "CREATE RULE r AS ON DELETE TO km_schema.holds DO INSTEAD NOTHING",
    "CREATE POLICY p ON km_schema.wallets USING (true)",
    "CREATE COLLATION km_schema.c (locale = 'C')",
    "CREATE FUNCTION km_schema.f(a integer DEFAULT 1) RETURNS integer LANGUAGE sql AS 'SELECT a'",
    "CREATE FUNCTION km_schema.on_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "CREATE TRIGGER t BEFORE UPDATE ON km_schema.wallets FOR EACH ROW EXECUTE FUNCTION km_schema.on_change()",
    "CREATE TABLE km_schema.free (a integer CONSTRAINT a_small CHECK (a < 9), b text DEFAULT 'b')",
    "CREATE INDEX free_a_idx ON km_schema.free (a)",
    "CREATE VIEW km_schema.shown AS SELECT a FROM km_schema.free",
    "CREATE SCHEMA elsewhere",
    "CREATE FUNCTION elsewhere.g() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "COMMENT ON TABLE km_schema.free IS 'x'",
    "CREATE PUBLICATION own_tables FOR TABLES IN SCHEMA km_schema",
)
# Each is one change of one kind of object, and each description is in the fingerprint.
OWN_CHANGES = (
    "ALTER TABLE km_schema.wallets ADD COLUMN nickname text",
    "ALTER TABLE km_schema.free DROP COLUMN b",
    "ALTER TABLE km_schema.free RENAME COLUMN b TO c",
    "ALTER TABLE km_schema.free ALTER COLUMN b DROP DEFAULT",
    "ALTER TABLE km_schema.free ALTER COLUMN b SET DEFAULT 'c'",
    "UPDATE pg_attrdef SET adbin = (SELECT adbin FROM pg_attrdef WHERE adrelid = 'km_schema.wallets'::regclass LIMIT 1)"
    " WHERE adrelid = 'km_schema.free'::regclass",
    "ALTER TABLE km_schema.free ALTER COLUMN b SET NOT NULL",
    "ALTER TABLE km_schema.free ALTER COLUMN b TYPE varchar(9)",
    "ALTER TABLE km_schema.wallets ALTER COLUMN status SET STATISTICS 7",
    "ALTER TABLE km_schema.wallets ALTER COLUMN status SET STORAGE EXTERNAL",
    "ALTER TABLE km_schema.wallets ALTER COLUMN status SET (n_distinct = 5)",
    "ALTER TABLE km_schema.free ADD CONSTRAINT b_short CHECK (length(b) < 9)",
    "ALTER TABLE km_schema.free DROP CONSTRAINT a_small",
    "ALTER TABLE km_schema.free RENAME CONSTRAINT a_small TO a_tiny",
    "ALTER TABLE km_schema.wallets DROP CONSTRAINT wallets_sound",
    "ALTER TABLE km_schema.free RENAME TO freed",
    "ALTER TABLE km_schema.free SET SCHEMA elsewhere",
    "ALTER TABLE km_schema.free SET (fillfactor = 70)",
    "ALTER TABLE km_schema.free SET UNLOGGED",
    "ALTER TABLE km_schema.free REPLICA IDENTITY FULL",
    "ALTER TABLE km_schema.wallets ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE km_schema.wallets FORCE ROW LEVEL SECURITY",
    "ALTER TABLE km_schema.free OWNER TO wallet_app",
    "DROP TABLE km_schema.free CASCADE",
    "CREATE TABLE km_schema.extra ()",
    "CREATE INDEX extra ON km_schema.wallets (status)",
    "DROP INDEX km_schema.free_a_idx",
    "ALTER INDEX km_schema.free_a_idx RENAME TO free_b_idx",
    "ALTER INDEX km_schema.free_a_idx SET (fillfactor = 70)",
    "ALTER TABLE km_schema.free CLUSTER ON free_a_idx",
    "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'km_schema.free_a_idx'::regclass",
    "ALTER TABLE km_schema.wallets DISABLE TRIGGER t",
    "ALTER TABLE km_schema.wallet_transactions DISABLE TRIGGER ALL",
    "ALTER TRIGGER t ON km_schema.wallets RENAME TO u",
    "DROP TRIGGER t ON km_schema.wallets",
    "CREATE TRIGGER u BEFORE UPDATE ON km_schema.wallets FOR EACH ROW EXECUTE FUNCTION km_schema.on_change()",
    "CREATE OR REPLACE FUNCTION km_schema.f(a integer DEFAULT 1) RETURNS integer LANGUAGE sql AS 'SELECT 2'",
    "CREATE OR REPLACE FUNCTION km_schema.f(a integer DEFAULT 2) RETURNS integer LANGUAGE sql AS 'SELECT a'",
    "ALTER FUNCTION km_schema.f SET search_path TO elsewhere",
    "ALTER FUNCTION km_schema.refuse_change_v1() SET search_path TO elsewhere",
    "ALTER FUNCTION km_schema.wallet_post_v2 RESET enable_seqscan",
    "ALTER FUNCTION km_schema.f SECURITY DEFINER",
    "ALTER FUNCTION km_schema.f OWNER TO wallet_app",
    "ALTER FUNCTION km_schema.f RENAME TO h",
    "DROP FUNCTION km_schema.f",
    "CREATE FUNCTION km_schema.h() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "CREATE OR REPLACE VIEW km_schema.shown AS SELECT a FROM km_schema.free WHERE a > 1",
    "ALTER VIEW km_schema.shown SET (security_invoker = true)",
    "ALTER POLICY p ON km_schema.wallets USING (false)",
    "ALTER POLICY p ON km_schema.wallets TO tenant_km",
    "ALTER POLICY p ON km_schema.wallets RENAME TO q",
    "DROP POLICY p ON km_schema.wallets",
    "CREATE POLICY q ON km_schema.wallets FOR SELECT USING (true)",
    "ALTER TABLE km_schema.holds DISABLE RULE r",
    "DROP RULE r ON km_schema.holds",
    "CREATE OR REPLACE RULE r AS ON DELETE TO km_schema.holds DO INSTEAD SELECT 1",
    "ALTER SEQUENCE km_schema.numbers INCREMENT 2",
    "UPDATE pg_sequence SET seqcache = 7 WHERE seqrelid = 'km_schema.numbers'::regclass",
    "DROP SEQUENCE km_schema.numbers",
    "ALTER TYPE km_schema.mood ADD VALUE 'best'",
    "ALTER TYPE km_schema.mood RENAME VALUE 'bad' TO 'worst'",
    "ALTER TYPE km_schema.mood RENAME TO feeling",
    "ALTER DOMAIN km_schema.positive DROP DEFAULT",
    "ALTER DOMAIN km_schema.positive SET NOT NULL",
    "ALTER DOMAIN km_schema.positive DROP CONSTRAINT is_positive",
    "ALTER DOMAIN km_schema.positive ADD CHECK (VALUE < 9)",
    "DROP STATISTICS km_schema.s",
    "ALTER STATISTICS km_schema.s RENAME TO z",
    "GRANT DELETE ON km_schema.wallets TO tenant_km",
    "GRANT SELECT (id) ON km_schema.wallets TO PUBLIC",
    "GRANT SELECT (xmin) ON km_schema.wallets TO tenant_km",
    "REVOKE SELECT ON km_schema.holds FROM tenant_km",
    "REVOKE EXECUTE ON FUNCTION km_schema.hold_void_v1 FROM tenant_km",
    "GRANT EXECUTE ON FUNCTION km_schema.f TO tenant_km WITH GRANT OPTION",
    "REVOKE USAGE ON SCHEMA km_schema FROM tenant_km",
    "GRANT USAGE ON TYPE km_schema.positive TO tenant_km",
    "ALTER DEFAULT PRIVILEGES FOR ROLE wallet_owner IN SCHEMA km_schema GRANT SELECT ON TABLES TO tenant_km",
    "CREATE PUBLICATION more FOR TABLES IN SCHEMA km_schema",
    "ALTER PUBLICATION own_tables RENAME TO other_tables",
    "COMMENT ON TABLE km_schema.wallets IS 'x'",
    "COMMENT ON TABLE km_schema.free IS NULL",
    "COMMENT ON TABLE km_schema.free IS 'y'",
    "COMMENT ON COLUMN km_schema.wallets.status IS 'x'",
    "COMMENT ON INDEX km_schema.free_a_idx IS 'x'",
    "COMMENT ON CONSTRAINT a_small ON km_schema.free IS 'x'",
    "COMMENT ON FUNCTION km_schema.f IS 'x'",
)
# Changes of objects and names that any schema's description may contain: they change every stamp.
OUTER_CHANGES = (
    "ALTER TABLE shared.users RENAME TO people",
    "ALTER TABLE shared.users RENAME COLUMN id TO user_id",
    "ALTER FUNCTION elsewhere.g RENAME TO h",
    "ALTER SCHEMA elsewhere RENAME TO anywhere",
    "ALTER ROLE wallet_app RENAME TO wallet_service",
    "CREATE ROLE newcomer",
    "ALTER LANGUAGE plpgsql RENAME TO plsql",
    "ALTER COLLATION km_schema.c RENAME TO d",
)


@pytest.fixture
def changed(database: Database) -> Iterator[Connection]:
    """A superuser's connection with one object of each kind in km's schema. All is rolled back."""
    with broken(database, *MADE_FIRST) as connection:
        yield connection


def current(connection: Connection, database: Database) -> dict[str, bytes]:
    return stamps_of(connection, database.tenants())


def test_each_change_in_a_schema_changes_its_stamp_alone(changed: Connection, database: Database) -> None:
    """And each is one that the fingerprint shows, so that no change of the list is of no use."""
    before, words = current(changed, database), fingerprints_of(changed, [database.tenant("km")])
    wrong = []
    for statement in OWN_CHANGES:
        with undone(changed, statement):
            after = current(changed, database)
            is_alone = after["eur_schema"] == before["eur_schema"]
            is_outside = "OWNER TO" in statement or "SCHEMA elsewhere" in statement
            is_shown = fingerprints_of(changed, [database.tenant("km")]) != words
        if after["km_schema"] == before["km_schema"] or not (is_alone or is_outside) or not is_shown:
            wrong.append(statement)
    assert wrong == []
    assert current(changed, database) == before, "a change that was undone counted in those after it"


def test_each_change_of_what_schemas_refer_to_changes_all_stamps(changed: Connection, database: Database) -> None:
    before = current(changed, database)
    wrong = []
    for statement in OUTER_CHANGES:
        with undone(changed, statement):
            after = current(changed, database)
        if any(after[name] == before[name] for name in before):
            wrong.append(statement)
    assert wrong == []
    assert current(changed, database) == before, "a change that was undone counted in those after it"


@contextmanager
def undone(connection: Connection, statement: str) -> Iterator[None]:
    """After the statement, which is rolled back."""
    with connection.begin_nested() as savepoint:
        connection.exec_driver_sql(statement)
        yield
        savepoint.rollback()


def test_the_tenants_own_role_counts_for_its_schema_alone(changed: Connection, database: Database) -> None:
    before = current(changed, database)
    changed.exec_driver_sql("ALTER ROLE tenant_km RENAME TO tenant_elsewhere")
    after = current(changed, database)
    assert after["km_schema"] != before["km_schema"]


def test_a_second_change_in_the_same_db_transaction_changes_the_stamp_again(
    changed: Connection, database: Database
) -> None:
    """The row has the same xmin then."""
    found = set()
    for default in ("1", "2", "3"):
        changed.exec_driver_sql(f"ALTER TABLE km_schema.free ALTER COLUMN b SET DEFAULT '{default}'")
        found.add(current(changed, database)["km_schema"])
    assert len(found) == 3


def test_a_change_that_was_rolled_back_changes_nothing(changed: Connection, database: Database) -> None:
    before = current(changed, database)
    savepoint = changed.begin_nested()
    changed.exec_driver_sql("ALTER TABLE km_schema.wallets ADD COLUMN nickname text")
    assert current(changed, database) != before
    savepoint.rollback()
    assert current(changed, database) == before


def test_an_older_db_transaction_that_commits_last_changes_the_stamp(fresh_database: Database) -> None:
    """Its transaction id is less than the greatest one that the schema's rows have already."""
    slow, fast = fresh_database.as_superuser(), fresh_database.as_superuser()
    slow.execute("BEGIN; SELECT pg_current_xact_id()")
    fast.execute("ALTER TABLE km_schema.wallets ALTER COLUMN version SET STATISTICS 5")
    with engine(fresh_database).connect() as connection:
        before = current(connection, fresh_database)
    slow.execute("ALTER TABLE km_schema.wallets ALTER COLUMN status SET STATISTICS 5; COMMIT")
    with engine(fresh_database).connect() as connection:
        after = current(connection, fresh_database)
    assert after["km_schema"] != before["km_schema"]


def test_a_changed_row_in_the_place_of_an_earlier_version_changes_the_stamp(fresh_database: Database) -> None:
    """VACUUM removes old versions of the row, and a later one gets the place of one of them."""
    superuser = fresh_database.as_superuser()
    query = "SELECT ctid::text FROM pg_attribute WHERE attrelid = 'km_schema.wallets'::regclass AND attname = 'status'"
    seen: dict[object, bytes] = {}
    for number in range(1, 20):
        superuser.execute(f"ALTER TABLE km_schema.wallets ALTER COLUMN status SET STATISTICS {number}".encode())
        superuser.execute("VACUUM pg_attribute")
        place = superuser.execute(query).fetchone()
        with engine(fresh_database).connect() as connection:
            stamp = current(connection, fresh_database)["km_schema"]
        if place in seen:
            assert stamp != seen[place]
            return
        seen[place] = stamp
    pytest.fail("No version of the row got the place of an earlier one.")


def test_maintenance_and_rows_and_other_tenants_change_no_stamp(
    fresh_database: Database, tenancy_migrations: Migrations
) -> None:
    """Otherwise each look would be a full one."""
    with engine(fresh_database).connect() as connection:
        before = current(connection, fresh_database)
    superuser = fresh_database.as_superuser()
    for statement in ("VACUUM", "VACUUM FREEZE", "ANALYZE", "CHECKPOINT"):
        superuser.execute(statement.encode())
    superuser.execute("UPDATE km_schema.ledger_accounts SET name = name")
    make_tenant(fresh_database, tenancy_migrations, "jp", {})
    with engine(fresh_database).connect() as connection:
        after = current(connection, fresh_database)
    assert {name: after[name] for name in before} == before


def test_a_copy_of_the_database_has_other_stamps(database: Database, fresh_database: Database) -> None:
    """Both have the same rows of the catalogue, in the same places."""
    with engine(database).connect() as connection, engine(fresh_database).connect() as other:
        stamps_there, stamps_here = current(connection, database), current(other, fresh_database)
    assert stamps_there.keys() == stamps_here.keys()
    assert not set(stamps_there.values()) & set(stamps_here.values())


def test_every_catalogue_of_the_fingerprint_is_in_the_stamp() -> None:
    tables = re.compile(r"(?:FROM|JOIN) (pg_\w+)")
    read = {*tables.findall(stamps._ROWS), *tables.findall(stamps._CONTEXT)}
    assert set(tables.findall(catalog._OBJECTS)) - read == set()


@pytest.fixture
def looked_at(fresh_database: Database, tenancy_migrations: Migrations) -> Iterator[Connection]:
    """The migrator's connection after a look that was committed."""
    with fresh_database.admin_engine().connect() as connection:
        assert drifted_objects(connection, tenancy_migrations, fresh_database.tenants()) == {}
        connection.commit()
        yield connection


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the schemas whose fingerprints are computed in this test."""
    names: list[str] = []

    def record(connection: Connection, tenants: list[Tenant]) -> dict[str, str]:
        names.extend(tenant.schema_name for tenant in tenants)
        return fingerprints_of(connection, tenants)

    monkeypatch.setattr(compare, "fingerprints_of", record)
    return names


def test_only_a_changed_schema_is_computed_again(
    looked_at: Connection, fresh_database: Database, tenancy_migrations: Migrations, computed: list[str]
) -> None:
    tenants = fresh_database.tenants()
    assert find_drift(looked_at, tenancy_migrations, tenants).objects == {}
    assert computed == []
    fresh_database.as_superuser().execute("ALTER TABLE km_schema.wallets ADD COLUMN nickname text")
    for _ in range(2):  # The second time its fingerprint is known, and still drift.
        found = find_drift(looked_at, tenancy_migrations, tenants).objects
        assert found == {"km_schema": ["column wallets.nickname"]}
        assert computed == ["km_schema"]
    fresh_database.as_superuser().execute("ALTER TABLE km_schema.wallets DROP COLUMN nickname")
    assert find_drift(looked_at, tenancy_migrations, tenants).objects == {}
    assert computed == ["km_schema"] * 2


def test_a_full_look_computes_all_and_corrects_what_is_stored(
    looked_at: Connection, fresh_database: Database, tenancy_migrations: Migrations, computed: list[str]
) -> None:
    tenants = fresh_database.tenants()
    fresh_database.as_superuser().execute("UPDATE shared.schema_stamps SET fingerprint = 'wrong'")
    assert find_drift(looked_at, tenancy_migrations, tenants, is_full=True).objects == {}
    assert sorted(computed) == ["eur_schema", "km_schema"]
    rows = looked_at.exec_driver_sql("SELECT schema_name, fingerprint FROM shared.schema_stamps").all()
    assert {str(name): str(fingerprint) for name, fingerprint in rows} == fingerprints_of(looked_at, tenants)


def test_a_login_that_may_only_read_uses_the_stamps_and_stores_none(
    looked_at: Connection, fresh_database: Database, tenancy_migrations: Migrations, computed: list[str]
) -> None:
    tenants = fresh_database.tenants()
    query = "SELECT * FROM shared.schema_stamps ORDER BY 1"
    before = fresh_database.as_superuser().execute(query).fetchall()
    with backup_engine(fresh_database).begin() as connection:
        assert drifted_objects(connection, tenancy_migrations, tenants) == {}
        assert computed == []
        fresh_database.as_superuser().execute("COMMENT ON TABLE km_schema.wallets IS 'x'")
        assert drifted_objects(connection, tenancy_migrations, tenants) == {"km_schema": ["relation wallets"]}
    assert fresh_database.as_superuser().execute(query).fetchall() == before


def test_stamps_of_schemas_that_are_no_tenants_are_removed(
    looked_at: Connection, fresh_database: Database, tenancy_migrations: Migrations
) -> None:
    superuser = fresh_database.as_superuser()
    superuser.execute("INSERT INTO shared.schema_stamps VALUES ('gone_schema', '', '')")
    superuser.execute("COMMENT ON TABLE km_schema.wallets IS 'x'")
    drifted_objects(looked_at, tenancy_migrations, fresh_database.tenants())
    names = looked_at.exec_driver_sql("SELECT schema_name FROM shared.schema_stamps ORDER BY 1").scalars().all()
    assert names == ["eur_schema", "km_schema"]


def test_a_session_that_stores_the_same_stamps_is_not_waited_for_long(
    looked_at: Connection, fresh_database: Database
) -> None:
    """And the db transaction goes on with its own lock time-out."""
    holder = fresh_database.as_superuser()
    holder.execute("BEGIN; UPDATE shared.schema_stamps SET stamp = ''")
    looked_at.exec_driver_sql("SET LOCAL lock_timeout TO '7s'")
    found = stamps_of(looked_at, fresh_database.tenants())
    store_stamps(looked_at, found, dict.fromkeys(found, "other"))
    assert "other" not in stored_fingerprints(looked_at, found).values()
    holder.execute("ROLLBACK")
    store_stamps(looked_at, found, dict.fromkeys(found, "other"))
    assert set(stored_fingerprints(looked_at, found).values()) == {"other"}
    assert looked_at.exec_driver_sql("SHOW lock_timeout").scalar_one() == "7s"


def test_without_the_table_each_look_is_full(
    looked_at: Connection, fresh_database: Database, tenancy_migrations: Migrations, computed: list[str]
) -> None:
    """`shared` is at an older revision."""
    fresh_database.as_superuser().execute("DROP TABLE shared.schema_stamps")
    assert drifted_objects(looked_at, tenancy_migrations, fresh_database.tenants()) == {}
    assert sorted(computed) == ["eur_schema", "km_schema"]


def backup_engine(database: Database) -> Engine:
    url = make_url(database.url("wallet_backup")).set(drivername="postgresql+psycopg")
    return create_engine(url, poolclass=NullPool)
