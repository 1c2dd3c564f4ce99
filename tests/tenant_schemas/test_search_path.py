"""The binding is part of BEGIN, costs nothing, leaves nothing behind, and can't be bypassed.

Messages are counted in libpq's own trace. `test_search_path_messages.py` counts those of whole requests.
"""

import select
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa
from flask import Flask
from psycopg import pq
from sqlalchemy.exc import OperationalError, ProgrammingError

from tenant_schemas.connections import Connections, Limits
from tenant_schemas.context import SHARED, Binding, bound
from tenant_schemas.errors import BindingMismatch, BindingRefused, SchemaMissing
from tenant_schemas.flask import TenantDatabase
from tenant_schemas.search_path import BindingEngine, begin_message, bind_migration
from tenant_schemas.testing.plugin import Database
from tests.factories.messages import sent_by

STATEMENT_TIMEOUT_MS = 7_000
WHERE_AM_I = "SELECT current_setting('search_path'), current_setting('statement_timeout'), pg_backend_pid()"
# The backend with this pid terminates itself; a later backend answers.
DIE_ONCE = (
    "SELECT CASE WHEN pg_backend_pid() = %s THEN pg_terminate_backend(pg_backend_pid(), 5000)::text ELSE 'ok' END"
)


@contextmanager
def connections_to(database: Database, logins: str = "own") -> Iterator[Connections]:
    """At most one connection, so that the next use gets the connection of the previous one."""
    limits = Limits(max_connections=1, wait_seconds=0.2, statement_timeout_ms=STATEMENT_TIMEOUT_MS)
    pool_role = database.roles.pool if logins == "shared" else None
    connections = Connections(database.app_url, database.tenant_secret, limits, pool_role=pool_role)
    yield connections
    connections.close()


@pytest.fixture(scope="module", params=["own", "shared"])
def logins(request: pytest.FixtureRequest) -> str:
    """The login mode."""
    return str(request.param)


@pytest.fixture
def connections(database: Database, logins: str) -> Iterator[Connections]:
    with connections_to(database, logins) as connections:
        yield connections


@pytest.fixture
def db(connections: Connections) -> Iterator[TenantDatabase]:
    """A session on these connections, in an application context."""
    app = Flask("test")
    db = TenantDatabase()
    db.init_tenancy(app, connections)
    with app.app_context():
        yield db


@pytest.fixture(scope="module", params=["shared", "eur", "km"])
def side(request: pytest.FixtureRequest, database: Database) -> Binding:
    return SHARED if request.param == "shared" else database.tenant(request.param)


@pytest.fixture
def engine(connections: Connections, side: Binding) -> BindingEngine:
    """Of each side in turn, with its connection open."""
    engine = connections.for_binding(side)
    engine.one_statement("SELECT 1", ())
    return engine


def pid_of(engine: BindingEngine) -> int:
    return engine.one_statement("SELECT pg_backend_pid()", ())[0][0]


def path_of(side: Binding) -> str:
    """The search_path that PostgreSQL shows."""
    return "pg_catalog, pg_temp" if side is SHARED else f"{side.schema_name}, pg_temp"


# Messages.


def test_a_session_reading_once_sends_begin_with_the_binding_the_select_and_commit(
    db: TenantDatabase, engine: BindingEngine, side: Binding, logins: str
) -> None:
    """Three exchanges: as many as a db transaction without a binding."""
    with bound(side), sent_by(engine) as exchanges:
        db.session.execute(sa.text("SELECT CAST(:number AS int)"), {"number": 1}).all()
        db.session.commit()
    begin, select, commit = exchanges
    path = "pg_catalog, pg_temp" if side is SHARED else f'"{side.schema_name}", pg_temp'
    forgets, takes_role, bounds = "", "", ""
    if side is not SHARED and logins == "shared":
        forgets = "RESET ALL; "
        takes_role = f' SET LOCAL ROLE "{side.role_name}";'
        bounds = "; SET LOCAL idle_in_transaction_session_timeout TO 60000"
    timeout = f"SET LOCAL statement_timeout TO {STATEMENT_TIMEOUT_MS}"
    assert begin == [f'Query\t "{forgets}BEGIN;{takes_role} SET LOCAL search_path TO {path}; {timeout}{bounds}"']
    assert [message.split("\t")[0] for message in select] == ["Parse", "Bind", "Describe", "Execute", "Sync"]
    assert commit == ['Query\t "COMMIT"']


