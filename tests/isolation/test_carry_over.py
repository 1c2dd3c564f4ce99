"""A pooled connection carries no state from one use to the next, however the previous use ended."""

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from threading import Barrier
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from flask import Flask, Response
from greenlet import greenlet
from psycopg import pq

from app import create_app
from app.db import db
from tenant_schemas.connections import Connections
from tenant_schemas.context import SHARED, current_tenant
from tenant_schemas.errors import NotBound
from tenant_schemas.flask import EXTENSION, tenant_context
from tenant_schemas.search_path import BindingEngine
from tenant_schemas.tenant import Tenant
from tenant_schemas.testing.plugin import Database
from tests.conftest import settings_for

pytestmark = pytest.mark.changes_roles

# All state that a use could leave in its session, except its role.
STATE = """
    SELECT current_user::text, current_setting('search_path'), current_setting('statement_timeout'),
        current_setting('idle_in_transaction_session_timeout'), current_setting('lock_timeout'),
        current_setting('transaction_isolation'), current_setting('transaction_read_only'),
        current_setting('TimeZone'), (SELECT count(*) FROM pg_cursors WHERE name <> ''),
        pg_my_temp_schema(), (SELECT count(*) FROM pg_listening_channels())"""
WHO = "SELECT current_user::text, current_schema()::text"


@pytest.fixture(scope="module")
def small_app(database: Database, tenant_logins: str) -> Iterator[Flask]:
    """The application with a limit of two connections, so that the next use gets the connection of the previous one."""
    changed: dict[str, Any] = {"max_connections": 2, "max_tenant_connections": 1, "connection_wait_seconds": 2}
    app = create_app(settings_for(database, tenant_logins=tenant_logins, **changed))
    yield app
    app.extensions[EXTENSION].close()


@pytest.fixture
def connections(small_app: Flask) -> Connections:
    connections: Connections = small_app.extensions[EXTENSION]
    return connections


@pytest.fixture
def eur(database: Database) -> Tenant:
    return database.tenant("eur")


@pytest.fixture
def km(database: Database) -> Tenant:
    return database.tenant("km")


def state(engine: BindingEngine) -> tuple[Any, ...]:
    with engine.begin() as connection:
        return tuple(connection.exec_driver_sql(STATE).one())


def session_of(engine: BindingEngine) -> psycopg.Connection[Any]:
    with engine.connect() as connection:
        driver: psycopg.Connection[Any] = connection.connection.driver_connection
        return driver


class Fault(Exception):
    """Raised on purpose."""


def run(engine: BindingEngine, *statements: str, then: Exception | None = None) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
        if then is not None:
            raise then


def raised_in_python(engine: BindingEngine, _: Database) -> None:
    with pytest.raises(Fault):
        run(engine, "SET LOCAL lock_timeout TO 77", then=Fault())


def raised_in_postgresql(engine: BindingEngine, _: Database) -> None:
    with pytest.raises(sa.exc.DataError):
        run(engine, "SET LOCAL lock_timeout TO 77", "SELECT 1 / 0")


def left_open(engine: BindingEngine, _: Database) -> None:
    with engine.connect() as connection:
        connection.exec_driver_sql("SET LOCAL search_path TO shared")


def rolled_back_savepoint(engine: BindingEngine, _: Database) -> None:
    with engine.begin() as connection:
        before = connection.exec_driver_sql(STATE).one()
        savepoint = connection.begin_nested()
        connection.exec_driver_sql("SET LOCAL search_path TO shared")
        savepoint.rollback()
        assert connection.exec_driver_sql(STATE).one() == before


def cancelled_by_time_out(engine: BindingEngine, _: Database) -> None:
    with pytest.raises(sa.exc.OperationalError, match="statement timeout"):
        run(engine, "SET LOCAL statement_timeout TO 20", "SELECT pg_sleep(5)")


def killed_inside(engine: BindingEngine, database: Database) -> None:
    def be_killed() -> None:
        with engine.begin() as connection:
            pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            database.as_superuser().execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
            connection.exec_driver_sql("SELECT 1")

    with pytest.raises(sa.exc.OperationalError):
        be_killed()


