"""The status of the fleet: the tenants that are behind, by how much, drift, and past runs."""

import json
from functools import partial
from pathlib import Path

import pytest

from app.tenancy import MIGRATIONS
from tenant_schemas.migrations.history import History
from tenant_schemas.migrations.runner import MigrateOptions, migrate
from tenant_schemas.migrations.runner.migrator_lock import migrator_lock
from tenant_schemas.testing.plugin import Database
from tests.factories.histories import add_revision, copied_histories
from tests.factories.locks import held_tenant
from tests.factories.script_runner import Run


@pytest.fixture
def status(run: Run) -> Run:
    """The script on this test's database."""
    return partial(run, "migration_status")


def test_tenants_that_are_well_are_counted_and_shown_when_asked_for(status: Run) -> None:
    brief, full = status("--drift"), status("--all")
    assert (brief.exit_code, full.exit_code) == (0, 0), brief.output
    assert "3 of 3 schemas are at their head, none of them drifted" in brief.output
    assert "km_schema" not in brief.output
    assert "km_schema" in full.output


def test_who_is_behind_is_shown_with_by_how_much(status: Run, fresh_database: Database) -> None:
    _set_revision(fresh_database, "0005")
    shown, told = status(), status("--json")
    assert (shown.exit_code, told.exit_code) == (1, 1)
    assert "eur_schema" not in shown.output
    assert "2 of 3 schemas are at their head" in shown.output
    rows = {row["slug"]: row for row in json.loads(told.output)}
    head = rows["eur"]["head"]
    assert rows["km"] == rows["eur"] | {
        "slug": "km",
        "schema": "km_schema",
        "revision": "0005",
        "behind": int(head) - 5,
    }


def test_a_revision_that_this_checkout_does_not_know_is_not_well(status: Run, fresh_database: Database) -> None:
    """The version table or the registry was edited."""
    _set_revision(fresh_database, "0007x")
    shown = status("--drift")
    assert shown.exit_code == 1
    assert "not in this history" in shown.output
    assert "At 0007x tenants were only compared with each other" in shown.stderr


def test_a_schema_that_is_newer_than_the_code_is_told_and_is_well(status: Run, fresh_database: Database) -> None:
    """A later release has migrated it, and was rolled back."""
    _set_revision(fresh_database, "9999")
    shown, told = status("--drift"), status("--json")
    assert (shown.exit_code, told.exit_code) == (0, 0)
    assert "newer than this code" in shown.output
    assert "2 of 3 schemas are at their head" in shown.output
    assert "At 9999 tenants were only compared with each other" in shown.stderr
    assert {row["slug"]: row["newer"] for row in json.loads(told.output)} == {None: False, "eur": False, "km": True}


def test_drift_is_named_for_the_tenant_alone(status: Run, fresh_database: Database) -> None:
    assert status("--drift").exit_code == 0
    fresh_database.as_superuser().execute("ALTER TABLE km_schema.wallets ADD COLUMN nickname text")
    shown, told = status("--drift"), status("--drift", "--json")
    assert (shown.exit_code, told.exit_code, status().exit_code) == (1, 1, 0)
    assert "column wallets.nickname" in shown.output
    drift = {row["schema"]: row.get("drift") for row in json.loads(told.output)}
    assert drift == {"shared": None, "eur_schema": [], "km_schema": ["column wallets.nickname"]}


def test_an_unchanged_schema_is_described_again_with_full(status: Run, fresh_database: Database) -> None:
    """The stored look is a wrong one here, as only the owner could make it."""
    superuser = fresh_database.as_superuser()
    superuser.execute("ALTER TABLE km_schema.wallets ADD COLUMN nickname text")
    assert status("--drift").exit_code == 1
    superuser.execute(
        "UPDATE shared.schema_stamps SET fingerprint = (SELECT fingerprint FROM shared.schema_stamps"
        " WHERE schema_name = 'eur_schema')"
    )
    assert status("--drift").exit_code == 0
    shown = status("--drift", "--full")
    assert shown.exit_code == 1
    assert "column wallets.nickname" in shown.output
    assert status("--full").exit_code == 2


def test_runs_are_shown_with_how_many_came_to_each_outcome(status: Run, failed_run: str) -> None:
    shown, told = status("--runs"), status("--runs", "1", "--json")
    assert (shown.exit_code, told.exit_code) == (0, 0), shown.output
    assert "1 done, 1 failed" in shown.output
    (run,) = json.loads(told.output)
    assert (run["id"], run["counts"], run["status"]) == (failed_run, {"done": 1, "failed": 1}, "failed")


def test_a_run_tells_of_each_tenant_what_was_in_the_way(status: Run, failed_run: str) -> None:
    shown, told = status("--run", failed_run[:8].upper()), status("--run", failed_run, "--json")
    assert (shown.exit_code, told.exit_code) == (0, 0), shown.output
    assert "55P03" in shown.output
    assert "1 of 2 tenants were done at the first attempt." in shown.output
    tenants = {row["slug"]: row for row in json.loads(told.output)["tenants"]}
    assert (tenants["eur"]["status"], tenants["eur"]["attempts"], tenants["eur"]["sqlstate"]) == ("done", 1, None)
    km = tenants["km"]
    assert (km["status"], km["attempts"], km["sqlstate"]) == ("failed", 2, "55P03")
    assert "the blocking session" in km["blockedBy"]