def test_a_rolled_back_session_sends_as_little(db: TenantDatabase, engine: BindingEngine, side: Binding) -> None:
    with bound(side), sent_by(engine) as exchanges:
        db.session.execute(sa.text("SELECT 1")).all()
        db.session.rollback()
    assert [exchange[-1] for exchange in exchanges[1:]] == ["Sync", 'Query\t "ROLLBACK"']


def test_giving_a_connection_back_and_taking_it_again_sends_nothing(engine: BindingEngine) -> None:
    with sent_by(engine) as exchanges:
        for _ in range(3):
            with engine.connect():
                pass
    assert exchanges == []


@pytest.mark.parametrize("retry", [False, True])
def test_one_statement_is_one_exchange(engine: BindingEngine, side: Binding, logins: str, retry: bool) -> None:
    """No BEGIN and no COMMIT; only a session that tenants share sends them. At its sixth use on a connection psycopg
    prepares the statement, which is one more exchange, once; in a shared session nothing is prepared.
    """
    counts = []
    is_framed = logins == "shared" and side is not SHARED
    for number in range(8):
        with sent_by(engine) as exchanges:
            assert engine.one_statement("SELECT %s::int", (number,), retry=retry) == [(number,)]
        if is_framed:
            begin, *exchanges, commit = exchanges
            assert (len(begin), begin[0][:25], commit) == (1, 'Query\t "RESET ALL; BEGIN;', ['Query\t "COMMIT"'])
        counts.append(len(exchanges))
    assert counts == ([1] * 8 if is_framed else [1, 1, 1, 1, 1, 2, 1, 1])
    kinds = {message.split("\t")[0] for exchange in exchanges for message in exchange}
    assert kinds <= {"Parse", "Bind", "Describe", "Execute", "Sync"}


def test_the_begin_message_quotes_the_schema(database: Database) -> None:
    """No schema has such a name; in the message it would still be a name and not SQL."""
    tenant = database.tenant("eur")
    object.__setattr__(tenant, "schema_name", 'x"; DROP SCHEMA shared; --')
    assert begin_message(tenant, 1).startswith(
        'BEGIN; SET LOCAL search_path TO "x""; DROP SCHEMA shared; --", pg_temp;'
    )


# Visible tables in a db transaction.


def test_each_transaction_is_in_its_schema_then_pg_temp_and_under_the_time_out(
    engine: BindingEngine, side: Binding
) -> None:
    with engine.begin() as connection:
        path, timeout, _ = connection.exec_driver_sql(WHERE_AM_I).one()
    assert (path, timeout) == (path_of(side), f"{STATEMENT_TIMEOUT_MS // 1000}s")


def test_a_missing_tenant_table_is_missing_also_if_other_schemas_have_one(fresh_database: Database) -> None:
    """Not in shared, not in public, not in the other tenant's schema, although the tenant may read each of those
    tables.
    """
    role = fresh_database.tenant("eur").role_name
    with fresh_database.as_superuser() as superuser:
        for schema_name in ("shared", "public", "km_schema"):
            superuser.execute(f"CREATE TABLE {schema_name}.stray (id uuid)")  # type: ignore[arg-type]
            superuser.execute(f"GRANT USAGE ON SCHEMA {schema_name} TO {role}")  # type: ignore[arg-type]
            superuser.execute(f"GRANT SELECT ON {schema_name}.stray TO {role}")  # type: ignore[arg-type]
    with connections_to(fresh_database) as connections:
        eur = connections.engine(fresh_database.tenant("eur"))
        for schema_name in ("shared", "public", "km_schema"):
            assert eur.one_statement(f"SELECT count(*) FROM {schema_name}.stray", ()) == [(0,)]  # type: ignore[arg-type]
        with pytest.raises(psycopg.errors.UndefinedTable):
            eur.one_statement("SELECT count(*) FROM stray", ())
        with pytest.raises(ProgrammingError, match="UndefinedTable"), eur.begin() as connection:
            connection.exec_driver_sql("SELECT count(*) FROM stray")


def test_the_shared_side_finds_no_table_without_its_schema(connections: Connections) -> None:
    for table in ("users", "tenants", "wallets"):
        with pytest.raises(ProgrammingError, match="UndefinedTable"), connections.shared.begin() as connection:
            connection.exec_driver_sql(f"SELECT 1 FROM {table}")