def killed_while_idle(engine: BindingEngine, database: Database) -> None:
    pid = session_of(engine).info.backend_pid
    database.as_superuser().execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))


def forgotten(engine: BindingEngine, _: Database) -> None:
    """Not closed until Python's garbage collector finds it."""
    connection = engine.connect()
    connection.exec_driver_sql("SET LOCAL search_path TO shared")
    del connection
    gc.collect()


def isolated_and_read_only(engine: BindingEngine, _: Database) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY")
        connection.exec_driver_sql("SELECT 1")


def cursor_half_read(engine: BindingEngine, _: Database) -> None:
    with (
        engine.connect() as connection,
        connection.execution_options(yield_per=10).exec_driver_sql("SELECT generate_series(1, 1000)") as rows,
    ):
        assert next(iter(rows))[0] == 1


def one_statement_refused(engine: BindingEngine, _: Database) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        engine.one_statement("SELECT %s / 0", (1,))


def ended_by_a_statement_of_its_own(engine: BindingEngine, _: Database) -> None:
    """COMMIT by raw SQL: later statements have lost the binding and reach less, never more."""
    with engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")
        with pytest.raises(sa.exc.ProgrammingError):
            connection.exec_driver_sql("SELECT * FROM km_schema.wallets")


End = Callable[[BindingEngine, Database], None]
ENDS: tuple[End, ...] = (
    *(raised_in_python, raised_in_postgresql, left_open, rolled_back_savepoint, cancelled_by_time_out),
    *(killed_inside, killed_while_idle, forgotten, isolated_and_read_only, cursor_half_read, one_statement_refused),
    ended_by_a_statement_of_its_own,
)


@pytest.mark.parametrize("end", ENDS)
def test_the_next_use_finds_what_the_first_one_found(
    database: Database,
    connections: Connections,
    eur: Tenant,
    km: Tenant,
    end: Callable[[BindingEngine, Database], None],
) -> None:
    """The next use is by the same tenant, the other tenant or the shared side. The idle connection has no open db
    transaction.
    """
    engines = [connections.for_binding(binding) for binding in (eur, km, SHARED)]
    before = [state(engine) for engine in engines]
    end(engines[0], database)
    assert session_of(engines[0]).info.transaction_status is pq.TransactionStatus.IDLE
    assert [state(engine) for engine in engines] == before
    assert connections.open_count <= 2


def test_between_uses_the_session_that_tenants_share_is_nobody(
    tenant_logins: str, connections: Connections, eur: Tenant
) -> None:
    """After COMMIT and after ROLLBACK the session has no role, no search_path and no privilege."""
    if tenant_logins == "own":
        pytest.skip("With logins of their own, sessions always have the tenant's role.")
    engine = connections.engine(eur)
    for end in ("commit", "rollback"):
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT 1")
            getattr(connection, end)()
        session = session_of(engine)
        row = session.execute("SELECT current_user::text, current_schemas(true)").fetchone()
        assert row == ("wallet_pool", ["pg_catalog"])
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("TABLE eur_schema.wallets")


def test_a_statement_prepared_for_one_tenant_reads_the_others_own_tables(
    connections: Connections, eur: Tenant, km: Tenant
) -> None:
    """psycopg prepares a statement at its sixth use on a connection. PostgreSQL plans it again if search_path or role
    changed.
    """
    query = "SELECT tableoid::regclass::text, current_user::text FROM (SELECT tableoid FROM ledger_accounts LIMIT 1) a"
    for _ in range(12):
        for tenant in (eur, km):
            with connections.engine(tenant).begin() as connection:
                found = connection.exec_driver_sql(query).all()
            assert found == [("ledger_accounts", tenant.role_name)]
            with connections.engine(tenant).begin() as connection:
                oid = "SELECT DISTINCT tableoid::bigint FROM ledger_accounts"
                named = "SELECT to_regclass(%s)::oid::bigint"
                assert (
                    connection.exec_driver_sql(oid).all()
                    == connection.exec_driver_sql(named, (f"{tenant.schema_name}.ledger_accounts",)).all()
                )


