"""Many tenants, few connections: one cap for the process, and each connection serves the tenant it was opened for."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.compiler import compiles

from tenant_schemas.connections import Connections, Limits
from tenant_schemas.context import SHARED
from tenant_schemas.errors import ConnectionsExhausted, TenancyError
from tenant_schemas.migrations.history import Migrations
from tenant_schemas.registry import increment_login_epoch
from tenant_schemas.roles import become_owner, set_tenant_login, stop_being_owner, tenant_password
from tenant_schemas.search_path import BindingEngine
from tenant_schemas.tenant import Tenant
from tenant_schemas.testing.plugin import Database, make_tenant

Opener = Callable[..., Connections]
WHO = "SELECT current_user::text, current_schema()::text"
PID = "SELECT pg_backend_pid()"


@pytest.fixture
def connect(database: Database) -> Iterator[Opener]:
    """`connect(max_connections=2)`: connections of the shared database under these limits, closed after the test."""
    with ExitStack() as stack:

        def opened(
            on: Database = database, secret: str | None = None, pool_role: str | None = None, **limits: Any
        ) -> Connections:
            given = Limits(**limits)
            connections = Connections(on.app_url, secret or on.tenant_secret, given, pool_role=pool_role)
            stack.callback(connections.close)
            return connections

        yield opened


@pytest.fixture(params=["own", "shared"])
def connect_either(request: pytest.FixtureRequest, database: Database, connect: Opener) -> Opener:
    """The same, in each login mode."""
    return partial(connect, pool_role=database.roles.pool if request.param == "shared" else None)


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
        " AND (usename IN ('wallet_app', 'wallet_pool') OR usename LIKE 'tenant_%')"
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


def test_nothing_is_opened_until_it_is_asked_for(database: Database, connect_either: Opener, eur: Tenant) -> None:
    before = backends(database)
    connections = connect_either()
    connections.engine(eur)
    assert connections.open_count == 0
    assert backends(database) <= before


def test_each_side_logs_in_as_itself(connect_either: Opener, eur: Tenant, km: Tenant) -> None:
    connections = connect_either()
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


def test_many_tenants_in_many_threads_never_hold_more_than_the_cap(
    fresh_database: Database, connect_either: Opener, tenancy_migrations: Migrations
) -> None:
    """PostgreSQL itself is asked throughout: how many of our backends are there now?"""
    cap, threads, uses = 4, 10, 5
    for slug in ("aa", "bb", "cc"):
        make_tenant(fresh_database, tenancy_migrations, slug, {})
    tenants = fresh_database.tenants()
    connections = connect_either(fresh_database, max_connections=cap, wait_seconds=30)
    connections.shared.one_statement(PID, ())  # The first check of the server, once per process, is not counted.
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
    connect_either: Opener, eur: Tenant, km: Tenant
) -> None:
    connections = connect_either(max_connections=2, max_tenant_connections=2, wait_seconds=0.1)
    with connections.engine(eur).connect(), connections.engine(km).connect():
        started = monotonic()
        for engine in (connections.shared, connections.engine(eur)):
            with pytest.raises(ConnectionsExhausted, match="2 connections of this process"):
                engine.connect()
            with pytest.raises(ConnectionsExhausted):
                engine.one_statement("SELECT 1", (), retry=True)
        assert 0.4 <= monotonic() - started < 5
        figures = connections.figures()
        assert (figures.in_use, figures.opened, figures.open, figures.closed) == ({"tenants": 2}, {"tenants": 2}, 2, 0)
        assert [kind for kind, _ in figures.waits] == ["shared", "shared", "tenants", "tenants"]
        assert min(seconds for _, seconds in figures.waits) >= 0.1
    for engine in (connections.shared, connections.engine(eur), connections.engine(km)):
        assert engine.one_statement("SELECT 1", ()) == [(1,)]


def test_who_waits_gets_the_connection_that_another_tenant_gives_back(
    connect_either: Opener, eur: Tenant, km: Tenant
) -> None:
    connections = connect_either(max_connections=1, wait_seconds=10)
    holding = connections.engine(eur).connect()
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(connections.engine(tenant).one_statement, WHO, ()) for tenant in (km, eur)]
        sleep(0.05)
        assert not any(one.done() for one in waiting)
        assert connections.figures().waiting == {"tenants": 2}
        holding.close()
        rows = [one.result() for one in waiting]
    assert rows == [[("tenant_km", "km_schema")], [("tenant_eur", "eur_schema")]]
    assert connections.open_count == 1
    figures = connections.figures()
    assert (figures.waiting["tenants"], len(figures.waits)) == (0, 2)
    assert figures.opened["tenants"] - figures.closed == 1
    assert connections.figures().waits == [], "each wait is told once"


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


def test_closing_closes_everything(database: Database, connect_either: Opener, eur: Tenant, km: Tenant) -> None:
    connections = connect_either()
    engines = [connections.shared, connections.engine(eur), connections.engine(km)]
    with ExitStack() as stack:
        for engine in engines:
            stack.enter_context(engine.connect())
    pids = [pid_of(engine) for engine in engines]
    connections.close()
    assert all(is_gone(database, pid) for pid in pids)
    assert connections.open_count == 0


# A tenant's share of the cap.


def test_a_tenant_that_uses_its_whole_share_waits_for_itself_and_nobody_else(
    connect_either: Opener, eur: Tenant, km: Tenant
) -> None:
    connections = connect_either(max_connections=4, wait_seconds=0.1)  # So one tenant's share is two.
    with connections.engine(eur).connect(), connections.engine(eur).connect() as second:
        with pytest.raises(ConnectionsExhausted, match="2 connections of this tenant"):
            connections.engine(eur).connect()
        for engine in (connections.engine(km), connections.shared):
            with engine.connect(), engine.connect():
                pass
        second.close()
        assert connections.engine(eur).one_statement("SELECT 1", ()) == [(1,)]


def test_who_waits_for_its_share_goes_on_when_its_own_connection_comes_back(
    connect_either: Opener, eur: Tenant, km: Tenant
) -> None:
    """Although other tenants wait too, and can't use that connection."""
    connections = connect_either(max_connections=2, max_tenant_connections=1, wait_seconds=10)
    own, other = connections.engine(eur).connect(), connections.engine(km).connect()
    with ThreadPoolExecutor(2) as pool:
        others = pool.submit(connections.engine(km).one_statement, WHO, ())
        sleep(0.05)
        waiting = pool.submit(connections.engine(eur).one_statement, WHO, ())
        sleep(0.05)
        own.close()
        assert waiting.result(timeout=5) == [("tenant_eur", "eur_schema")]
        assert not others.done()
        other.close()
        assert others.result(timeout=5) == [("tenant_km", "km_schema")]


