"""No script shows a stack trace: an error is a line and an exit code. A schema that is gone is gone in all of them."""

from pathlib import Path

import pytest

from scripts.support.script import Script
from tenant_schemas.migrations.history import Migrations
from tenant_schemas.testing.plugin import Database, make_tenant
from tests.factories.command_lines import scripts
from tests.factories.locks import held_table
from tests.factories.script_runner import Run

NOWHERE = "postgresql://{}:secret-of-the-url@127.0.0.1:1/wallet"
# Scripts that ask the database, with arguments that are right.
ASKING = {
    "archive_tenant": ("km",),
    "backup_tenant": ("--all", "--to", "{folder}"),
    "clone_tenant": ("km", "staging"),
    "configure_tenant": ("km", "--rate-limit", "default"),
    "create_roles": ("--superuser-url", NOWHERE.format("postgres")),
    "database_url": ("--tenant", "km"),
    "doctor": (),
    "drop_retired_schemas": (),
    "drop_tenant": ("km", "--no-backup", "--yes"),
    "export_tenant": ("km", "--to", "{folder}"),
    "migrate": (),
    "migration_status": (),
    "prover": ("--status",),
    "provision_tenant": ("gbp", "--currency", "GBP"),
    "psql": ("--tenant", "km"),
    "rename_tenant": ("km", "bam"),
    "repair_tenant": ("--all",),
    "reset_tenant_login": ("km",),
    "run_sql": ("--all", "SELECT 1"),
    "unarchive_tenant": ("km",),
}
# Of these, the scripts that need the tenant's schema.
NEED_SCHEMA = (
    *("backup_tenant", "clone_tenant", "configure_tenant", "export_tenant", "migrate", "migration_status"),
    *("rename_tenant", "run_sql"),
)


def test_every_script_is_one_that_ends_on_sigterm_and_reports_errors_in_a_line() -> None:
    """`benchmark` is a group of a developer's tools, and `lock_dependencies` runs before the application's packages are
    there.
    """
    others = {name for name, command in scripts().items() if not isinstance(command, Script)}
    assert others == {"benchmark", "lock_dependencies"}


@pytest.mark.parametrize("name", ASKING)
def test_a_server_that_does_not_answer_is_a_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    for variable, role in (("DATABASE_URL", "app"), ("ADMIN_DATABASE_URL", "migrator")):
        monkeypatch.setenv(variable, NOWHERE.format(f"wallet_{role}"))
    result = run(name, *(each.format(folder=tmp_path) for each in ASKING[name]))
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1, result.output
    said = result.stderr.strip() or result.output.strip()
    assert "connection failed" in said
    assert len(said.splitlines()) == 1, said
    assert "secret-of-the-url" not in result.output


@pytest.mark.parametrize("name", ["doctor", "migration_status"])
def test_a_locked_registry_is_a_line_that_names_the_session(run: Run, fresh_database: Database, name: str) -> None:
    with held_table(fresh_database, "shared.tenants") as pid:
        result = run(name, "--lock-timeout", "50")
    assert result.exit_code == 1
    assert f"lock timeout. Blocked by: postgres (process {pid}, a forgotten shell" in " ".join(result.stderr.split())


@pytest.mark.parametrize("name", NEED_SCHEMA)
def test_a_schema_that_is_gone_is_said_to_be(run: Run, fresh_database: Database, tmp_path: Path, name: str) -> None:
    fresh_database.as_superuser().execute("DROP SCHEMA km_schema CASCADE")
    result = run(name, *(each.format(folder=tmp_path) for each in ASKING[name]))
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    assert " gone" in result.output


def test_a_tenant_whose_schema_is_gone_comes_back_from_its_backup(
    run: Run, fresh_database: Database, tmp_path: Path
) -> None:
    """As the messages advise."""
    assert run("backup_tenant", "km", "--to", str(tmp_path)).exit_code == 0
    fresh_database.as_superuser().execute("DROP SCHEMA km_schema CASCADE")
    result = run("restore_tenant", str(next(tmp_path.iterdir())), "--yes")
    assert result.exit_code == 0, result.output
    status = run("migration_status")
    assert status.exit_code == 0, status.output


def test_a_tenant_whose_schema_is_gone_can_be_archived_and_dropped(
    run: Run, fresh_database: Database, tenancy_migrations: Migrations
) -> None:
    make_tenant(fresh_database, tenancy_migrations, "third", {"currency": "EUR"})
    fresh_database.as_superuser().execute("DROP SCHEMA third_schema CASCADE")
    assert run("archive_tenant", "third").exit_code == 0
    result = run("drop_tenant", "third", "--no-backup", "--yes")
    assert result.exit_code == 0, result.output
    assert [tenant.slug for tenant in fresh_database.tenants()] == ["eur", "km"]
