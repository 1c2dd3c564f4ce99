"""The locks in a plan are the locks that PostgreSQL takes."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection

from tenant_schemas.lifecycle.provision import new_tenant
from tenant_schemas.migrations.history import History, Migrations
from tenant_schemas.roles import ServiceRoles, become_owner, create_tenant_role, create_tenant_schema, send
from tenant_schemas.search_path import bind_migration
from tenant_schemas.sql_lint.lock_levels import Lock, LockMode, locks_of
from tenant_schemas.testing.plugin import Database, copy_of

pytestmark = pytest.mark.changes_roles

# From this level on another session waits, at least another migration.
NOTABLE = LockMode.SHARE_UPDATE_EXCLUSIVE
SETUP = """
    CREATE TABLE parents (id uuid PRIMARY KEY);
    CREATE TABLE others (id uuid PRIMARY KEY);
    CREATE TABLE children (id uuid PRIMARY KEY, parent_id uuid REFERENCES parents, "Other" uuid,
        size integer CONSTRAINT children_sized CHECK (size > 0),
        CONSTRAINT children_other FOREIGN KEY ("Other") REFERENCES others (id));
    CREATE INDEX children_size_idx ON children (size);
    CREATE TABLE measured (at date NOT NULL) PARTITION BY RANGE (at);
    CREATE TABLE measured_early (at date NOT NULL);
    CREATE VIEW all_parents AS SELECT id FROM parents;
    CREATE MATERIALIZED VIEW kept_parents AS SELECT id FROM parents;
    CREATE RULE ignored AS ON UPDATE TO others DO INSTEAD NOTHING;
