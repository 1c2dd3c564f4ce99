"""One query to many tenants: each answers as itself, nothing is changed, and a tenant that fails is named."""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask

from tenant_schemas.connections import Connections, Limits
from tenant_schemas.fan_out import Answer, Locks, query_all_tenants, query_tenant
from tenant_schemas.testing.plugin import Database
from tests.factories.people import People

LOCKS = Locks(2_000, lambda _: "another session")

pytestmark = pytest.mark.both_servers


WHO = "SELECT current_user::text, current_schema()::text"


@pytest.fixture(params=["own", "shared"])
def logins(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def connections(fresh_database: Database, logins: str) -> Iterator[Connections]:
    with connections_to(fresh_database, logins, statement_timeout_ms=2_000) as made:
        yield made


@contextmanager
def connections_to(database: Database, logins: str, *, statement_timeout_ms: int) -> Iterator[Connections]:
    pool_role = database.roles.pool if logins == "shared" else None
    limits = Limits(max_connections=3, statement_timeout_ms=statement_timeout_ms)
    made = Connections(database.app_url, database.tenant_secret, limits, pool_role=pool_role)
    yield made
    made.close()


def answers(database: Database, connections: Connections, statement: str, **options: Any) -> list[Answer]:
    return list(
        query_all_tenants(
            connections, database.tenants(), statement, **({"max_rows": 100, "jobs": 2, "locks": LOCKS} | options)
        )
    )


def ledger(database: Database) -> Any:
    """The rows that must stay unchanged, in all schemas."""
    server = database.as_superuser()
    return [
        server.execute(f"SELECT t::text FROM {table} t ORDER BY 1").fetchall()
        for schema in ("eur_schema", "km_schema")
        for table in (f"{schema}.wallets", f"{schema}.wallet_transactions", f"{schema}.audit_log")
    ]


def test_each_tenant_answers_as_itself_in_its_own_schema(fresh_database: Database, connections: Connections) -> None:
    assert [(each.slug, each.columns, each.rows) for each in answers(fresh_database, connections, WHO)] == [
        ("eur", ("current_user", "current_schema"), (("tenant_eur", "eur_schema"),)),
        ("km", ("current_user", "current_schema"), (("tenant_km", "km_schema"),)),
    ]


STATEMENTS = (
    "SELECT wallet_post_v2('{wallet}', 'deposit', 100, '{key}', NULL, NULL, NULL, NULL, NULL, NULL)",
    "SELECT wallet_post_many_v1('[]', NULL, NULL, NULL)",
    "SELECT audit_note_v1('{}')",
    "WITH gone AS (DELETE FROM wallets RETURNING 1) SELECT * FROM gone",
    "SELECT * FROM wallets FOR UPDATE",
    "SET TRANSACTION READ WRITE",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "SELECT set_config('transaction_read_only', 'off', true),"
    " wallet_post_v2('{wallet}', 'deposit', 100, '{key}', NULL, NULL, NULL, NULL, NULL, NULL)",
    "COMMIT; SELECT wallet_post_v2('{wallet}', 'deposit', 1, '{key}', NULL, NULL, NULL, NULL, NULL, NULL)",
    "SET TRANSACTION READ WRITE;"
    " SELECT wallet_post_v2('{wallet}', 'deposit', 1, '{key}', NULL, NULL, NULL, NULL, NULL, NULL)",
    "EXPLAIN ANALYZE SELECT wallet_post_v2('{wallet}', 'deposit', 1, '{key}', NULL, NULL, NULL, NULL, NULL, NULL)",
    "COMMIT",
    "ROLLBACK",
    "COMMIT AND CHAIN",
    "DO $$ BEGIN PERFORM wallet_post_v2('{wallet}', 'deposit', 1, '{key}', NULL, NULL, NULL, NULL, NULL, NULL); END $$",
    "COPY (SELECT 1) TO STDOUT",
    "COPY wallets FROM STDIN",
    "ALTER ROLE CURRENT_USER PASSWORD 'mine'",
    "ALTER ROLE CURRENT_USER SET search_path TO km_schema",
    "RESET ROLE",
    "SET ROLE tenant_km",
    "CREATE TEMP TABLE t ()",
    "PREPARE p AS SELECT 1",
    "",
    "SELECT '%s', 1 % 2",
)


def test_nothing_is_changed_whatever_the_statement_is(
    fresh_database: Database, connections: Connections, fresh_app: Flask
) -> None:
    """Each statement twice: a leftover of the first call would help the second."""
    people = People(fresh_app)
    wallet_id = people.wallet(people.make(eur="member"), "eur", balance_minor=500)
    before = ledger(fresh_database)
    for statement in STATEMENTS:
        text = statement.replace("{wallet}", str(wallet_id)).replace("{key}", uuid4().hex)
        for _ in range(2):
            found = answers(fresh_database, connections, text)
            assert len(found) == 2, statement
        assert ledger(fresh_database) == before, statement
        if "wallet_post" in text:
            assert all(each.error for each in found), statement
        assert [each.rows[0] for each in answers(fresh_database, connections, WHO)] == [
            ("tenant_eur", "eur_schema"),
            ("tenant_km", "km_schema"),
        ], statement
        with fresh_database.as_tenant("eur") as login:
            assert login.execute("SELECT current_schema()::text").fetchone() == ("eur_schema",), statement


def test_money_is_refused_because_the_db_transaction_only_reads(
    fresh_database: Database, connections: Connections, fresh_app: Flask
) -> None:
    people = People(fresh_app)
    wallet_id = people.wallet(people.make(eur="member"), "eur")
    post = f"SELECT wallet_post_v2('{wallet_id}', 'deposit', 100, 'k', NULL, NULL, NULL, NULL, NULL, NULL)"
    found = query_tenant(connections, fresh_database.tenant("eur"), statement=post, max_rows=1, locks=LOCKS)
    assert found.sqlstate == "25006"


def test_a_tenant_that_fails_is_named_and_the_others_go_on(fresh_database: Database, connections: Connections) -> None:
    fresh_database.as_superuser().execute("REVOKE SELECT ON eur_schema.wallets FROM tenant_eur")
    eur, km = answers(fresh_database, connections, "SELECT count(*) FROM wallets")
    assert (eur.sqlstate, eur.rows) == ("42501", ())
    assert (km.error, km.rows) == (None, ((0,),))


def test_a_tenant_that_can_not_be_logged_in_to_is_an_answer_too(
    fresh_database: Database, connections: Connections
) -> None:
    fresh_database.as_superuser().execute("ALTER SCHEMA eur_schema RENAME TO elsewhere")
    eur, km = answers(fresh_database, connections, "SELECT count(*) FROM wallets")
    assert eur.error
    assert km.rows == ((0,),)


def test_rows_are_cut_without_being_held(fresh_database: Database, connections: Connections) -> None:
    tracemalloc.start()
    found = answers(
        fresh_database, connections, "SELECT repeat('x', 1000) FROM generate_series(1, 200000)", max_rows=10
    )
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(len(each.rows), each.is_truncated, each.error) for each in found] == [(10, True, None)] * 2
    assert peak_bytes < 20_000_000
    exactly = answers(fresh_database, connections, "SELECT generate_series(1, 10)", max_rows=10)
    assert [(len(each.rows), each.is_truncated) for each in exactly] == [(10, False)] * 2


def test_what_takes_too_long_is_stopped(fresh_database: Database, logins: str) -> None:
    sleep = "SELECT pg_sleep(20)"
    with connections_to(fresh_database, logins, statement_timeout_ms=200) as connections:
        found = query_tenant(connections, fresh_database.tenant("km"), statement=sleep, max_rows=1, locks=LOCKS)
    assert found.sqlstate == "57014"


def test_connections_stay_within_the_cap_and_none_is_left(fresh_database: Database, connections: Connections) -> None:
    tenants = fresh_database.tenants() * 10
    list(query_all_tenants(connections, tenants, "SELECT 1", max_rows=1, locks=LOCKS, jobs=2))
    assert connections.open_count <= 3
    open_ones = "SELECT count(*) FROM pg_stat_activity WHERE usename ~ '^tenant_' AND datname = current_database()"
    assert fresh_database.as_superuser().execute(open_ones).fetchone() == (0,)
