"""One question to many tenants: each answers as itself, nothing is changed, and who fails is named."""

import csv
import io
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask

from app.db import ROLES
from tenant_schemas.connections import Connections, Limits
from tenant_schemas.fan_out import Answer, query_all_tenants, query_tenant
from tenant_schemas.lifecycle.archive import archive
from tenant_schemas.testing.plugin import Database
from tests.factories.door import Run, door
from tests.factories.people import People

WHO = "SELECT current_user::text, current_schema()::text"


@pytest.fixture(params=["own", "shared"])
def logins(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def connections(fresh_database: Database, logins: str) -> Iterator[Connections]:
    pool_role = ROLES.pool if logins == "shared" else None
    limits = Limits(max_connections=3, statement_timeout_ms=2_000)
    made = Connections(fresh_database.app_url, fresh_database.tenant_secret, limits, pool_role=pool_role)
    yield made
    made.close()


@pytest.fixture
def run(fresh_database: Database, monkeypatch: pytest.MonkeyPatch, logins: str) -> Run:
    return door(fresh_database, monkeypatch, logins)


def answers(database: Database, connections: Connections, statement: str, **options: Any) -> list[Answer]:
    return list(
        query_all_tenants(connections, database.tenants(), statement, **({"max_rows": 100, "jobs": 2} | options))
    )


def ledger(database: Database) -> Any:
    """What must stay as it was, in all schemas."""
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


@pytest.mark.parametrize(
    "statement",
    [
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
        "DO $$ BEGIN PERFORM wallet_post_v2('{wallet}', 'deposit', 1, '{key}',"
        " NULL, NULL, NULL, NULL, NULL, NULL); END $$",
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
    ],
)
def test_nothing_is_changed_whatever_the_statement_is(
    fresh_database: Database, connections: Connections, fresh_app: Flask, statement: str
) -> None:
    people = People(fresh_app)
    wallet_id = people.wallet(people.make(eur="member"), "eur", balance_minor=500)
    before = ledger(fresh_database)
    text = statement.replace("{wallet}", str(wallet_id)).replace("{key}", uuid4().hex)
    for _ in range(2):  # What a first one had left behind would help a second one.
        found = answers(fresh_database, connections, text)
        assert len(found) == 2
    assert ledger(fresh_database) == before
    if "wallet_post" in text:
        assert all(each.error for each in found)
    assert [each.rows[0] for each in answers(fresh_database, connections, WHO)] == [
        ("tenant_eur", "eur_schema"),
        ("tenant_km", "km_schema"),
    ]
    assert fresh_database.as_tenant("eur").execute("SELECT current_schema()::text").fetchone() == ("eur_schema",)


def test_money_is_refused_because_the_db_transaction_only_reads(
    fresh_database: Database, connections: Connections, fresh_app: Flask
) -> None:
    people = People(fresh_app)
    wallet_id = people.wallet(people.make(eur="member"), "eur")
    post = f"SELECT wallet_post_v2('{wallet_id}', 'deposit', 100, 'k', NULL, NULL, NULL, NULL, NULL, NULL)"
    found = query_tenant(connections, fresh_database.tenant("eur"), statement=post, max_rows=1)
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


def test_what_takes_too_long_is_stopped(fresh_database: Database, connections: Connections) -> None:
    found = query_tenant(connections, fresh_database.tenant("km"), statement="SELECT pg_sleep(20)", max_rows=1)
    assert found.sqlstate == "57014"


def test_connections_stay_within_the_cap_and_none_is_left(fresh_database: Database, connections: Connections) -> None:
    tenants = fresh_database.tenants() * 10
    list(query_all_tenants(connections, tenants, "SELECT 1", max_rows=1, jobs=2))
    assert connections.open_count <= 3
    open_ones = "SELECT count(*) FROM pg_stat_activity WHERE usename ~ '^tenant_' AND datname = current_database()"
    assert fresh_database.as_superuser().execute(open_ones).fetchone() == (0,)


@pytest.mark.parametrize(
    "value", ["'-infinity'::timestamptz", "'infinity'::date", "'\\x00ff'::bytea", "NULL", "'{}'::jsonb"]
)
def test_every_value_can_be_shown(run: Run, value: str) -> None:
    for form in ((), ("--json",), ("--csv",)):
        done = run("run_sql", "--tenant", "km", f"SELECT {value} AS it", *form)
        assert done.exit_code == 0, done.output
        assert "Traceback" not in done.output


# The script.


def test_one_table_comes_out_with_whose_row_it_is(run: Run) -> None:
    done = run("run_sql", "--all", f"{WHO} UNION ALL SELECT 'b', NULL ORDER BY 1", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.output) == {
        "columns": ["tenant", "current_user", "current_schema"],
        "rows": [
            ["eur", "b", None],
            ["eur", "tenant_eur", "eur_schema"],
            ["km", "b", None],
            ["km", "tenant_km", "km_schema"],
        ],
        "failures": [],
        "cut": [],
    }
    shown = run("run_sql", "--tenant", "km", WHO)
    assert "km_schema" in shown.output
    assert "eur_schema" not in shown.output
    table = list(csv.reader(io.StringIO(run("run_sql", "--all", "SELECT 'a,\"b' AS x, NULL AS y", "--csv").stdout)))
    assert table == [["tenant", "x", "y"], ["eur", 'a,"b', ""], ["km", 'a,"b', ""]]


def test_no_rows_are_an_answer_with_columns(run: Run) -> None:
    assert run("run_sql", "--all", "SELECT id FROM wallets", "--csv").stdout.split() == ["tenant,id"]
    assert json.loads(run("run_sql", "--all", "SELECT id FROM wallets", "--json").output)["columns"] == ["tenant", "id"]


def test_suspended_and_archived_tenants_are_asked_too(run: Run, fresh_database: Database) -> None:
    with fresh_database.admin_engine().begin() as connection:
        archive(connection, "km")
    assert [row[0] for row in json.loads(run("run_sql", "--all", "SELECT 1", "--json").output)["rows"]] == ["eur", "km"]


def test_failures_cuts_and_other_columns_are_told_and_exit_1(run: Run, fresh_database: Database) -> None:
    server = fresh_database.as_superuser()
    server.execute("ALTER TABLE km_schema.credit_policies ADD COLUMN stray text")
    other = run("run_sql", "--all", "SELECT * FROM credit_policies", "--json")
    assert other.exit_code == 1
    failures = json.loads(other.stdout)["failures"]
    assert [each["tenant"] for each in failures] == ["km"]
    assert "stray" in failures[0]["error"]
    failed = run("run_sql", "--all", "SELECT nothing")
    assert failed.exit_code == 1
    assert failed.stderr.count("42703") == 2
    cut = run("run_sql", "--all", "SELECT generate_series(1, 3)", "--max-rows", "2", "--csv")
    assert (cut.exit_code, cut.stdout.count("\n")) == (0, 5)
    assert "eur, km" in cut.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("SELECT 1",),
        ("--all", "--tenant", "km", "SELECT 1"),
        ("--tenant", "nobody", "SELECT 1"),
        ("--all", "--jobs", "0", "SELECT 1"),
        ("--all",),
    ],
)
def test_bad_arguments_exit_2(run: Run, arguments: tuple[str, ...]) -> None:
    done = run("run_sql", *arguments)
    assert done.exit_code == 2
    assert "Traceback" not in done.output


def test_what_a_tenant_wrote_does_not_take_over_the_terminal(run: Run) -> None:
    done = run("run_sql", "--tenant", "km", "SELECT E'\\x1b[2J[/red]\\u009b' AS \"[/x]\"")
    assert done.exit_code == 0, repr(done.exception)
    shown = done.output
    assert "\x1b" not in shown
    assert "\x9b" not in shown
    assert "[/red]" in shown