@pytest.mark.parametrize(("wished", "share"), [(1, 1), ("2", 2), (99, 3), (0, 3), (-1, 3)])
def test_a_tenant_may_lower_its_share_and_not_raise_it(
    connect_either: Opener, eur: Tenant, wished: object, share: int
) -> None:
    connections = connect_either(max_connections=9, max_tenant_connections=3, wait_seconds=0.01)
    engine = connections.engine(replace(eur, settings={"max_connections": wished}))
    with ExitStack() as stack:
        for _ in range(share):
            stack.enter_context(engine.connect())
        with pytest.raises(ConnectionsExhausted, match=f"All {share} "):
            engine.connect()


def test_connections_that_break_or_can_not_be_opened_cost_nothing_of_the_share(
    connect_either: Opener, eur: Tenant
) -> None:
    connections = connect_either(max_connections=2, wait_seconds=0.1)
    for _ in range(3):
        with connections.engine(eur).connect() as connection:
            connection.invalidate()
    missing = replace(eur, role_name="tenant_nobody")
    for _ in range(3):
        with pytest.raises((psycopg.Error, TenancyError)):
            connections.engine(missing).one_statement("SELECT 1", ())
    assert connections.engine(eur).one_statement("SELECT 1", ()) == [(1,)]


def test_a_statement_that_runs_while_its_tenant_is_retired_ends_and_its_connection_is_closed(
    database: Database, connect: Opener, eur: Tenant
) -> None:
    connections = connect()
    engine = connections.engine(eur)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(engine.one_statement, "SELECT pg_backend_pid(), pg_sleep(1)", ())
        sleep(0.3)
        connections.retire(eur.id)
        pid = running.result()[0][0]
    assert is_gone(database, pid)
    assert connections.open_count == 0


def test_statements_and_db_transactions_use_the_same_connections_under_one_share(connect: Opener, eur: Tenant) -> None:
    """What one of them holds counts for the other, and what it gives back the other takes."""
    connections = connect(max_connections=2, max_tenant_connections=1, wait_seconds=0.1)
    engine = connections.engine(eur)
    pid = pid_of(engine)
    with engine.connect() as connection:
        assert connection.exec_driver_sql(PID).scalar_one() == pid
        with pytest.raises(ConnectionsExhausted):
            engine.one_statement(PID, ())
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(engine.one_statement, "SELECT pg_sleep(1)", ())
        sleep(0.3)
        with pytest.raises(ConnectionsExhausted):
            engine.connect()
        running.result()
    assert pid_of(engine) == pid


