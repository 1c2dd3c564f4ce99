"""SQL of an attacker's own choosing, as each login of the service: what PostgreSQL refuses, and what it allows.

A tenant's attacks run in both login modes: on its own connection, and on the pool's, in a db transaction that has taken
the tenant's role. Each attack is rolled back.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from tenant_schemas.testing.plugin import Database
from tests.factories.people import People

pytestmark = pytest.mark.changes_roles

REFUSED = psycopg.errors.InsufficientPrivilege
Attack = Callable[..., list[Any]]


@contextmanager
def rolled_back(connection: psycopg.Connection[Any], *first: str) -> Iterator[Attack]:
    """Runs statements, one per message, in a db transaction that is rolled back."""

    def attack(statement: str, *parameters: Any) -> list[Any]:
        cursor = connection.execute(cast(Any, statement), parameters or None)
        return cursor.fetchall() if cursor.description else []

    with connection, connection.transaction(force_rollback=True):
        for statement in first:
            attack(statement)
        yield attack


@pytest.fixture
def own_attack(database: Database) -> Iterator[Attack]:
    """As the tenant eur, on its own connection."""
    with rolled_back(database.as_tenant("eur")) as attack:
        yield attack


@pytest.fixture
def pool_attack(database: Database) -> Iterator[Attack]:
    """As the tenant eur, on the pool's connection, bound as the service binds it."""
    bind = ("SET LOCAL ROLE tenant_eur", "SET LOCAL search_path TO eur_schema, pg_temp")
    with rolled_back(database.as_pool(), *bind) as attack:
        yield attack


@pytest.fixture
def attack(request: pytest.FixtureRequest, tenant_logins: str) -> Attack:
    """As the tenant eur, in this login mode."""
    return cast(Attack, request.getfixturevalue("own_attack" if tenant_logins == "own" else "pool_attack"))


# Statements of a tenant that PostgreSQL refuses for lack of a privilege.