"""
SAMPLES = [
    "CREATE INDEX ON children (id)",
    "CREATE UNIQUE INDEX IF NOT EXISTS a ON ONLY children (id); INSERT INTO children VALUES (gen_random_uuid())",
    "DROP INDEX children_size_idx",
    "ALTER TABLE children ADD COLUMN a text",
    "ALTER TABLE children ADD COLUMN a uuid REFERENCES others",
    "ALTER TABLE children ADD CONSTRAINT a FOREIGN KEY (id) REFERENCES others (id) NOT VALID",
    "ALTER TABLE children ADD FOREIGN KEY (id) REFERENCES others",
    "ALTER TABLE children DROP CONSTRAINT children_other",
    "ALTER TABLE children DROP CONSTRAINT IF EXISTS children_parent_id_fkey",
    "ALTER TABLE children DROP CONSTRAINT children_sized",
    "ALTER TABLE children DROP COLUMN parent_id",
    'ALTER TABLE children DROP COLUMN IF EXISTS "Other"',
    "ALTER TABLE children DROP size",
    "ALTER TABLE children VALIDATE CONSTRAINT children_sized",
    "ALTER TABLE children ALTER COLUMN size SET STATISTICS 7",
    "ALTER TABLE children ALTER size SET (n_distinct = 7)",
    "ALTER TABLE children ALTER size TYPE bigint",
    "ALTER TABLE children ALTER parent_id TYPE uuid USING gen_random_uuid()",
    "ALTER TABLE children ALTER size SET NOT NULL",
    "ALTER TABLE children ALTER size SET DEFAULT 1",
    "ALTER TABLE children SET (fillfactor = 50, autovacuum_enabled = true)",
    "ALTER TABLE children RESET (fillfactor)",
    "ALTER TABLE children DISABLE TRIGGER USER",
    "ALTER TABLE children ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE children CLUSTER ON children_size_idx",
    "ALTER TABLE children SET (fillfactor = 50), VALIDATE CONSTRAINT children_sized, ADD COLUMN a text",
    "ALTER TABLE IF EXISTS ONLY children RENAME TO descendants",
    "ALTER TABLE children RENAME COLUMN size TO length",
    "ALTER TABLE measured ATTACH PARTITION measured_early DEFAULT",
    "CREATE TABLE measured_late PARTITION OF measured FOR VALUES FROM ('2026-01-01') TO (MAXVALUE)",
    "CREATE TABLE heirs () INHERITS (parents)",
    "CREATE TABLE a (id uuid REFERENCES parents, b uuid, FOREIGN KEY (b) REFERENCES shared.users (id))",
    "CREATE TABLE a (LIKE children); DROP TABLE a",
    "CREATE TRIGGER a BEFORE UPDATE OF size ON children FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_v1()",
    "DROP TRIGGER wallet_transactions_immutable ON wallet_transactions",
    "CREATE POLICY a ON children USING (true)",
    "CREATE RULE a AS ON DELETE TO children DO INSTEAD NOTHING",
    "DROP RULE ignored ON others",
    "CREATE STATISTICS a ON id, size FROM children",
    "CREATE OR REPLACE VIEW all_parents AS SELECT id FROM parents WHERE true",
    "ALTER VIEW all_parents SET (security_barrier = true)",
    "DROP VIEW IF EXISTS all_parents",
    "DROP MATERIALIZED VIEW kept_parents",
    "REFRESH MATERIALIZED VIEW kept_parents",
    "DROP TABLE children, measured",
    "TRUNCATE TABLE ONLY children",
    "LOCK TABLE children IN SHARE MODE",
    "LOCK children, others",
    "COMMENT ON TABLE children IS 'x'",
    "COMMENT ON COLUMN children.size IS 'x; DROP TABLE children'",
    "COMMENT ON CONSTRAINT children_sized ON children IS 'x'",
    "ANALYZE children",
    "UPDATE children SET size = 1; DELETE FROM ONLY children; INSERT INTO parents VALUES (gen_random_uuid())",
    "GRANT SELECT ON children TO wallet_app; REVOKE ALL ON children FROM wallet_app",
    "CREATE FUNCTION f() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM children; SELECT 1; END",
    "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN LOCK TABLE children; END $$; DROP FUNCTION f()",
    "-- ; DROP TABLE children;\n/* LOCK children; /* */ ; */ CREATE TYPE t AS (a int)",
    "DO $$BEGIN EXECUTE format('GRANT SELECT ON children'\n ' TO %I', current_setting('tenant_schemas.tenant_role'));"
    " END$$",
]


def history_of(migrations: Migrations, history: History, before: str | None = None) -> str:
    return "\n".join(step.sql for step in migrations.steps(history, None, before))


def planned(sql: str, before: str) -> dict[str, LockMode]:
    return {lock.table: lock.mode for lock in locks_of(sql, before) if lock.mode >= NOTABLE}


class Truth:
    """The locks that one db transaction takes on the objects that existed before it."""

    def __init__(self, database: Database, connection: Connection) -> None:
        self._superuser = database.as_superuser()
        self._pid = connection.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]
        self._before = [oid for (oid,) in self._superuser.execute("SELECT oid FROM pg_class WHERE relkind <> 'i'")]

    def locks(self, own_schema: str = "") -> dict[str, LockMode]:
        query = """
            SELECT n.nspname, c.relname, l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
            JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE l.pid = %s AND c.oid = ANY(%s) AND n.nspname !~ '^pg_' AND l.granted"""
        found: dict[str, LockMode] = {}
        for schema_name, relation, mode_name in self._superuser.execute(query, (self._pid, self._before)):
            table = relation if schema_name == own_schema else f"{schema_name}.{relation}"
            mode = next(mode for mode in LockMode if f"{mode.name.replace('_', '').lower()}lock" == mode_name.lower())
            if mode >= max(NOTABLE, found.get(table, NOTABLE)):
                found[table] = mode
        return found


@pytest.fixture(scope="module")
def prepared(template: Database) -> Iterator[Database]:
    with copy_of(template) as database:
        with database.admin_engine().begin() as connection:
            bound_as_owner(connection, database.roles, "km_schema")
            send(connection, SETUP)
        yield database


def bound_as_owner(connection: Connection, roles: ServiceRoles, schema_name: str) -> None:
    become_owner(connection, roles)
    connection.exec_driver_sql("SET LOCAL tenant_schemas.tenant_role TO tenant_km")
    bind_migration(connection, schema_name)


@pytest.mark.parametrize("statement", SAMPLES)
def test_each_statement_is_planned_as_postgresql_locks(
    prepared: Database, statement: str, tenancy_migrations: Migrations
) -> None:
    with prepared.admin_engine().connect() as connection:
        bound_as_owner(connection, prepared.roles, "km_schema")
        truth = Truth(prepared, connection)
        send(connection, statement)
        assert planned(statement, history_of(tenancy_migrations, History.TENANT) + SETUP) == truth.locks("km_schema")
    prepared.close()


def test_each_revision_of_tenants_is_planned_as_postgresql_locks(
    fresh_database: Database, tenancy_migrations: Migrations
) -> None:
    tenant = new_tenant(tenancy_migrations, slug="old", name="old", settings={})
    first, *others = tenancy_migrations.steps(History.TENANT, None)
    with fresh_database.admin_engine().begin() as connection:
        create_tenant_role(connection, tenant, "x", tenancy_migrations.roles)
        become_owner(connection, tenancy_migrations.roles)
        create_tenant_schema(connection, tenant)
        tenancy_migrations.upgrade_tenant(connection, tenant, first.revision)
    for step in others:
        with fresh_database.admin_engine().begin() as connection:
            become_owner(connection, tenancy_migrations.roles)
            truth = Truth(fresh_database, connection)
            tenancy_migrations.upgrade_tenant(connection, tenant, step.revision)
            plan = planned(step.sql, history_of(tenancy_migrations, History.TENANT, step.before))
            plan.pop("", None)
            assert plan == truth.locks(tenant.schema_name), step.revision
    with fresh_database.as_superuser() as superuser:
        superuser.execute("DROP OWNED BY tenant_old; DROP ROLE tenant_old")


def test_each_revision_of_shared_is_planned_as_postgresql_locks(
    fresh_database: Database, tenancy_migrations: Migrations
) -> None:
    with fresh_database.as_superuser() as superuser:
        superuser.execute("DROP SCHEMA shared, eur_schema, km_schema CASCADE")
    for step in tenancy_migrations.steps(History.SHARED, None):
        with fresh_database.admin_engine().begin() as connection:
            truth = Truth(fresh_database, connection)
            tenancy_migrations.upgrade_shared(connection, step.revision)
            plan = planned(step.sql, history_of(tenancy_migrations, History.SHARED, step.before) if step.before else "")
            plan.pop("", None)  # of SQL that a block or a function makes
            assert plan == truth.locks(), step.revision


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT wallet_post_v1()",
        "CALL everything()",
        "DO $$BEGIN EXECUTE 'GRANT SELECT ON a TO b'; UPDATE wallets SET version = 2; END$$",
        "DO $$BEGIN EXECUTE 'ALTER TABLE wallets ADD a int'; END$$",
        "ALTER DOMAIN amount ADD CHECK (value > 0)",
        "CREATE EXTENSION hstore",
        "DROP SCHEMA km_schema",
        "WITH a AS (DELETE FROM wallets RETURNING *) SELECT count(*) FROM a",
        "REINDEX TABLE wallets",
    ],
)
def test_what_cannot_be_read_is_called_unknown(statement: str) -> None:
    assert locks_of(statement) == (Lock("", LockMode.UNKNOWN, statement),)


def test_what_a_cascade_reaches_is_unknown() -> None:
    found = locks_of("DROP TABLE wallets CASCADE; DROP VIEW v CASCADE")
    assert [lock.table for lock in found if lock.mode is LockMode.UNKNOWN] == ["objects that depend on it"] * 2


def test_an_index_of_which_nothing_is_known_is_named() -> None:
    (lock,) = locks_of("DROP INDEX a_idx")
    assert (lock.table, str(lock.mode)) == ("the table of index a_idx", "ACCESS EXCLUSIVE")


def test_the_strongest_lock_of_a_table_is_told_with_its_statement() -> None:
    found = locks_of("CREATE INDEX ON wallets (id);\nALTER TABLE wallets\n  ADD a int;\nINSERT INTO holds VALUES (1)")
    assert found == (
        Lock("wallets", LockMode.ACCESS_EXCLUSIVE, "ALTER TABLE wallets ADD a int"),
        Lock("holds", LockMode.ROW_EXCLUSIVE, "INSERT INTO holds VALUES (1)"),
    )
