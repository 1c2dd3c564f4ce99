"""A tenant that can't be read is one failure that names its cause; the others are read, and no lock is kept."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.exc import DBAPIError

from tenant_schemas.sessions import AnyConnection, fetch
from tenant_schemas.tenant import Tenant
from tenant_schemas.testing.plugin import Database
from tenant_schemas.visits import Visitor
from tests.factories.locks import held_table

pytestmark = pytest.mark.both_servers


@contextmanager
def by_sqlalchemy(database: Database) -> Iterator[AnyConnection]:
    with database.admin_engine().connect() as connection:
        yield connection


@contextmanager
def by_psycopg(database: Database) -> Iterator[AnyConnection]:
    with psycopg.connect(database.admin_url) as connection:
        yield connection


@pytest.fixture(params=[by_sqlalchemy, by_psycopg], ids=["sqlalchemy", "psycopg"])
def connection(request: pytest.FixtureRequest, fresh_database: Database) -> Iterator[AnyConnection]:
    with request.param(fresh_database) as connection:
        yield connection


def count_wallets(connection: AnyConnection) -> Callable[[Sequence[Tenant]], Mapping[str, int]]:
    def read(tenants: Sequence[Tenant]) -> Mapping[str, int]:
        parts = (
            sql.SQL("SELECT {}, count(*) FROM {}").format(
                sql.Literal(tenant.schema_name), sql.Identifier(tenant.schema_name, "wallets")
            )
            for tenant in tenants
        )
        return {str(name): count for name, count in fetch(connection, sql.SQL(" UNION ALL ").join(parts).as_string())}

    return read


def test_a_locked_tenant_fails_alone_and_the_session_that_locks_it_is_named(
    fresh_database: Database, connection: AnyConnection
) -> None:
    visitor = Visitor(connection, lock_timeout_ms=50)
    with held_table(fresh_database, "km_schema.wallets") as pid:
        assert visitor.visit_all(fresh_database.tenants(), count_wallets(connection)) == {"eur_schema": 0}
    failure = visitor.failures.pop("km_schema")
    assert failure.sqlstate == "55P03"
    for part in (
        "postgres",
        str(pid),
        "a forgotten shell",
        "idle in transaction since",
        "LOCK TABLE km_schema.wallets",
    ):
        assert part in str(failure.blocked_by)
    assert visitor.failures == {}


def test_a_session_that_waits_for_a_lock_itself_is_named_too(
    fresh_database: Database, connection: AnyConnection
) -> None:
    """A migration by hand behind a forgotten reader: PostgreSQL lets nobody past it."""
    with held_table(fresh_database, "km_schema.wallets", mode="ACCESS SHARE"), waiting(fresh_database) as pid:
        visitor = Visitor(connection, lock_timeout_ms=50)
        assert visitor.visit(fresh_database.tenant("km"), lambda: fetch(connection, "TABLE km_schema.wallets")) is None
    assert f"(process {pid}, a migration by hand, active" in str(visitor.failures["km_schema"])


@contextmanager
def waiting(database: Database) -> Iterator[int]:
    """A session that waits for a strong lock on km's wallets. Yields its process id."""
    with (
        psycopg.connect(database.url(), application_name="a migration by hand") as session,
        ThreadPoolExecutor(1) as pool,
    ):
        pid = session.info.backend_pid
        asked = pool.submit(session.execute, "LOCK TABLE km_schema.wallets")
        query = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"
        while database.as_superuser().execute(query, (pid,)).fetchone() != (True,):
            assert not asked.done()
        try:
            yield pid
        finally:
            session.cancel_safe()
            wait([asked])


def test_a_failed_tenant_is_not_waited_for_again(fresh_database: Database, connection: AnyConnection) -> None:
    visitor = Visitor(connection, lock_timeout_ms=50)
    with held_table(fresh_database, "km_schema.wallets"):
        visitor.visit_all(fresh_database.tenants(), count_wallets(connection))
    asked: list[Tenant] = []
    assert visitor.visit(fresh_database.tenant("km"), lambda: asked.append(fresh_database.tenant("km"))) is None
    assert asked == []


def test_no_lock_is_kept_after_a_visit(fresh_database: Database, connection: AnyConnection) -> None:
    """Otherwise an audit of the fleet would block every migration behind it. The db transaction goes on."""
    fetch(connection, "SELECT 1")
    Visitor(connection).visit_all(fresh_database.tenants(), count_wallets(connection))
    held = "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE c.relname = 'wallets'"
    assert fresh_database.as_superuser().execute(held).fetchone() == (0,)


def test_a_schema_that_is_gone_and_one_without_rights_are_failures_of_their_own(
    fresh_database: Database, connection: AnyConnection
) -> None:
    superuser = fresh_database.as_superuser()
    superuser.execute("DROP SCHEMA eur_schema CASCADE")
    superuser.execute("ALTER SCHEMA km_schema OWNER TO postgres")
    superuser.execute("REVOKE ALL ON SCHEMA km_schema FROM wallet_owner, tenant_km")
    visitor, tenants = Visitor(connection), fresh_database.tenants()
    visitor.note_missing(tenants)
    assert visitor.visit_all(tenants, count_wallets(connection)) == {}
    assert visitor.failures["eur_schema"].is_gone
    assert "gone" in str(visitor.failures["eur_schema"])
    assert str(visitor.failures["km_schema"]) == "permission denied for schema km_schema"


def test_a_lost_connection_is_no_failure_of_a_tenant(fresh_database: Database, connection: AnyConnection) -> None:
    def end_session(_: Sequence[Tenant]) -> Mapping[str, int]:
        ((pid,),) = fetch(connection, "SELECT pg_backend_pid()")
        fresh_database.as_superuser().execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        return count_wallets(connection)(fresh_database.tenants())

    visitor = Visitor(connection)
    with pytest.raises((psycopg.OperationalError, DBAPIError)):
        visitor.visit_all(fresh_database.tenants(), end_session)
    assert visitor.failures == {}
