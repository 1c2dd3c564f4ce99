"""A process without requests for a tenant still closes its connections soon after the tenant's row has changed."""

import logging
from collections.abc import Callable, Iterator
from time import monotonic, sleep

import psycopg
import pytest

from tenant_schemas.connections import Connections
from tenant_schemas.registry_watcher import check_registry, start_registry_watcher
from tenant_schemas.tenant import Tenant
from tenant_schemas.testing.plugin import Database

PID = "SELECT pg_backend_pid()"


@pytest.fixture
def connections(fresh_database: Database) -> Iterator[Connections]:
    connections = Connections(fresh_database.app_url, fresh_database.tenant_secret)
    yield connections
    connections.close()


def wait_until(condition: Callable[[], bool]) -> bool:
    deadline = monotonic() + 10
    while not condition() and monotonic() < deadline:
        sleep(0.01)
    return condition()


def backends_of(database: Database, tenant: Tenant) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = %s"
    with psycopg.connect(database.url()) as superuser:
        return int((superuser.execute(query, (tenant.role_name,)).fetchone() or (0,))[0])


def change(database: Database, tenant: Tenant, what: str) -> None:
    with psycopg.connect(database.url()) as superuser:
        superuser.execute(f"UPDATE shared.tenants SET {what} WHERE id = %s", (tenant.id,))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "what", ["status = 'suspended'", "status = 'archived'", "login_epoch = 2", """settings = '{"currency": "EUR"}'"""]
)
def test_a_tenant_whose_row_changed_loses_its_connections_and_no_other_does(
    fresh_database: Database, connections: Connections, what: str
) -> None:
    eur, km = fresh_database.tenants()
    for tenant in (eur, km):
        connections.engine(tenant).one_statement(PID, ())
    check_registry(connections)
    assert connections.tenants_with_idle_connections() == [eur, km]
    change(fresh_database, eur, what)
    check_registry(connections)
    assert connections.known_tenants() == [km]
    assert wait_until(lambda: backends_of(fresh_database, eur) == 0)
    assert backends_of(fresh_database, km) == 1


def test_a_connection_in_use_is_closed_when_it_comes_back(fresh_database: Database, connections: Connections) -> None:
    eur, _ = fresh_database.tenants()
    with connections.engine(eur).begin() as connection:
        change(fresh_database, eur, "status = 'suspended'")
        check_registry(connections)
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
    assert wait_until(lambda: backends_of(fresh_database, eur) == 0)


def test_the_watch_closes_them_by_itself(fresh_database: Database, connections: Connections) -> None:
    eur, _ = fresh_database.tenants()
    connections.engine(eur).one_statement(PID, ())
    stop = start_registry_watcher(connections, 0.05)
    try:
        change(fresh_database, eur, "status = 'suspended'")
        assert wait_until(lambda: backends_of(fresh_database, eur) == 0)
    finally:
        stop.set()


def test_a_process_that_knows_no_tenant_asks_nothing(connections: Connections) -> None:
    check_registry(connections)
    assert connections.open_count == 0


def test_a_database_that_can_not_be_reached_does_not_end_the_watch(
    fresh_database: Database, connections: Connections, caplog: pytest.LogCaptureFixture
) -> None:
    eur, _ = fresh_database.tenants()
    connections.engine(eur).one_statement(PID, ())
    superuser = fresh_database.as_superuser()
    superuser.execute(f"ALTER ROLE wallet_app IN DATABASE {fresh_database.name} SET search_path TO shared")  # type: ignore[arg-type]
    with caplog.at_level(logging.ERROR, logger="tenant_schemas.worker_loop"):
        stop = start_registry_watcher(connections, 0.02)
        try:
            assert wait_until(lambda: len(caplog.records) > 2)
            superuser.execute(f"ALTER ROLE wallet_app IN DATABASE {fresh_database.name} RESET search_path")  # type: ignore[arg-type]
            change(fresh_database, eur, "status = 'suspended'")
            assert wait_until(lambda: backends_of(fresh_database, eur) == 0)
        finally:
            stop.set()


def test_an_interval_of_zero_watches_nothing(fresh_database: Database, connections: Connections) -> None:
    eur, _ = fresh_database.tenants()
    connections.engine(eur).one_statement(PID, ())
    start_registry_watcher(connections, 0)
    change(fresh_database, eur, "status = 'suspended'")
    sleep(0.1)
    assert connections.known_tenants() == [eur]
