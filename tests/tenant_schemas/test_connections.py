"""Many tenants, few connections: one cap for the process, and each connection of the tenant it was opened for."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.compiler import compiles

from app.tenancy import MIGRATIONS
from tenant_schemas.connections import Connections, Limits
from tenant_schemas.context import SHARED
from tenant_schemas.errors import ConnectionsExhausted
from tenant_schemas.roles import tenant_password
from tenant_schemas.search_path import BindingEngine
from tenant_schemas.tenant import Tenant
from tenant_schemas.testing import Database, make_tenant

Opener = Callable[..., Connections]
WHO = "SELECT current_user::text, current_schema()::text"
PID = "SELECT pg_backend_pid()"


@pytest.fixture
def connect(database: Database) -> Iterator[Opener]:
    """`connect(max_connections=2)`: connections of the shared database under these limits, closed after the test."""
    with ExitStack() as stack:

        def opened(on: Database = database, secret: str | None = None, **limits: Any) -> Connections:
            connections = Connections(on.app_url, secret or on.tenant_secret, Limits(**limits))
            stack.callback(connections.close)
            return connections

        yield opened


@pytest.fixture(scope="module")
def eur(database: Database) -> Tenant:
    return database.tenant("eur")


@pytest.fixture(scope="module")
def km(database: Database) -> Tenant:
    return database.tenant("km")


def pid_of(engine: BindingEngine) -> int:
    return engine.one_statement(PID, ())[0][0]


def backends(database: Database) -> set[int]:
    """The service's backends in this database."""
    query = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND (usename = 'wallet_app' OR usename LIKE 'tenant_%')"
    )
    with psycopg.connect(database.url()) as superuser:
        return {pid for (pid,) in superuser.execute(query)}


def wait_until(condition: Callable[[], bool]) -> bool:
    """A backend needs a moment to notice that its client has closed the connection."""
    deadline = monotonic() + 5
    while not condition():
        if monotonic() > deadline:
            return False
        sleep(0.01)
    return True


def is_gone(database: Database, pid: int) -> bool:
    return wait_until(lambda: pid not in backends(database))


def test_nothing_is_opened_until_it_is_asked_for(database: Database, connect: Opener, eur: Tenant) -> None:
    before = backends(database)
    connections = connect()
    connections.engine(eur)
    assert connections.open_count == 0
    assert backends(database) <= before


def test_each_side_logs_in_as_itself(connect: Opener, eur: Tenant, km: Tenant) -> None:
    connections = connect()
    for binding, expected in (
        (SHARED, ("wallet_app", "pg_catalog")),
        (eur, ("tenant_eur", "eur_schema")),
        (km, ("tenant_km", "km_schema")),
    ):
        engine = connections.for_binding(binding)
        assert engine.one_statement(WHO, ()) == [expected]
        with engine.begin() as connection:
            assert tuple(connection.exec_driver_sql(WHO).one()) == expected


# The cap.


def test_many_tenants_in_many_threads_never_hold_more_than_the_cap(fresh_database: Database, connect: Opener) -> None:
    """PostgreSQL itself is asked, all the while: how many are at work for us now?"""
    cap, threads, uses = 4, 10, 5
    for slug in ("aa", "bb", "cc"):
        make_tenant(fresh_database, MIGRATIONS, slug, {})
    tenants = fresh_database.tenants()
    connections = connect(fresh_database, max_connections=cap, wait_seconds=30)
    connections.shared.one_statement(PID, ())  # The first look at the server, once in a process, is not counted.
    done = Event()
    at_work = [0]

    def watch() -> None:
        query = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()"
        )
        with psycopg.connect(fresh_database.url(), autocommit=True) as superuser:
            while not done.wait(0.005):
                at_work.extend(superuser.execute(query).fetchone() or ())

    def work(number: int) -> None:
        for use in range(uses):
            tenant = tenants[(number + use) % len(tenants)]
            with connections.engine(tenant).begin() as connection:
                row = connection.exec_driver_sql(f"{WHO}, pg_sleep(0.03)").one()
            assert tuple(row[:2]) == (tenant.role_name, tenant.schema_name)
            if use % 3 == 0:
                assert connections.shared.one_statement(WHO, ()) == [("wallet_app", "pg_catalog")]
            assert connections.open_count <= cap

    watcher = Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(threads) as pool:
            for finished in [pool.submit(work, number) for number in range(threads)]:
                finished.result()
    finally:
        done.set()
        watcher.join()
    assert 2 <= max(at_work) <= cap
    assert connections.open_count == cap
    assert wait_until(lambda: len(backends(fresh_database)) == cap)


def test_the_connection_that_was_idle_longest_makes_room(
    database: Database, connect: Opener, eur: Tenant, km: Tenant
) -> None:
    connections = connect(max_connections=2)
    shared, eur_pid = pid_of(connections.shared), pid_of(connections.engine(eur))
    assert pid_of(connections.shared) == shared  # Used again, so now eur's is the oldest.
    km_pid = pid_of(connections.engine(km))
    assert is_gone(database, eur_pid)
    assert pid_of(connections.shared) == shared
    assert pid_of(connections.engine(km)) == km_pid
    assert connections.open_count == 2