def test_what_was_never_run_is_said(status: Run) -> None:
    assert "No run is on record" in status("--runs").output
    assert status("--run", "0").exit_code == 2


def test_many_rows_are_plain_lines(status: Run, fresh_database: Database) -> None:
    """A box around a thousand rows takes most of a second."""
    superuser = fresh_database.as_superuser()
    superuser.execute(
        "INSERT INTO shared.tenants (id, slug, schema_name, role_name, name, status, login_epoch,"
        " revision, settings)"
        " SELECT gen_random_uuid(), 't' || n, 't' || n || '_schema', 'tenant_t' || n, '', 'active', 1, %s, '{}'"
        " FROM generate_series(1, 200) n",
        (head := MIGRATIONS.head(History.TENANT),),
    )
    assert "3 of 203 schemas are at their head" in status().output
    shown = status("--all")
    lines = [line.split() for line in shown.output.splitlines()]
    assert ["t200", "t200_schema", "active", "-", "gone"] in lines
    assert ["km", "km_schema", "active", head, "0"] in lines
    superuser.execute("DELETE FROM shared.tenants WHERE slug ~ '^t[0-9]'")


@pytest.fixture
def failed_run(fresh_database: Database, tmp_path: Path) -> str:
    """The id of a run during which another session locked km's table."""
    histories = copied_histories(tmp_path)
    add_revision(histories, "op.execute('ALTER TABLE wallets ADD COLUMN note text')")
    holder = fresh_database.as_superuser()
    holder.execute("SET application_name TO 'the blocking session'")
    holder.execute("BEGIN; LOCK TABLE km_schema.wallets IN ACCESS SHARE MODE")
    options = MigrateOptions(lock_timeout_ms=150, attempts=2, first_delay_seconds=0.05)
    outcomes = list(migrate(fresh_database.admin_engine(), histories, options))
    assert [outcome.slug for outcome in outcomes if outcome.has_failed] == ["km"]
    holder.execute("ROLLBACK")
    row = fresh_database.as_superuser().execute("SELECT id::text FROM shared.migration_runs").fetchone()
    assert row
    return str(row[0])


def test_the_schema_is_asked_and_not_only_the_registry(status: Run, fresh_database: Database) -> None:
    fresh_database.as_superuser().execute("UPDATE km_schema.alembic_version SET version_num = '0005'")
    result = status("--json")
    assert result.exit_code == 1
    km = {row["schema"]: row for row in json.loads(result.output)}["km_schema"]
    head = MIGRATIONS.head(History.TENANT)
    assert (km["revision"], km["behind"]) == ("0005", int(head) - 5)
    assert km["problem"] == f"the registry says {head}"


@pytest.mark.parametrize("option", [(), ("--drift",)], ids=["revisions", "drift"])
def test_a_schema_that_is_gone_and_one_that_is_locked_are_a_row_each(
    status: Run, fresh_database: Database, option: tuple[str, ...]
) -> None:
    fresh_database.as_superuser().execute("DROP SCHEMA eur_schema CASCADE")
    with held_tenant(fresh_database, "km") as pid:
        result = status(*option, "--json", "--lock-timeout", "50", *(("--full",) if option else ()))
    assert result.exit_code == 1
    rows = {row["schema"]: row for row in json.loads(result.output)}
    assert (rows["eur_schema"]["problem"], rows["eur_schema"]["revision"]) == ("gone", None)
    assert f"process {pid}, a forgotten shell" in rows["km_schema"]["problem"]
    assert rows["shared"]["problem"] is None


def test_a_killed_run_is_shown_as_such_before_another_has_begun(
    status: Run, fresh_database: Database, failed_run: str
) -> None:
    superuser = fresh_database.as_superuser()
    superuser.execute("UPDATE shared.migration_runs SET status = 'running', finished_at = NULL")
    superuser.execute(
        "UPDATE shared.migration_outcomes SET status = 'running', finished_at = NULL, error = NULL WHERE slug = 'km'"
    )
    (run,) = json.loads(status("--runs", "--json").output)
    assert (run["status"], run["counts"]) == ("killed", {"done": 1, "skipped": 1})
    told = json.loads(status("--run", failed_run, "--json").output)
    km = {tenant["slug"]: tenant for tenant in told["tenants"]}["km"]
    assert (km["status"], km["error"]) == ("skipped", "The run was killed.")
    with migrator_lock(fresh_database.admin_engine(), fresh_database.roles):
        (run,) = json.loads(status("--runs", "--json").output)
    assert run["status"] == "running"


def _set_revision(database: Database, revision: str) -> None:
    """Of the tenant km, in the registry and in its schema."""
    superuser = database.as_superuser()
    superuser.execute("UPDATE shared.tenants SET revision = %s WHERE slug = 'km'", (revision,))
    superuser.execute("UPDATE km_schema.alembic_version SET version_num = %s", (revision,))