OF_OTHERS = [
    "TABLE km_schema.wallets",
    "SELECT km_schema.wallet_post_v2(NULL, 'deposit', 1, 'k', NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    "SELECT 'km_schema.wallets'::regclass",
    "EXPLAIN SELECT FROM km_schema.wallets",
    "LOCK TABLE km_schema.wallets IN ACCESS SHARE MODE",
    "ALTER ROLE tenant_km PASSWORD 'x'",
    "ALTER ROLE tenant_km SET work_mem TO '1GB'",
    "ALTER ROLE tenant_km CONNECTION LIMIT 0",
    "GRANT wallet_tenants TO tenant_km",
    "COMMENT ON ROLE tenant_km IS 'x'",
    "SET SESSION AUTHORIZATION tenant_km",
]
INSIDE_A_SELECT = [
    "SELECT set_config('role', 'tenant_km', false)",
    "SELECT set_config('search_path', 'km_schema', true)",
    "SELECT set_config('session_authorization', 'wallet_migrator', true)",
    "UPDATE pg_settings SET setting = 'tenant_km' WHERE name = 'role'",
    "SELECT ts_stat('SELECT set_config(''role'', ''tenant_km'', true)::tsvector')",
    "SELECT ts_stat('SELECT to_tsvector(id::text) FROM km_schema.wallets')",
    "SELECT ts_rewrite('a'::tsquery, 'SELECT ''a''::tsquery, ''b''::tsquery FROM km_schema.wallets')",
    "SELECT query_to_xml('SELECT set_config(''role'', ''tenant_km'', true)', true, true, '')",
    "SELECT query_to_xml('TABLE km_schema.wallets', true, true, '')",
    "SELECT query_to_xmlschema('TABLE km_schema.wallets', true, true, '')",
    "SELECT query_to_xml_and_xmlschema('TABLE km_schema.wallets', true, true, '')",
    "SELECT table_to_xml('km_schema.wallets', true, true, '')",
    "SELECT schema_to_xml('km_schema', true, true, '')",
]
OF_THE_SHARED_SIDE = [
    "TABLE shared.users",
    "SELECT count(*) FROM shared.sessions",
    "SELECT secret_hash FROM shared.api_keys",
    "TABLE shared.alembic_version",
    "SELECT FROM shared.tenants FOR UPDATE",
    "SELECT FROM shared.tenants FOR KEY SHARE",
    "SELECT FROM shared.products FOR SHARE",
    "LOCK TABLE shared.tenants IN ROW SHARE MODE",
    "LOCK TABLE shared.tenants IN ROW EXCLUSIVE MODE",
    "LOCK TABLE shared.products IN SHARE MODE",
    "LOCK TABLE shared.memberships",
    "LOCK TABLE wallets",
    "LOCK TABLE pg_class IN ROW EXCLUSIVE MODE",
    "SET ROLE wallet_app",
    "SET ROLE wallet_owner",
    "SET ROLE pg_read_all_data",
    "SELECT rolpassword FROM pg_authid",
    "SELECT passwd FROM pg_shadow",
]
PEEPING = [
    "SELECT query FROM pg_stat_activity",
    "SELECT pg_stat_get_activity(NULL)",
    "SELECT pg_stat_get_backend_activity(1)",
    "SELECT pid FROM pg_locks",
    "SELECT pg_blocking_pids(1)",
    "SELECT client_addr FROM pg_stat_replication",
    "SELECT gid FROM pg_prepared_xacts",
    "SELECT n_live_tup FROM pg_stat_user_tables",
    "SELECT pg_stat_get_live_tuples(c.oid) FROM pg_class c",
    "SELECT seq_scan FROM pg_stat_all_tables",
    "SELECT idx_scan FROM pg_stat_all_indexes",
    "SELECT heap_blks_hit FROM pg_statio_all_tables",
    "SELECT calls FROM pg_stat_user_functions",
    "SELECT xact_commit FROM pg_stat_database",
    "SELECT reltuples FROM pg_class",
    "SELECT relpages FROM pg_class",
    "TABLE pg_class",
    "SELECT pg_relation_size(c.oid) FROM pg_class c",
    "SELECT pg_total_relation_size(c.oid) FROM pg_class c",
    "SELECT pg_table_size(c.oid) FROM pg_class c",
    "SELECT pg_indexes_size(c.oid) FROM pg_class c",
    "SELECT stavalues1 FROM pg_statistic",
    "SELECT stxdndistinct FROM pg_statistic_ext_data",
    "SELECT umoptions FROM pg_user_mapping",
    "SELECT subconninfo FROM pg_subscription",
    "SELECT * FROM pg_hba_file_rules",
    "SELECT * FROM pg_file_settings",
    "SHOW hba_file",
]
OUT_OF_THE_DATABASE = [
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "COPY wallets FROM PROGRAM 'true'",
    "COPY (SELECT 1) TO '/tmp/stolen'",
    "COPY wallets FROM '/etc/passwd'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_read_binary_file('/etc/passwd')",
    "SELECT pg_ls_dir('.')",
    "SELECT pg_stat_file('.')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_export(1, '/tmp/stolen')",
    "SELECT lo_create(0)",
    "SELECT lo_creat(-1)",
    "SELECT lo_from_bytea(0, 'x')",
    "LOAD 'plpgsql'",
    "CREATE FOREIGN DATA WRAPPER w",
    "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p WITH (connect = false)",
]
CODE_OF_ITS_OWN = [
    "DO $$ BEGIN PERFORM 1; END $$",
    "CREATE TABLE mine ()",
    "CREATE TEMP TABLE wallets ()",
    "CREATE TEMP VIEW wallets AS SELECT 1",
    "SELECT 1 INTO TEMP wallets",
    "CREATE TABLE pg_temp.wallets ()",
    "CREATE FUNCTION pg_temp.now() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE FUNCTION now() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE FUNCTION shared.now() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE FUNCTION public.now() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE TYPE pg_temp.mine AS (a int)",
    "CREATE DOMAIN mine AS int",
    "CREATE OPERATOR = (leftarg = int, rightarg = int, function = int4ne)",
    "CREATE OPERATOR pg_temp.= (leftarg = int, rightarg = int, function = int4ne)",
    "CREATE CAST (int AS text) WITH INOUT",
    "CREATE COLLATION mine FROM \"C\"",
    "CREATE SEQUENCE mine",
    "CREATE SCHEMA mine",
    "CREATE ROLE mine",
    "CREATE EXTENSION dblink",
    "CREATE EVENT TRIGGER mine ON ddl_command_start EXECUTE FUNCTION refuse_change_v1()",
    "CREATE TRIGGER mine BEFORE INSERT ON wallets EXECUTE FUNCTION refuse_change_v1()",
    "CREATE RULE mine AS ON INSERT TO wallets DO NOTHING",
    "CREATE POLICY mine ON shared.tenants USING (true)",
    "CREATE STATISTICS mine ON id, user_id FROM wallets",
    "CREATE PUBLICATION mine",
    "ALTER FUNCTION wallet_post_v2 RESET ALL",
    "ALTER FUNCTION wallet_post_v2 SECURITY INVOKER",
    "ALTER TABLE wallets DISABLE TRIGGER ALL",
    "COMMENT ON TABLE wallets IS 'x'",
]  # fmt: skip
OF_THE_SERVER = [
    "SELECT pg_advisory_lock(n) FROM generate_series(1, 3) n",
    "SELECT pg_try_advisory_xact_lock(1)",
    "SELECT pg_notify('channel', 'x')",
    "SELECT pg_reload_conf()",
    "SELECT pg_rotate_logfile()",
    "SELECT pg_switch_wal()",
    "SELECT pg_create_restore_point('x')",
    "SELECT pg_stat_reset()",
    "SELECT pg_log_backend_memory_contexts(1)",
    "SELECT pg_replication_origin_create('x')",
    "SELECT pg_create_physical_replication_slot('x')",
    "ALTER DATABASE postgres SET work_mem TO '1GB'",
    "ALTER ROLE ALL SET work_mem TO '1GB'",
    "ALTER ROLE CURRENT_USER SUPERUSER",
    "ALTER ROLE CURRENT_USER BYPASSRLS",
    "ALTER ROLE CURRENT_USER CONNECTION LIMIT -1",
    "ALTER ROLE CURRENT_USER VALID UNTIL 'infinity'",
    "SET session_replication_role TO replica",
    "SET temp_file_limit TO -1",
    "SET log_statement TO none",
    "SET lo_compat_privileges TO on",
    "SET zero_damaged_pages TO on",
    "SET allow_system_table_mods TO on",
    "SET session_preload_libraries TO x",
    "CHECKPOINT",
]


