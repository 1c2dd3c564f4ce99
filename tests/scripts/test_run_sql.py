"""`scripts.run_sql` queries one tenant or all, and prints the rows as a table, as JSON or as CSV."""

import csv
import io
import json

import pytest

from tenant_schemas.lifecycle.archive import archive
from tenant_schemas.testing.plugin import Database
from tests.factories.locks import held_tenant
from tests.factories.script_runner import Run

pytestmark = pytest.mark.both_servers

WHO = "SELECT current_user::text, current_schema()::text"


@pytest.fixture(params=["own", "shared"])
def tenant_logins(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(
    "value", ["'-infinity'::timestamptz", "'infinity'::date", "'\\x00ff'::bytea", "NULL", "'{}'::jsonb"]
)
def test_every_value_can_be_shown(run: Run, value: str) -> None:
    for form in ((), ("--json",), ("--csv",)):
        done = run("run_sql", "--tenant", "km", f"SELECT {value} AS it", *form)
        assert done.exit_code == 0, done.output
        assert "Traceback" not in done.output


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


def test_a_formula_is_defused_in_csv_and_unchanged_in_json(run: Run) -> None:
    query = """SELECT '=1+1' AS "=cmd", -5 AS n, '{"a": "x;=1"}'::jsonb AS j"""
    table = list(csv.reader(io.StringIO(run("run_sql", "--tenant", "km", query, "--csv").stdout)))
    assert table == [["tenant", "'=cmd", "n", "j"], ["km", "'=1+1", "-5", '{"a": "x;\'=1"}']]
    assert json.loads(run("run_sql", "--tenant", "km", query, "--json").output)["rows"][0][1] == "=1+1"


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
        ("--tenant", "unknown", "SELECT 1"),
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


def test_a_locked_tenant_is_named_with_the_session_that_locks_it(run: Run, fresh_database: Database) -> None:
    with held_tenant(fresh_database, "km") as pid:
        done = run("run_sql", "--all", "SELECT count(*) FROM wallets", "--lock-timeout", "50")
    assert done.exit_code == 1
    assert (
        f"km failed (55P03): canceling statement due to lock timeout. Blocked by: postgres (process {pid}"
        in done.stderr
    )
    assert "eur" in done.stdout