def test_a_temporary_table_never_stands_in_for_a_real_one(fresh_database: Database) -> None:
    """Tenants may make none; even with one, the real table would be found first."""
    eur = fresh_database.tenant("eur")
    fresh_database.as_superuser().execute(f"GRANT TEMP ON DATABASE {fresh_database.name} TO {eur.role_name}")  # type: ignore[arg-type]
    with connections_to(fresh_database) as connections, connections.engine(eur).begin() as connection:
        connection.exec_driver_sql("CREATE TEMP TABLE wallets (id uuid)")
        connection.exec_driver_sql("CREATE TEMP TABLE scratch (id uuid)")
        assert (
            connection.exec_driver_sql(
                "SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'wallets'::regclass"
            ).scalar_one()
            == "eur_schema"
        )
        assert connection.exec_driver_sql("SELECT count(*) FROM scratch").scalar_one() == 0


# Nothing stays on the pooled connection.


@pytest.fixture
def telling_database(fresh_database: Database) -> Database:
    """The roles' own search_path differs from the one that BEGIN sets, so that a leftover is visible."""
    with fresh_database.as_superuser() as superuser:
        for role_name, path in (
            (fresh_database.roles.app, "pg_catalog, shared"),
            *((tenant.role_name, f"{tenant.schema_name}, shared") for tenant in fresh_database.tenants()),
        ):
            superuser.execute(f"ALTER ROLE {role_name} IN DATABASE {fresh_database.name} SET search_path TO {path}")  # type: ignore[arg-type]
    return fresh_database


class Fault(Exception):
    """Raised on purpose inside a block."""