@pytest.mark.parametrize(
    "statement",
    [
        *OF_OTHERS,
        *INSIDE_A_SELECT,
        *OF_THE_SHARED_SIDE,
        *PEEPING,
        *OUT_OF_THE_DATABASE,
        *CODE_OF_ITS_OWN,
        *OF_THE_SERVER,
    ],
)
def test_a_tenant_is_refused(attack: Attack, statement: str) -> None:
    with pytest.raises(REFUSED):
        attack(statement)


@pytest.mark.parametrize("text", ["SET ROLE tenant_km", "RESET ROLE", "SET LOCAL search_path TO km_schema", "COMMIT"])
@pytest.mark.parametrize("function", ["query_to_xml('{}', true, true, '')", "ts_stat('{}')", "ts_rewrite('a', '{}')"])
def test_a_function_that_runs_sql_runs_no_command(attack: Attack, text: str, function: str) -> None:
    """So no SELECT can take another role or drop its own."""
    with pytest.raises(psycopg.Error) as refused:
        attack("SELECT " + function.format(text))
    assert refused.value.sqlstate in {"0A000", "22000", "22023", "2D000", "42601", "42P11"}


# Allowed, but without an effect on, or rows of, other tenants.


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("SELECT slug FROM shared.tenants", [("eur",)]),
        ("SELECT DISTINCT tenant_role FROM shared.memberships", [("tenant_eur",)]),
        ("SELECT 1 / (CASE slug WHEN 'km' THEN 0 ELSE 1 END) FROM shared.tenants", [(1,)]),
        ("SELECT FROM shared.member_directory d WHERE d.email = ANY(SELECT email FROM shared.member_directory"
         " EXCEPT SELECT email FROM shared.member_directory)", []),
        ("SELECT tablename FROM pg_stats WHERE schemaname IN ('km_schema', 'shared') AND tablename NOT IN"
         " ('products', 'categories', 'product_prices')", []),
        ("SELECT statistics_name FROM pg_stats_ext", []),
        ("SELECT DISTINCT table_schema FROM information_schema.tables WHERE table_schema = 'km_schema'", []),
        ("SELECT routine_name FROM information_schema.routines WHERE routine_schema = 'km_schema'", []),
        ("SELECT name FROM pg_settings WHERE name IN ('data_directory', 'config_file')", []),
        ("SELECT DISTINCT passwd FROM pg_user", [("********",)]),
        ("SELECT oid FROM pg_largeobject_metadata", []),
        ("SELECT description FROM pg_shdescription WHERE classoid = 'pg_authid'::regclass AND objoid IN"
         " (SELECT oid FROM pg_roles WHERE rolname ~ '^tenant_')", []),
        ("SELECT pid FROM pg_stat_progress_vacuum", []),
        ("SELECT pg_listening_channels()", []),
        ("SELECT name FROM pg_cursors", []),
    ],
)  # fmt: skip
def test_a_tenant_is_shown_nothing_of_others(
    attack: Attack, people: People, database: Database, query: str, shown: list[Any]
) -> None:
    people.make(eur="member", km="member")
    people.make(km="admin")
    with database.as_superuser() as superuser:
        superuser.execute("ANALYZE shared.memberships, shared.tenants, shared.users")
    assert attack(query) == shown