# Connections of the pool that tenants share.


def test_tenants_that_share_a_login_share_its_connections(connect: Opener, eur: Tenant, km: Tenant) -> None:
    connections = connect(pool_role="wallet_pool")
    pids = {pid_of(connections.engine(tenant)) for tenant in (eur, km, eur)}
    assert len(pids) == 1
    assert pid_of(connections.shared) not in pids


def test_a_connection_is_closed_when_it_has_served_so_many_tenants(
    database: Database, connect: Opener, eur: Tenant, km: Tenant
) -> None:
    connections = connect(pool_role="wallet_pool", tenants_per_connection=3)
    first = pid_of(connections.engine(eur))
    for tenant in (km, eur, km):
        assert pid_of(connections.engine(tenant)) == first
    assert pid_of(connections.engine(replace(eur, id=uuid4()))) == first
    assert is_gone(database, first)
    assert connections.open_count == 0
    assert pid_of(connections.engine(eur)) != first


def test_a_retired_tenant_leaves_the_connections_of_the_pool_to_the_others(
    connect: Opener, eur: Tenant, km: Tenant
) -> None:
    connections = connect(pool_role="wallet_pool")
    engine = connections.engine(eur)
    pid = pid_of(engine)
    connections.retire(eur.id)
    assert pid_of(connections.engine(km)) == pid
    assert connections.engine(eur) is not engine
    assert connections.open_count == 1
    for tenant in (eur, km):
        connections.retire(tenant.id)
    connections.close()
    assert connections.open_count == 0


def test_the_pools_login_reaches_nothing_by_itself(database: Database) -> None:
    pool = database.as_pool()
    for statement in (
        "TABLE eur_schema.wallets",
        "TABLE shared.tenants",
        "TABLE shared.users",
        "SELECT eur_schema.wallet_open_v1(gen_random_uuid(), 'EUR')",
        "CREATE TEMP TABLE scratch ()",
        "SET ROLE wallet_app",
        "SET ROLE wallet_owner",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            pool.execute(statement)
    assert pool.execute("SELECT current_schemas(true)").fetchone() == (["pg_catalog"],)


# A tenant's engine follows its row.


def test_equal_rows_have_one_engine_and_a_changed_row_has_another(database: Database, connect: Opener) -> None:
    """Reading a row twice gives two objects; the pool must treat them as equal."""
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
    """The other thread retires the pool just before this one returns the connection to the idle ones."""
    connections = connect()
    engine = connections.engine(eur)
    release = connections._store.release

    def retired_meanwhile(*arguments: Any) -> None:
        connections.retire(eur.id)
        release(*arguments)

    monkeypatch.setattr(connections._store, "release", retired_meanwhile)
    pid = pid_of(engine)
    assert is_gone(database, pid)
    assert connections.open_count == 0


def test_a_new_epoch_is_a_new_password_and_the_old_connections_are_closed(
    fresh_database: Database, connect: Opener, tenancy_migrations: Migrations
) -> None:
    """As when a leaked password is replaced: a process with the old row can't log in any more."""
    connections = connect(fresh_database)
    old = make_tenant(fresh_database, tenancy_migrations, "rotated", {})
    idle = pid_of(connections.engine(old))
    new = replace(old, login_epoch=old.login_epoch + 1)
    password = tenant_password(fresh_database.tenant_secret, new.id, new.login_epoch)
    fresh_database.as_superuser().execute(f"ALTER ROLE {new.role_name} PASSWORD '{password}'")  # type: ignore[arg-type]
    assert connections.engine(new).one_statement(WHO, ()) == [("tenant_rotated", "rotated_schema")]
    assert is_gone(fresh_database, idle)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connections.engine(old).one_statement("SELECT 1", ())


def test_an_epoch_is_raised_under_load_and_no_request_fails(
    fresh_database: Database, connect: Opener, tenancy_migrations: Migrations
) -> None:
    """The threads hold the original row, and open a connection for every statement."""
    old = make_tenant(fresh_database, tenancy_migrations, "raised", {})
    connections = connect(fresh_database, max_connections=4, max_tenant_connections=4, wait_seconds=30)
    connections.shared.one_statement(PID, ())
    done = Event()

    def work() -> int:
        count = 0
        while not done.is_set():
            with connections.engine(old).connect() as connection:
                assert tuple(connection.exec_driver_sql(WHO).one()) == ("tenant_raised", "raised_schema")
                connection.invalidate()
            count += 1
        return count

    with connections.engine(old).connect() as open_before, ThreadPoolExecutor(3) as pool:
        working = [pool.submit(work) for _ in range(3)]
        try:
            for _ in range(4):
                sleep(0.1)
                with fresh_database.admin_engine().begin() as connection:
                    become_owner(connection, fresh_database.roles)
                    new = increment_login_epoch(connection, old.id)
                    stop_being_owner(connection)
                    set_tenant_login(connection, new, fresh_database.password_of(new))
            sleep(0.1)
        finally:
            done.set()
        assert all(one.result() > 0 for one in working)
        assert open_before.exec_driver_sql("SELECT 1").scalar_one() == 1
    assert new.login_epoch == old.login_epoch + 4
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(fresh_database.url(old.role_name, fresh_database.password_of(old)))


def test_a_new_epoch_is_learned_though_all_connections_of_the_process_are_in_use(
    fresh_database: Database, connect: Opener, tenancy_migrations: Migrations
) -> None:
    """A request that needs the registry already holds the last place, so it opens a connection above the cap, once."""
    old = make_tenant(fresh_database, tenancy_migrations, "full", {})
    connections = connect(fresh_database, max_connections=1, wait_seconds=0.1)
    with fresh_database.as_superuser() as superuser:
        password = tenant_password(fresh_database.tenant_secret, old.id, 2)
        superuser.execute(f"ALTER ROLE tenant_full PASSWORD '{password}'")  # type: ignore[arg-type]
        superuser.execute("UPDATE shared.tenants SET login_epoch = 2 WHERE slug = 'full'")
    for _ in range(2):
        with connections.engine(old).connect() as connection:
            connection.invalidate()
    assert connections.open_count == 1
    assert wait_until(lambda: not backends(fresh_database))


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


# Shared by tenants, or not.


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
    connect_either: Opener, eur: Tenant, km: Tenant
) -> None:
    connections = connect_either()
    Counted.compilations = 0
    for engine in (connections.engine(eur), connections.engine(km), connections.shared):
        with engine.begin() as connection:
            assert connection.scalar(sa.select(Counted())) == 1
    assert Counted.compilations == 1