def committed(engine: BindingEngine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("SELECT 1")


def rolled_back(engine: BindingEngine) -> None:
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        connection.rollback()


def left_open(engine: BindingEngine) -> None:
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")


def raised_in_python(engine: BindingEngine) -> None:
    def fail() -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("SELECT 1")
            raise Fault

    with pytest.raises(Fault):
        fail()


def raised_in_postgresql(engine: BindingEngine) -> None:
    with pytest.raises(sa.exc.DataError), engine.begin() as connection:
        connection.exec_driver_sql("SELECT 1 / 0")


def savepoint_released(engine: BindingEngine) -> None:
    with engine.begin() as connection, connection.begin_nested():
        connection.exec_driver_sql("SELECT 1")


def savepoint_rolled_back(engine: BindingEngine) -> None:
    with engine.begin() as connection:
        before = connection.exec_driver_sql(WHERE_AM_I).one()
        with pytest.raises(sa.exc.DataError), connection.begin_nested():
            connection.exec_driver_sql("SELECT 1 / 0")
        assert connection.exec_driver_sql(WHERE_AM_I).one() == before


def one_statement_refused(engine: BindingEngine) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        engine.one_statement("SELECT %s / 0", (1,))


def test_nothing_stays_on_the_pooled_connection_however_the_transaction_ended(telling_database: Database) -> None:
    """The same backend afterwards has its role's own search_path again, and its initial timeout."""
    ends = (
        *(committed, rolled_back, left_open, raised_in_python, raised_in_postgresql),
        *(savepoint_released, savepoint_rolled_back, one_statement_refused),
    )
    for side in (SHARED, *telling_database.tenants()):
        with connections_to(telling_database) as connections:
            engine = connections.for_binding(side)
            before = engine.one_statement(WHERE_AM_I, ())
            assert before[0][0] == ("pg_catalog, shared" if side is SHARED else f"{side.schema_name}, shared")
            for end in ends:
                end(engine)
                assert engine.one_statement(WHERE_AM_I, ()) == before, end.__name__
            with engine.begin() as connection:
                assert connection.exec_driver_sql(WHERE_AM_I).one()[0] == path_of(side)


def test_a_begin_that_somebody_sends_leaves_no_transaction_open(engine: BindingEngine) -> None:
    engine.one_statement("BEGIN", ())
    with engine.connect() as connection:
        assert connection.connection.driver_connection.info.transaction_status is pq.TransactionStatus.IDLE


@pytest.mark.parametrize(
    "stacked", ["SELECT 1; SELECT 2", "SELECT 1; SET ROLE tenant_km", "; SELECT 1; SET ROLE NONE", "COMMIT; BEGIN"]
)
def test_several_statements_in_one_are_refused(engine: BindingEngine, stacked: str) -> None:
    """Also without parameters, where psycopg by default sends a simple query, which allows several statements."""
    refused = {"match": "cannot insert multiple commands|syntax error"}
    with pytest.raises(psycopg.errors.SyntaxError, **refused):
        engine.one_statement(stacked, ())  # type: ignore[arg-type]
    with pytest.raises(ProgrammingError, **refused), engine.begin() as connection:
        connection.exec_driver_sql(stacked)
    with pytest.raises(ProgrammingError, **refused), engine.begin() as connection:
        connection.execution_options(stream_results=True).execute(sa.text(stacked))


# Bypasses are refused.

LEVELS = ["AUTOCOMMIT", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
OPTIONS: list[dict[str, Any]] = [
    *({"isolation_level": level} for level in LEVELS),
    {"postgresql_readonly": True},
    {"postgresql_readonly": False},
    {"postgresql_deferrable": True},
]


def test_transaction_options_that_our_begin_would_ignore_are_refused(
    db: TenantDatabase, engine: BindingEngine, side: Binding
) -> None:
    """On a connection, an engine and a session; and the refusal keeps the only connection usable."""
    for options in OPTIONS:
        with engine.connect() as connection:
            with pytest.raises(BindingRefused):
                connection.execution_options(**options)
            assert connection.exec_driver_sql(WHERE_AM_I).one()[0] == path_of(side)
        with pytest.raises(BindingRefused), engine.execution_options(**options).connect():
            pass
        with bound(side):
            with pytest.raises(BindingRefused):
                db.session.connection(execution_options=options)
            db.session.rollback()
            assert db.session.execute(sa.text(WHERE_AM_I)).one()[0] == path_of(side)
            db.session.commit()
    assert engine.one_statement("SELECT 1", ()) == [(1,)]


def test_an_option_of_a_single_statement_does_not_unbind_it(
    db: TenantDatabase, engine: BindingEngine, side: Binding
) -> None:
    with bound(side):
        row = db.session.execute(sa.text(WHERE_AM_I), execution_options={"isolation_level": "AUTOCOMMIT"}).one()
        assert row[0] == path_of(side)
        db.session.rollback()


def test_raw_connections_are_refused(engine: BindingEngine) -> None:
    with pytest.raises(BindingRefused):
        engine.raw_connection()


def test_raw_connections_are_refused_by_an_engine_with_options_too(engine: BindingEngine) -> None:
    """`execution_options` returns another engine; it must refuse as well."""
    with pytest.raises(BindingRefused):
        engine.execution_options(logging_token="x").raw_connection().close()


def test_an_engine_with_options_begins_bound_too(engine: BindingEngine, side: Binding) -> None:
    with engine.execution_options(logging_token="x").begin() as connection:
        assert connection.exec_driver_sql(WHERE_AM_I).one()[0] == path_of(side)


# A new connection proves its schema and role.


def refusals(database: Database, connections: Connections, engine: BindingEngine, role_name: str) -> None:
    """Try repeatedly, so that a leak would use up the only connection; no backend of the role is left."""
    for attempt in (engine.connect, lambda: engine.one_statement("SELECT 1", ())):
        for _ in range(2):
            with pytest.raises((BindingMismatch, SchemaMissing)):
                attempt()
    assert connections.open_count == 0
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = %s"
    deadline = monotonic() + 5
    with database.as_superuser() as superuser:
        while superuser.execute(count, (role_name,)).fetchone() != (0,) and monotonic() < deadline:
            sleep(0.01)
        assert superuser.execute(count, (role_name,)).fetchone() == (0,)


def test_a_connection_that_is_not_where_or_who_it_should_be_is_closed_unused(fresh_database: Database) -> None:
    """The schema is missing, renamed or closed to the role; or the role or its search_path is wrong."""
    own_path = f"ALTER ROLE tenant_eur IN DATABASE {fresh_database.name}"
    faults = {
        "ALTER SCHEMA eur_schema RENAME TO elsewhere": "ALTER SCHEMA elsewhere RENAME TO eur_schema",
        "REVOKE USAGE ON SCHEMA eur_schema FROM tenant_eur": "GRANT USAGE ON SCHEMA eur_schema TO tenant_eur",
        f"{own_path} SET search_path TO shared, eur_schema": f"{own_path} RESET search_path",
        f"{own_path} SET search_path TO km_schema, eur_schema": f"{own_path} RESET search_path",
        f"GRANT USAGE ON SCHEMA eur_schema TO wallet_tenants; {own_path} SET role TO wallet_tenants": (
            f"REVOKE USAGE ON SCHEMA eur_schema FROM wallet_tenants; {own_path} RESET role"
        ),
        "DROP SCHEMA eur_schema CASCADE": "",
    }
    eur, km = fresh_database.tenant("eur"), fresh_database.tenant("km")
    superuser = fresh_database.as_superuser()
    superuser.execute("GRANT USAGE ON SCHEMA km_schema TO tenant_eur")
    for fault, repair in faults.items():
        with connections_to(fresh_database) as connections:
            superuser.execute(fault)  # type: ignore[arg-type]
            refusals(fresh_database, connections, connections.engine(eur), "tenant_eur")
            assert connections.engine(km).one_statement("SELECT current_schema()", ()) == [("km_schema",)]
            superuser.execute(repair)  # type: ignore[arg-type]
            assert not repair or connections.engine(eur).one_statement("SELECT 1", ()) == [(1,)], fault


def test_a_role_that_the_pool_may_not_take_is_no_binding_and_costs_nothing(database: Database) -> None:
    """It does not exist, or was not granted to the pool; and the connection returns to the pool unharmed."""
    eur, km = database.tenant("eur"), database.tenant("km")

    def begin(engine: BindingEngine) -> None:
        with engine.begin():
            pass

    with connections_to(database, "shared") as connections:
        pid = pid_of(connections.engine(km))
        for role_name in ("tenant_nobody", "wallet_app"):
            engine = connections.engine(replace(eur, role_name=role_name))
            with pytest.raises(BindingMismatch, match="create_roles"):
                engine.one_statement("SELECT 1", ())
            with pytest.raises(BindingMismatch, match="create_roles"):
                begin(engine)
        assert pid_of(connections.engine(km)) == pid


def test_a_shared_side_that_starts_elsewhere_is_closed_unused(fresh_database: Database) -> None:
    """With `shared` before pg_catalog a table could replace one of PostgreSQL's own."""
    path = f"ALTER ROLE wallet_app IN DATABASE {fresh_database.name} SET search_path TO shared, pg_catalog"
    fresh_database.as_superuser().execute(path)  # type: ignore[arg-type]
    with connections_to(fresh_database) as connections:
        refusals(fresh_database, connections, connections.shared, "wallet_app")


@pytest.mark.parametrize("schema_name", ["nowhere", "pg_temp", "pg_toast", "pg_catalog"])
def test_a_migration_of_a_schema_that_the_path_does_not_reach_is_refused(database: Database, schema_name: str) -> None:
    """The schema does not exist, the role has no privilege on it, or it is PostgreSQL's own."""
    with database.admin_engine().begin() as connection, pytest.raises(BindingMismatch, match=schema_name):
        bind_migration(connection, schema_name)


def test_a_migration_with_temporary_tables_in_its_path_is_refused(database: Database) -> None:
    """They would be a second schema for Alembic. Only a superuser could have made them here."""
    engine = sa.create_engine(sa.make_url(database.url()).set(drivername="postgresql+psycopg"), poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TEMP TABLE wallets (id uuid) ON COMMIT DROP")
        with pytest.raises(BindingMismatch, match="reaches"):
            bind_migration(connection, "eur_schema")


def test_a_migration_is_bound_to_one_schema_until_its_transaction_ends(database: Database) -> None:
    with database.admin_engine().connect() as connection:
        for schema_name in ("eur_schema", "shared"):
            with connection.begin():
                bind_migration(connection, schema_name)
                assert connection.exec_driver_sql("SELECT current_schemas(false)").scalar_one() == [schema_name]
            with connection.begin():
                path = connection.exec_driver_sql("SHOW search_path").scalar_one()
            assert path == "pg_catalog, pg_temp"


# Connections die.


def terminate(database: Database, pid: int) -> None:
    assert database.as_superuser().execute("SELECT pg_terminate_backend(%s, 5000)", (pid,)).fetchone() == (True,)


def say_goodbye(database: Database, engine: BindingEngine) -> int:
    """Let the server end the engine's idle connection, and return its pid as soon as the client has got the message:
    PostgreSQL sends it first and closes the socket later, after the process has cleaned up.
    """
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        pid = driver.info.backend_pid
    database.as_superuser().execute("SELECT pg_terminate_backend(%s)", (pid,))
    readable, _, _ = select.select([driver.fileno()], [], [], 5)
    assert readable
    return int(pid)


def test_an_idle_connection_that_was_ended_is_noticed_before_its_next_use(
    database: Database, db: TenantDatabase, engine: BindingEngine, side: Binding
) -> None:
    """By a db transaction, by `one_statement` and by a session: none of them fails."""

    def in_a_transaction() -> int:
        with engine.begin() as connection:
            return int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())

    def in_a_session() -> int:
        with bound(side):
            pid = db.session.scalar(sa.text("SELECT pg_backend_pid()"))
            db.session.commit()
        return int(pid)

    for use in (in_a_transaction, lambda: pid_of(engine), in_a_session):
        for _ in range(2):
            ended = say_goodbye(database, engine)
            assert use() != ended


def test_a_notice_for_an_idle_connection_does_not_break_it(database: Database, engine: BindingEngine) -> None:
    """The socket has data to read, but not the server's termination."""
    channel = "tenant_schemas_test"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"LISTEN {channel}")
    database.as_superuser().execute(f"NOTIFY {channel}")  # type: ignore[arg-type]
    for _ in range(2):
        assert engine.one_statement("SELECT 1", ()) == [(1,)]


def test_a_connection_killed_inside_a_transaction_is_an_error_once(database: Database, engine: BindingEngine) -> None:
    """Its outcome is unknown, so it is not repeated; then the pool opens another connection."""
    dead = pid_of(engine)

    def be_killed() -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("SELECT 1")
            terminate(database, dead)
            connection.exec_driver_sql("SELECT 1")

    with pytest.raises(OperationalError) as raised:
        be_killed()
    assert raised.value.connection_invalidated
    with engine.begin() as connection:
        pid, path = connection.exec_driver_sql("SELECT pg_backend_pid(), current_setting('search_path')").one()
    assert pid != dead
    assert path


def test_a_session_killed_inside_a_transaction_recovers_after_rollback(
    database: Database, db: TenantDatabase, engine: BindingEngine, side: Binding
) -> None:
    with bound(side):
        dead = db.session.scalar(sa.text("SELECT pg_backend_pid()"))
        terminate(database, dead)
        with pytest.raises(OperationalError):
            db.session.scalar(sa.text("SELECT 1"))
        db.session.rollback()
        assert db.session.scalar(sa.text("SELECT pg_backend_pid()")) != dead
        db.session.rollback()


def test_one_statement_that_breaks_on_the_way_is_sent_once_more_only_if_asked(
    fresh_database: Database, logins: str
) -> None:
    with connections_to(fresh_database, logins) as connections:
        for side in (SHARED, fresh_database.tenant("eur")):
            if logins == "shared" and side is not SHARED:
                # A tenant's role may not end the pool's connections, not even its own, unless a test allows it.
                fresh_database.as_superuser().execute("GRANT pg_signal_backend TO tenant_eur")
            engine = connections.for_binding(side)
            try:
                with pytest.raises(psycopg.errors.AdminShutdown):
                    engine.one_statement(DIE_ONCE, (pid_of(engine),))
                assert engine.one_statement(DIE_ONCE, (pid_of(engine),), retry=True) == [("ok",)]
                with pytest.raises(psycopg.errors.AdminShutdown):
                    engine.one_statement("SELECT pg_terminate_backend(pg_backend_pid(), 5000)", (), retry=True)
                assert engine.one_statement("SELECT 1", ()) == [(1,)]
                assert connections.figures().retries == (2 if side is SHARED else 4)
            finally:
                fresh_database.as_superuser().execute("REVOKE pg_signal_backend FROM tenant_eur")


def test_a_statement_that_postgresql_refuses_is_not_sent_again(engine: BindingEngine) -> None:
    with sent_by(engine) as exchanges, pytest.raises(psycopg.errors.DivisionByZero):
        engine.one_statement("SELECT %s / 0", (1,), retry=True)
    assert len([exchange for exchange in exchanges if exchange[-1] == "Sync"]) == 1


def test_one_statement_that_returns_no_rows_is_done_and_says_so(connections: Connections) -> None:
    """«Raises … and then nothing was done»: a committed statement must not look like a failure."""
    email = f"{uuid4().hex}@example.com"
    insert = "INSERT INTO shared.users (email, name) VALUES (%s, %s)"
    assert connections.shared.one_statement(insert, (email, "Test Person")) == []
    count = "SELECT count(*) FROM shared.users WHERE email = %s"
    assert connections.shared.one_statement(count, (email,)) == [(1,)]