@pytest.mark.parametrize(
    "grant",
    [
        "GRANT SELECT ON wallets TO tenant_km",
        "GRANT USAGE ON SCHEMA eur_schema TO tenant_km",
        "GRANT EXECUTE ON FUNCTION wallet_open_v3 TO tenant_km",
        "GRANT SELECT ON shared.memberships TO PUBLIC",
        "REVOKE SELECT ON shared.tenants FROM wallet_tenants",
        "REVOKE SELECT ON wallets FROM tenant_eur",
    ],
)
def test_a_tenant_can_not_pass_its_rights_on(attack: Attack, grant: str) -> None:
    """PostgreSQL warns that nothing was granted, and no privilege changes."""
    lists = (
        "SELECT oid, relacl::text FROM pg_class UNION ALL SELECT oid, nspacl::text FROM pg_namespace"
        " UNION ALL SELECT oid, proacl::text FROM pg_proc ORDER BY 1, 2"
    )
    before = attack(lists)
    attack(grant)
    assert attack(lists) == before


@pytest.mark.parametrize("role_name", ["tenant_km", "wallet_app", "wallet_pool"])
@pytest.mark.parametrize("function", ["pg_terminate_backend", "pg_cancel_backend"])
def test_a_tenant_ends_nobody_elses_connection(
    database: Database, attack: Attack, role_name: str, function: str
) -> None:
    """Nor the connection of another tenant that uses the same pool."""
    if role_name == "tenant_km":
        victim = database.as_tenant("km")
    else:
        victim = database.as_pool() if role_name == "wallet_pool" else database.as_role(role_name)
    with victim:
        with pytest.raises(REFUSED):
            attack(f"SELECT {function}(%s)", victim.info.backend_pid)
        assert victim.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize(
    "call",
    [
        "SELECT wallet_open_v1(%s, 'EUR')",
        "SELECT wallet_open_v3(%s, 'EUR', %s, 'r')",
        "SELECT wallets_open_missing_v2(ARRAY[%s::uuid], 'EUR')",
        "SELECT refused_by FROM openings_compare_v1(jsonb_build_array(jsonb_build_object("
        "'user_id', %s::text, 'calculated_minor', 1, 'source_rows', 1, 'source_hash', 'h')), 'EUR')",
        "SELECT moved_minor FROM openings_post_v3(jsonb_build_array(jsonb_build_object("
        "'user_id', %s::text, 'calculated_minor', 1, 'source_rows', 1, 'source_hash', 'h')), 'EUR', false)",
    ],
)
def test_a_function_does_not_tell_a_stranger_from_nobody(attack: Attack, people: People, call: str) -> None:
    """A foreign key or a look-up with different answers would show who is a user elsewhere."""

    def outcome(user_id: Any) -> tuple[Any, ...]:
        attack("SAVEPOINT before")
        try:
            answer: tuple[Any, ...] = ("answered", str(attack(call, *[user_id] * call.count("%s"))))
        except psycopg.Error as error:
            answer = (error.sqlstate, str(error.diag.message_primary), str(error.diag.message_detail))
        attack("ROLLBACK TO before")
        return tuple(str(part).replace(str(user_id), "the user") for part in answer)

    stranger, unknown = outcome(people.make(km="member").user_id), outcome(uuid4())
    assert stranger == unknown
    assert stranger[0] == "answered" or stranger[0].startswith("WA"), stranger


# Known gaps, documented in docs/architecture/security.md.