def timeouts_of(connections: Connections, tenant: Tenant) -> set[str]:
    """In a db transaction and in `one_statement`."""
    engine = connections.engine(tenant)
    with engine.begin() as connection:
        within = connection.exec_driver_sql("SHOW statement_timeout").scalar_one()
    return {within, engine.one_statement("SHOW statement_timeout", ())[0][0]}


def test_a_tenant_may_lower_its_time_out_and_not_raise_it(connect_either: Opener, eur: Tenant, km: Tenant) -> None:
    connections = connect_either(statement_timeout_ms=7_000)
    assert timeouts_of(connections, km) == {"7s"}
    assert timeouts_of(connections, replace(eur, settings={"statement_timeout_ms": 250})) == {"250ms"}
    assert timeouts_of(connections, replace(eur, settings={"statement_timeout_ms": 99_999_999})) == {"7s"}
    assert timeouts_of(connections, replace(eur, settings={"statement_timeout_ms": "3000"})) == {"3s"}
    assert timeouts_of(connections, km) == {"7s"}


def test_a_time_out_of_zero_does_not_lift_the_ceiling(connect_either: Opener, eur: Tenant) -> None:
    """For PostgreSQL 0 means no timeout."""
    connections = connect_either(statement_timeout_ms=7_000)
    assert timeouts_of(connections, replace(eur, settings={"statement_timeout_ms": 0})) == {"7s"}


def test_a_statement_that_takes_longer_than_the_time_out_is_cancelled(connect_either: Opener, eur: Tenant) -> None:
    """In a db transaction and in `one_statement`; the connection survives."""
    connections = connect_either(max_connections=1)
    engine = connections.engine(replace(eur, settings={"statement_timeout_ms": 200}))
    pid = pid_of(engine)
    with pytest.raises(psycopg.errors.QueryCanceled):
        engine.one_statement("SELECT pg_sleep(5)", (), retry=True)
    with pytest.raises(OperationalError, match="QueryCanceled"), engine.begin() as connection:
        connection.exec_driver_sql("SELECT pg_sleep(5)")
    assert pid_of(engine) == pid
