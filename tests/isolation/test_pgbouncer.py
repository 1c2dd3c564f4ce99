"""Behind PgBouncer in transaction mode, where each db transaction may get another server connection, every answer is
from the right tenant, in both login modes.

Needs the program `pgbouncer` (Debian's package of that name). It runs as `docs/installation.md` says, with two server
connections for each login, so that clients alternate on them constantly.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from flask import Flask

from app import create_app
from app.db import db
from tenant_schemas.flask import EXTENSION, connections, tenant_context
from tenant_schemas.search_path import IS_OWN_SESSION
from tenant_schemas.tenant import Tenant
from tenant_schemas.testing.plugin import Database
from tests.conftest import settings_for
from tests.factories.api import Api
from tests.factories.people import People
from tests.factories.pgbouncer import needs_pgbouncer, running_pgbouncer

pytestmark = needs_pgbouncer
THREADS, ROUNDS = 8, 25


@pytest.fixture(scope="module")
def pgbouncer(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the shared side through PgBouncer."""
    with running_pgbouncer(tmp_path_factory.mktemp("pgbouncer"), database, default_pool_size="2") as url:
        yield url


@pytest.fixture(scope="module")
def behind(pgbouncer: str, database: Database, tenant_logins: str) -> Iterator[Flask]:
    """The application behind PgBouncer."""
    changed: dict[str, Any] = {"statement_timeout_ms": 7_000, "idle_in_transaction_timeout_ms": 9_000}
    app = create_app(settings_for(database, tenant_logins=tenant_logins, database_url=pgbouncer, **changed))
    yield app
    app.extensions[EXTENSION].close()


@pytest.fixture
def tenants(database: Database) -> tuple[Tenant, Tenant]:
    return database.tenant("eur"), database.tenant("km")


WHO = "SELECT current_user::text, current_schema()::text, pg_backend_pid()"


def test_every_answer_is_the_right_tenants_though_server_connections_change_hands(
    behind: Flask, tenants: tuple[Tenant, Tenant], tenant_logins: str
) -> None:
    """By sessions that commit and roll back, and by `one_statement`."""
    barrier, pids = threading.Barrier(THREADS), set()

    def work(number: int) -> None:
        barrier.wait()
        for use in range(ROUNDS):
            tenant = tenants[(number + use) % 2]
            with behind.app_context(), tenant_context(tenant):
                found = [tuple(db.session.execute(sa.text(WHO)).one()), tuple(db.session.execute(sa.text(WHO)).one())]
                (db.session.commit if use % 3 else db.session.rollback)()
                found += connections().engine(tenant).one_statement(WHO, (), retry=True)
                currency = (
                    connections()
                    .engine(tenant)
                    .one_statement(
                        "SELECT tableoid::regclass::oid = to_regclass(%s)::oid FROM ledger_accounts LIMIT 1",
                        (f"{tenant.schema_name}.ledger_accounts",),
                    )
                )
            assert {row[:2] for row in found} == {(tenant.role_name, tenant.schema_name)}
            assert currency == [(True,)]
            pids.update((row[2]) for row in found)

    with ThreadPoolExecutor(THREADS) as pool:
        for finished in [pool.submit(work, number) for number in range(THREADS)]:
            finished.result()
    assert 1 < len(pids) <= (2 if tenant_logins == "shared" else 4)  # Many clients, few servers.


def test_requests_move_money_of_the_right_tenant(behind: Flask) -> None:
    """Through the whole application, which elsewhere prepares repeated statements."""
    api, person = Api(behind), People(behind).make(eur="admin", km="admin")
    wallets = {slug: People(behind).wallet(person, slug) for slug in ("eur", "km")}
    for number in range(1, 9):
        for slug, wallet_id in wallets.items():
            answer = api.post(f"/api/admin/wallets/{wallet_id}/deposits", person, slug, json={"amount": "1.00"})
            assert answer.status_code == 201, answer.get_json()
            assert answer.get_json()["tenantId"] == slug
            assert answer.get_json()["balanceAfter"] == f"{number}.00"


def test_behind_pgbouncer_nothing_depends_on_the_session(behind: Flask, tenants: tuple[Tenant, Tenant]) -> None:
    """PgBouncer drops the timeouts that a connection requests at its start. So every db transaction sets them, even for
    one statement, and nothing is prepared.
    """
    names = ("statement_timeout", "idle_in_transaction_session_timeout", "TimeZone", "search_path")
    query = "SELECT " + ", ".join(f"current_setting('{name}')" for name in names)
    own: Any = behind.extensions[EXTENSION]
    for engine, path in ((own.shared, "pg_catalog"), *((own.engine(one), one.schema_name) for one in tenants)):
        expected = ("7s", "9s", "UTC", f"{path}, pg_temp")
        for _ in range(8):
            assert engine.one_statement(query, ()) == [expected]
            with engine.begin() as connection:
                assert tuple(connection.exec_driver_sql(query).one()) == expected
        with engine.connect() as connection:
            assert connection.connection.info[IS_OWN_SESSION] is False
            assert connection.connection.driver_connection.prepare_threshold is None
            assert connection.exec_driver_sql("SELECT count(*) FROM pg_prepared_statements").scalar_one() == 0


def test_a_login_starts_in_its_own_schema_behind_pgbouncer_too(
    behind: Flask, database: Database, pgbouncer: str, tenants: tuple[Tenant, Tenant], tenant_logins: str
) -> None:
    """The role's default applies at the server's login, so a statement without BEGIN is also in the right schema."""
    if tenant_logins == "shared":
        pytest.skip("The pool's login has no default schema.")
    for tenant in tenants:
        url = sa.make_url(pgbouncer).set(username=tenant.role_name, password=database.password_of(tenant))
        with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
            row = connection.execute(WHO, prepare=False).fetchone()
        assert row
        assert row[:2] == (tenant.role_name, tenant.schema_name)


def test_a_tenant_with_a_lower_time_out_has_it_behind_pgbouncer_and_gives_it_to_nobody(
    behind: Flask, tenants: tuple[Tenant, Tenant]
) -> None:
    own: Any = behind.extensions[EXTENSION]
    hasty = replace(tenants[0], settings={**tenants[0].settings, "statement_timeout_ms": 150})
    with pytest.raises(psycopg.errors.QueryCanceled):
        own.engine(hasty).one_statement("SELECT pg_sleep(5)", ())
    for _ in range(4):
        assert own.engine(tenants[1]).one_statement("SHOW statement_timeout", ()) == [("7s",)]