KNOWN = {
    "the names of other tenants' schemas and roles, by number": (
        "SELECT 'tenant_km'::regrole, 'km_schema'::regnamespace"
    ),
    "the names in the catalogue": "SELECT relname FROM pg_class WHERE relnamespace = 'km_schema'::regnamespace",
    "the text of functions, the same for all tenants": "SELECT prosrc FROM pg_proc LIMIT 1",
    "other roles' settings, with schemas and limits": "SELECT rolname, rolconfig, rolconnlimit FROM pg_roles",
    "the planner's estimate of the rows of shared tables": "EXPLAIN SELECT FROM shared.memberships",
    "the write volume of the whole server": "SELECT pg_current_wal_lsn(), pg_snapshot_xmax(pg_current_snapshot())",
    "the size of the whole database": "SELECT pg_database_size(current_database())",
    "its own password, locking itself out": "ALTER ROLE CURRENT_USER PASSWORD 'x'",
    "its own defaults": "ALTER ROLE CURRENT_USER SET work_mem TO '1GB'",
    "no statement timeout in the db transaction": "SET LOCAL statement_timeout TO 0",
    "no idle timeout in the db transaction": "SET LOCAL idle_in_transaction_session_timeout TO 0",
    "all memory of the server": "SET LOCAL work_mem TO '10GB'",
    "a connection kept busy": "SELECT pg_sleep(0)",
    "a lock that delays a migration of shared until its lock timeout": (
        "LOCK TABLE shared.tenants IN ACCESS SHARE MODE"
    ),
    "messages without a listener": "NOTIFY channel, 'x'",
    "a listener without messages": "LISTEN channel",
    "bytes in the write-ahead log": "SELECT pg_logical_emit_message(true, 'a', 'b')",
}


@pytest.mark.parametrize("statement", KNOWN.values(), ids=KNOWN.keys())
def test_what_is_known_to_be_open_is_still_open(attack: Attack, statement: str) -> None:
    """When PostgreSQL closes one of these, remove its sentence from docs/architecture/security.md."""
    attack(statement)


@pytest.mark.parametrize("statement", ["SET ROLE tenant_km", "SET LOCAL ROLE tenant_km", "RESET ROLE"])
def test_a_statement_of_its_own_leaves_the_tenant_on_the_pools_connection(pool_attack: Attack, statement: str) -> None:
    """This is the difference between the login modes. The service sends one statement per message, and a part of a
    SELECT can't do this (see above); only code that runs an attacker's text as a whole statement would.
    """
    pool_attack(statement)
    pool_attack("SET LOCAL ROLE tenant_km")
    pool_attack("TABLE km_schema.wallets")


@pytest.mark.parametrize("statement", ["SET ROLE tenant_km", "SET LOCAL ROLE tenant_km", "SET ROLE wallet_pool"])
def test_on_a_tenants_own_connection_there_is_no_leaving(own_attack: Attack, statement: str) -> None:
    with pytest.raises(REFUSED):
        own_attack(statement)


def test_reset_role_on_a_tenants_own_connection_is_still_the_tenant(own_attack: Attack) -> None:
    own_attack("RESET ROLE")
    assert own_attack("SELECT current_user::text, session_user::text") == [("tenant_eur", "tenant_eur")]


# The other logins.