def test_a_connection_in_use_is_never_closed_to_make_room(connect: Opener, eur: Tenant, km: Tenant) -> None:
    connections = connect(max_connections=2, wait_seconds=0.1)
    with connections.engine(eur).begin() as connection:
        pid = connection.exec_driver_sql(PID).scalar_one()
        for engine in (connections.shared, connections.engine(km), connections.shared):
            engine.one_statement("SELECT 1", ())
        assert connection.exec_driver_sql(PID).scalar_one() == pid


def test_when_all_are_in_use_the_wait_ends_in_an_error_and_costs_nothing(
    connect: Opener, eur: Tenant, km: Tenant
) -> None:
    connections = connect(max_connections=2, wait_seconds=0.1)
    with connections.engine(eur).connect(), connections.engine(km).connect():
        started = monotonic()
        for engine in (connections.shared, connections.engine(eur)):
            with pytest.raises(ConnectionsExhausted, match="2 connections"):
                engine.connect()
            with pytest.raises(ConnectionsExhausted):
                engine.one_statement("SELECT 1", (), retry=True)
        assert 0.4 <= monotonic() - started < 5
    for engine in (connections.shared, connections.engine(eur), connections.engine(km)):
        assert engine.one_statement("SELECT 1", ()) == [(1,)]


def test_who_waits_gets_the_connection_that_another_tenant_gives_back(connect: Opener, eur: Tenant, km: Tenant) -> None:
    connections = connect(max_connections=1, wait_seconds=10)
    holding = connections.engine(eur).connect()
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(connections.engine(tenant).one_statement, WHO, ()) for tenant in (km, eur)]
        sleep(0.05)
        assert not any(one.done() for one in waiting)
        holding.close()
        rows = [one.result() for one in waiting]
    assert rows == [[("tenant_km", "km_schema")], [("tenant_eur", "eur_schema")]]
    assert connections.open_count == 1


@pytest.mark.parametrize("end", ["broken", "retired"])
def test_who_waits_gets_the_place_of_a_connection_that_ends(connect: Opener, eur: Tenant, km: Tenant, end: str) -> None:
    connections = connect(max_connections=1, wait_seconds=3)
    holding = connections.engine(eur).connect()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(connections.engine(km).one_statement, WHO, ())
        sleep(0.05)
        if end == "broken":
            holding.invalidate()
        else:
            connections.retire(eur.id)
        holding.close()
        assert waiting.result() == [("tenant_km", "km_schema")]


def test_connections_that_can_not_be_opened_cost_nothing_of_the_cap(connect: Opener, eur: Tenant) -> None:
    connections = connect(max_connections=1, wait_seconds=0.1)
    stranger = replace(eur, id=uuid4())  # So its password is another.
    for _ in range(3):
        with pytest.raises(OperationalError):
            connections.engine(stranger).connect()
        with pytest.raises(psycopg.OperationalError):
            connections.engine(stranger).one_statement("SELECT 1", ())
    assert connections.open_count == 0
    assert connections.engine(eur).one_statement("SELECT 1", ()) == [(1,)]


def test_closing_closes_everything(database: Database, connect: Opener, eur: Tenant, km: Tenant) -> None:
    connections = connect()
    engines = [connections.shared, connections.engine(eur), connections.engine(km)]
    with ExitStack() as stack:
        for engine in engines:
            stack.enter_context(engine.connect())
    pids = [pid_of(engine) for engine in engines]
    connections.close()
    assert all(is_gone(database, pid) for pid in pids)
    assert connections.open_count == 0


# A tenant's engine follows its row.


def test_equal_rows_have_one_engine_and_a_changed_row_has_another(database: Database, connect: Opener) -> None:
    """Read twice, a row is two objects; the pool must not notice."""
    connections = connect()
    first = database.tenant("eur")
    engine = connections.engine(first)
    assert connections.engine(database.tenant("eur")) is engine
    assert connections.engine(database.tenant("km")) is not engine
    for changed in ({"settings": {"statement_timeout_ms": 1}}, {"login_epoch": 2}, {"schema_name": "elsewhere"}):
        assert connections.engine(replace(first, **changed)) is not engine


def test_retiring_closes_idle_connections_now_and_those_in_use_when_they_come_back(
    database: Database, connect: Opener, eur: Tenant, km: Tenant
) -> None:
    connections = connect()
    engine = connections.engine(eur)
    with engine.connect() as in_use:
        idle = pid_of(engine)
        others = pid_of(connections.engine(km))
        connections.retire(eur.id)
        assert is_gone(database, idle)
        pid = in_use.exec_driver_sql(PID).scalar_one()
    assert is_gone(database, pid)
    assert connections.open_count == 1
    assert pid_of(connections.engine(km)) == others
    assert connections.engine(eur) is not engine
    connections.retire(uuid4())  # Unknown: nothing to do.