def test_threads_that_alternate_between_tenants_never_meet_the_other(app: Flask, eur: Tenant, km: Tenant) -> None:
    barrier = Barrier(4)

    def work(number: int) -> None:
        barrier.wait()
        for use in range(40):
            tenant = (eur, km)[(number + use) % 2]
            with app.app_context(), tenant_context(tenant):
                row = db.session.execute(sa.text(WHO)).one()
                (db.session.commit if use % 3 else db.session.rollback)()
            assert tuple(row) == (tenant.role_name, tenant.schema_name)

    with ThreadPoolExecutor(4) as pool:
        for finished in [pool.submit(work, number) for number in range(4)]:
            finished.result()


def test_greenlets_that_switch_inside_their_db_transactions_never_meet_the_other(
    app: Flask, eur: Tenant, km: Tenant
) -> None:
    """Each greenlet has its own context, as with gevent."""
    found: list[tuple[str, tuple[str, str]]] = []

    def work(tenant: Tenant, switch: Callable[[], None]) -> None:
        with app.app_context(), tenant_context(tenant):
            for _ in range(5):
                row = db.session.execute(sa.text(WHO)).one()
                switch()
                assert current_tenant() == tenant
                assert tuple(db.session.execute(sa.text(WHO)).one()) == tuple(row)
                found.append((tenant.role_name, tuple(row)))
                db.session.commit()
                switch()

    main = greenlet.getcurrent()
    workers = [greenlet(work) for _ in range(2)]
    for tenant, worker in zip((eur, km), workers, strict=True):
        worker.gr_context = Context()
        worker.switch(tenant, main.switch)
    while not all(worker.dead for worker in workers):
        for worker in workers:
            if not worker.dead:
                worker.switch()
    assert len(found) == 10
    assert {(role, row) for role, row in found} == {
        (tenant.role_name, (tenant.role_name, tenant.schema_name)) for tenant in (eur, km)
    }


def test_a_thread_that_a_bound_one_starts_has_no_tenant(app: Flask, eur: Tenant) -> None:
    """Its query fails and does not fall back to the shared side, unless the thread is given the context explicitly."""

    def read() -> str:
        with app.app_context():
            return str(db.session.scalar(sa.text("SELECT current_user::text")))

    with app.app_context(), tenant_context(eur), ThreadPoolExecutor(1) as pool:
        with pytest.raises(NotBound):
            pool.submit(read).result()
        assert pool.submit(copy_context().run, read).result() == "tenant_eur"


def test_a_streamed_answer_cut_off_halfway_leaves_nothing(
    small_app: Flask, connections: Connections, eur: Tenant
) -> None:
    """The client disconnects between two chunks, and the server closes the response."""
    engine = connections.engine(eur)
    before = state(engine)

    def pieces() -> Iterator[str]:
        with engine.connect() as connection, connection.begin():
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            query = "SELECT generate_series(1, 5000)"
            with connection.execution_options(yield_per=10).exec_driver_sql(query) as rows:
                for (number,) in rows:
                    yield str(number)

    with small_app.test_request_context():
        answer = Response(pieces())
        stream = iter(answer.response)
        assert [next(stream) for _ in range(15)][-1] == "15"
        answer.close()
        stream.close()  # type: ignore[attr-defined]
    assert state(engine) == before
    assert session_of(engine).info.transaction_status is pq.TransactionStatus.IDLE


# Attempts of a SELECT to change the session.

ESCAPES = (
    "SELECT set_config('role', 'tenant_km', {local})",
    "SELECT set_config('search_path', 'km_schema', {local})",
    "SELECT query_to_xml('SELECT set_config(''role'', ''tenant_km'', {local})', true, true, '')",
    "SELECT query_to_xml('SET ROLE tenant_km', true, true, '')",
    "SELECT * FROM ts_stat('SELECT set_config(''role'', ''tenant_km'', {local})::tsvector')",
    "SELECT * FROM ts_stat('SET ROLE tenant_km')",
    "SELECT ts_rewrite('a'::tsquery, 'SET ROLE tenant_km')",
    "SELECT query_to_xml('RESET ROLE', true, true, '')",
    "WITH x AS (UPDATE pg_settings SET setting = 'km_schema' WHERE name = 'search_path' RETURNING 1) TABLE x",
    "SELECT 1; SET ROLE tenant_km",
)