@pytest.mark.parametrize(
    "statement",
    [
        "TABLE shared.tenants",
        "TABLE shared.products",
        "TABLE shared.users",
        "TABLE eur_schema.wallets",
        "SELECT eur_schema.ledger_audit_v2()",
        "CREATE TEMP TABLE mine ()",
        "SET ROLE wallet_app",
        "SET ROLE wallet_owner",
        *INSIDE_A_SELECT,
        *OUT_OF_THE_DATABASE,
    ],
)
def test_the_pool_without_a_tenant_is_refused(database: Database, statement: str) -> None:
    """It inherits nothing: before it takes a tenant's role it has no privilege."""
    with rolled_back(database.as_pool()) as attack, pytest.raises(REFUSED):
        attack(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "TABLE km_schema.wallets",
        "SET ROLE tenant_km",
        "SET ROLE wallet_tenants",
        "SET ROLE wallet_pool",
        "SET ROLE wallet_owner",
        "SET ROLE wallet_backup",
        "TRUNCATE shared.memberships",
        "DELETE FROM shared.users",
        "DELETE FROM shared.tenants",
        "INSERT INTO shared.tenants SELECT * FROM shared.tenants",
        "UPDATE shared.tenants SET schema_name = 'eur_schema'",
        "UPDATE shared.tenants SET role_name = 'tenant_eur'",
        "UPDATE shared.tenants SET login_epoch = 2",
        "UPDATE shared.products SET name = 'x'",
        "UPDATE shared.alembic_version SET version_num = '9999'",
        "ALTER TABLE shared.users DISABLE ROW LEVEL SECURITY",
        "CREATE TABLE shared.mine ()",
        *INSIDE_A_SELECT,
        *PEEPING,
        *OUT_OF_THE_DATABASE,
        *OF_THE_SERVER,
    ],
)
def test_the_shared_side_is_refused(database: Database, statement: str) -> None:
    with rolled_back(database.as_role("wallet_app")) as attack, pytest.raises(REFUSED):
        attack(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO eur_schema.holds SELECT * FROM eur_schema.holds",
        "UPDATE eur_schema.wallets SET balance_minor = 0",
        "DELETE FROM shared.users",
        "TRUNCATE shared.memberships",
        "SELECT eur_schema.wallet_open_v1(NULL, 'EUR')",
        "SELECT FROM shared.users FOR UPDATE",
        "LOCK TABLE eur_schema.wallets IN SHARE MODE",
        "CREATE TABLE shared.mine ()",
        "CREATE TEMP TABLE mine ()",
        "SET ROLE tenant_eur",
        "SET ROLE wallet_owner",
        *OUT_OF_THE_DATABASE,
        *OF_THE_SERVER,
    ],
)
def test_the_backup_reads_and_is_refused_all_else(database: Database, statement: str) -> None:
    with rolled_back(database.as_role("wallet_backup")) as attack:
        attack("TABLE eur_schema.wallets")
        attack("TABLE shared.users")
        with pytest.raises(REFUSED):
            attack(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "TABLE eur_schema.events",
        "TABLE eur_schema.events_head",
        "TABLE eur_schema.events_waiting",
        "SELECT eur_schema.events_stamp_v1(1)",
        "TABLE shared.users",
        "TABLE shared.memberships",
        "TABLE shared.api_keys",
        "UPDATE shared.tenants SET status = 'active'",
        "SELECT FROM shared.tenants FOR UPDATE",
        "CREATE TABLE shared.mine ()",
        "SET ROLE tenant_eur",
        "SET ROLE wallet_app",
        "SET ROLE wallet_owner",
        *INSIDE_A_SELECT,
        *PEEPING,
        *OUT_OF_THE_DATABASE,
        *OF_THE_SERVER,
    ],
)
def test_the_relay_learns_who_has_events_and_sees_none(database: Database, statement: str) -> None:
    with rolled_back(database.as_role("wallet_relay")) as attack:
        attack("SELECT * FROM shared.events_waiting_v1(ARRAY(SELECT schema_name FROM shared.tenants))")
        with pytest.raises(REFUSED):
            attack(statement)


def test_who_watches_the_server_still_may(database: Database) -> None:
    """The privileges taken from PUBLIC were granted to PostgreSQL's own monitoring role."""
    name = f"watcher_{uuid4().hex[:8]}"
    role = sql.Identifier(name)
    with rolled_back(database.as_superuser()) as attack:
        attack(sql.SQL("CREATE ROLE {} IN ROLE pg_monitor").format(role).as_string())
        attack(sql.SQL("SET LOCAL ROLE {}").format(role).as_string())
        for query in (
            "SELECT query FROM pg_stat_activity",
            "SELECT n_live_tup FROM pg_stat_user_tables",
            "SELECT mode FROM pg_locks",
            "SELECT reltuples FROM pg_class",
            "SELECT pg_total_relation_size('pg_class')",
        ):
            assert attack(query)


def test_the_planner_does_not_tell_whose_members_are_many(fresh_database: Database) -> None:
    """The planner's statistics cover all rows, including rows that row-level security hides."""
    superuser = fresh_database.as_superuser()
    superuser.execute(
        "INSERT INTO shared.users (email, name) SELECT n || '@many.example', 'Many' FROM generate_series(1, 500) n"
    )
    superuser.execute(
        "INSERT INTO shared.memberships (tenant_id, user_id, tenant_role, role)"
        " SELECT t.id, u.id, t.role_name, 'member' FROM shared.users u, shared.tenants t WHERE t.slug = 'km'"
    )
    superuser.execute("ANALYZE shared.memberships")
    tenant, guesses = fresh_database.as_tenant("eur"), set()
    for role_name in ("tenant_km", "tenant_nobody"):
        query = f"EXPLAIN (FORMAT JSON) SELECT FROM shared.memberships WHERE tenant_role = '{role_name}'"
        ((plan,),) = tenant.execute(query.encode()).fetchall()
        guesses.add(plan[0]["Plan"]["Plan Rows"])
    assert len(guesses) == 1