def test_a_connection_that_comes_back_while_its_pool_retires_is_closed_too(
    database: Database, connect: Opener, eur: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other thread retires the pool just before this one puts the connection among the idle ones."""
    connections = connect()
    engine = connections.engine(eur)
    give = connections._store.give

    def retired_meanwhile(*arguments: Any) -> None:
        connections.retire(eur.id)
        give(*arguments)

    monkeypatch.setattr(connections._store, "give", retired_meanwhile)
    pid = pid_of(engine)
    assert is_gone(database, pid)
    assert connections.open_count == 0


def test_a_new_epoch_is_a_new_password_and_the_old_connections_are_closed(
    fresh_database: Database, connect: Opener
) -> None:
    """As when a leaked password is replaced: who still has the old row can't log in any more."""
    connections = connect(fresh_database)
    old = make_tenant(fresh_database, MIGRATIONS, "rotated", {})
    idle = pid_of(connections.engine(old))
    new = replace(old, login_epoch=old.login_epoch + 1)
    password = tenant_password(fresh_database.tenant_secret, new.id, new.login_epoch)
    fresh_database.as_superuser().execute(f"ALTER ROLE {new.role_name} PASSWORD '{password}'")  # type: ignore[arg-type]
    assert connections.engine(new).one_statement(WHO, ()) == [("tenant_rotated", "rotated_schema")]
    assert is_gone(fresh_database, idle)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connections.engine(old).one_statement("SELECT 1", ())


def test_another_master_secret_logs_in_as_nobody(connect: Opener, eur: Tenant, km: Tenant) -> None:
    connections = connect(secret="another secret, of 32 characters or more")
    for tenant in (eur, km):
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            connections.engine(tenant).one_statement("SELECT 1", ())
    assert connections.shared.one_statement("SELECT 1", ()) == [(1,)]


def test_the_password_of_one_tenant_opens_no_other(database: Database, eur: Tenant, km: Tenant) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(database.url(km.role_name, database.password_of(eur)))


def test_a_tenants_password_is_not_in_what_its_engine_says_of_itself(
    database: Database, connect: Opener, eur: Tenant
) -> None:
    engine = connect().engine(eur)
    assert database.password_of(eur) not in f"{engine!r} {engine.url!r} {engine.url}"


# What tenants share, and what they don't.


class Counted(sa.sql.functions.GenericFunction[int]):
    """An expression that counts how often it is compiled."""

    inherit_cache = True
    name = "counted"
    type = sa.Integer()
    compilations = 0


@compiles(Counted)
def compile_counted(element: Counted, compiler: Any, **options: Any) -> str:
    Counted.compilations += 1
    return "1"


def test_a_statement_that_was_compiled_for_one_tenant_is_compiled_for_all(
    connect: Opener, eur: Tenant, km: Tenant
) -> None:
    connections = connect()
    for engine in (connections.engine(eur), connections.engine(km), connections.shared):
        with engine.begin() as connection:
            assert connection.scalar(sa.select(Counted())) == 1
    assert Counted.compilations == 1


def timeouts_of(connections: Connections, tenant: Tenant) -> set[str]:
    """In a transaction and in one statement."""
    engine = connections.engine(tenant)
    with engine.begin() as connection:
        within = connection.exec_driver_sql("SHOW statement_timeout").scalar_one()
    return {within, engine.one_statement("SHOW statement_timeout", ())[0][0]}


def test_a_tenant_may_lower_its_time_out_and_not_raise_it(connect: Opener, eur: Tenant, km: Tenant) -> None:
    connections = connect(statement_timeout_ms=7_000)
    assert timeouts_of(connections, km) == {"7s"}
    assert timeouts_of(connections, replace(eur, settings={"statement_timeout_ms": 250})) == {"250ms"}
    assert timeouts_of(connections, replace(eur, settings={"statement_timeout_ms": 99_999_999})) == {"7s"}
    assert timeouts_of(connections, replace(eur, settings={"statement_timeout_ms": "3000"})) == {"3s"}
    assert timeouts_of(connections, km) == {"7s"}


def test_a_time_out_of_zero_does_not_lift_the_ceiling(connect: Opener, eur: Tenant) -> None:
    """To PostgreSQL 0 means no time-out at all."""
    connections = connect(statement_timeout_ms=7_000)
    assert timeouts_of(connections, replace(eur, settings={"statement_timeout_ms": 0})) == {"7s"}


def test_a_statement_that_takes_longer_than_the_time_out_is_cancelled(connect: Opener, eur: Tenant) -> None:
    """In a transaction and in one statement; the connection lives on."""
    connections = connect(max_connections=1)
    engine = connections.engine(replace(eur, settings={"statement_timeout_ms": 200}))
    pid = pid_of(engine)
    with pytest.raises(psycopg.errors.QueryCanceled):
        engine.one_statement("SELECT pg_sleep(5)", (), retry=True)
    with pytest.raises(OperationalError, match="QueryCanceled"), engine.begin() as connection:
        connection.exec_driver_sql("SELECT pg_sleep(5)")
    assert pid_of(engine) == pid