@pytest.mark.parametrize("escape", ESCAPES)
def test_no_select_changes_who_or_where_the_session_is(
    connections: Connections, eur: Tenant, km: Tenant, escape: str
) -> None:
    engine = connections.engine(eur)
    before = state(engine)
    for statement in {escape.format(local=local) for local in ("true", "false")}:
        with pytest.raises(psycopg.Error) as refused:
            engine.one_statement(statement, ())  # type: ignore[arg-type]
        assert refused.value.sqlstate in {"42501", "0A000", "42601", "42P11", "22023"}, refused.value
        with pytest.raises(sa.exc.DBAPIError), engine.begin() as connection:
            connection.exec_driver_sql(statement)
    assert state(engine) == before
    assert connections.engine(km).one_statement(WHO, ()) == [("tenant_km", "km_schema")]


def test_whoever_chooses_the_whole_statement_reaches_what_its_login_reaches(
    tenant_logins: str, connections: Connections, eur: Tenant, km: Tenant
) -> None:
    """This is the difference between the login modes, and the reason for the default: a login for each tenant."""
    with connections.engine(eur).connect() as connection:
        if tenant_logins == "own":
            with pytest.raises(sa.exc.ProgrammingError, match="permission denied to set role"):
                connection.exec_driver_sql("SET ROLE tenant_km")
            return
        connection.exec_driver_sql("SET ROLE tenant_km")
        assert connection.exec_driver_sql("SELECT current_user::text").scalar_one() == "tenant_km"
    with connections.engine(eur).begin() as connection:
        assert tuple(connection.exec_driver_sql(WHO).one()) == ("tenant_eur", "eur_schema")


@pytest.mark.parametrize("other", ["wallet_app", "wallet_owner", "wallet_migrator", "wallet_backup", "postgres"])
def test_the_whole_statement_reaches_no_role_of_the_service(connections: Connections, eur: Tenant, other: str) -> None:
    for statement in (f"SET ROLE {other}", f"SET SESSION AUTHORIZATION {other}"):
        with (
            pytest.raises(sa.exc.ProgrammingError, match="permission denied"),
            connections.engine(eur).begin() as connection,
        ):
            connection.exec_driver_sql(statement)


SETTINGS = {
    "lock_timeout": "1",
    "default_transaction_read_only": "on",
    "synchronous_commit": "off",
    "row_security": "off",
    "TimeZone": "Asia/Kathmandu",
    "client_encoding": "LATIN1",
    "audit.actor": '{"kind": "operator"}',
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_a_statement_sets_for_the_session_is_no_other_tenants(
    connections: Connections, eur: Tenant, km: Tenant, setting: str
) -> None:
    look = f"SELECT current_setting('{setting}', true)"
    with connections.engine(km).begin() as connection:
        before = connection.exec_driver_sql(look).scalar_one() or ""
    with connections.engine(eur).begin() as connection:
        connection.exec_driver_sql(f"SET SESSION {setting} TO '{SETTINGS[setting]}'")
    with connections.engine(km).begin() as connection:
        assert (connection.exec_driver_sql(look).scalar_one() or "") == before


def test_what_one_tenant_prepared_is_not_run_for_another(connections: Connections, eur: Tenant, km: Tenant) -> None:
    query = "SELECT count(*) FROM wallets WHERE false"
    for _ in range(8):
        run(connections.engine(km), query)
    with connections.engine(eur).begin() as connection:
        for number in range(3):
            connection.exec_driver_sql(f"PREPARE _pg3_{number + 10} AS SELECT 4242")
        if connection.exec_driver_sql("SELECT count(*) FROM pg_prepared_statements WHERE name = '_pg3_0'").scalar_one():
            connection.exec_driver_sql("DEALLOCATE _pg3_0")
            connection.exec_driver_sql("PREPARE _pg3_0 AS SELECT 4242")
    for _ in range(8):
        with connections.engine(km).begin() as connection:
            assert connection.exec_driver_sql(query).scalar_one() == 0
