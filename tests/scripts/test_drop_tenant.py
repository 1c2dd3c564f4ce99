"""`scripts.drop_tenant` backs a tenant up and then drops it, and drops no other tenant."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts import drop_tenant
from tenant_schemas.backup.backup import back_up
from tenant_schemas.backup.bundle import open_bundle
from tenant_schemas.flask import EXTENSION
from tenant_schemas.migrations.history import Migrations
from tenant_schemas.registry_watcher import check_registry
from tenant_schemas.tenant import Tenant, TenantStatus
from tenant_schemas.testing.plugin import Database, make_tenant
from tests.factories.api import Api
from tests.factories.backups import KEYS
from tests.factories.people import People
from tests.factories.script_runner import Run
from tests.factories.tenants import BAM, archive_tenant, traces

pytestmark = [pytest.mark.both_servers, pytest.mark.usefixtures("mark")]


@pytest.fixture
def mark(fresh_database: Database, tenancy_migrations: Migrations) -> Tenant:
    """Made here, not copied with a derived template: its role has to be dropped."""
    return make_tenant(fresh_database, tenancy_migrations, "mark", BAM)


def test_the_script_backs_up_then_drops_and_the_tenant_can_be_had_back(
    run: Run, fresh_database: Database, own: People, mark: Tenant, tmp_path: Path
) -> None:
    person = own.make(mark="member")
    own.wallet(person, "mark", balance_minor=500)
    assert run("archive_tenant", "mark").exit_code == 0
    check_registry(own.app.extensions[EXTENSION])  # A serving process does this every two seconds.
    done = run("drop_tenant", "mark", "--to", str(tmp_path), "--yes", "--json")
    assert done.exit_code == 0, done.output
    bundle = json.loads(done.output)["bundle"]
    assert Path(bundle).is_relative_to(tmp_path)
    assert traces(fresh_database, mark) == []
    back = run("restore_tenant", bundle, "--yes")
    assert back.exit_code == 0, back.output
    if fresh_database.tenant("mark").status is TenantStatus.ARCHIVED:
        assert run("unarchive_tenant", "mark").exit_code == 0
    found = Api(own.app).get("/api/wallet", person, "mark")
    assert (found.status_code, found.json.get("depositBalance")) == (200, "5.00"), found.json


def test_a_tenant_whose_webhooks_wait_is_dropped_on_demand_only(
    run: Run, fresh_database: Database, own: People, mark: Tenant
) -> None:
    login = fresh_database.as_tenant("mark")
    login.execute("SELECT webhook_create_v1('https://localhost/hook', NULL, '{}', 'full', 'wallet')")
    own.wallet(own.make(mark="member"), "mark", balance_minor=500)
    login.close()
    assert run("archive_tenant", "mark").exit_code == 0
    refused = run("drop_tenant", "mark", "--no-backup", "--yes")
    assert (refused.exit_code, "1 webhooks of tenant 'mark' wait for events" in refused.output) == (1, True)
    assert "flask webhooks disable --tenant mark" in refused.output
    assert traces(fresh_database, mark) != []
    assert run("drop_tenant", "mark", "--no-backup", "--yes", "--undelivered").exit_code == 0
    assert traces(fresh_database, mark) == []


@pytest.mark.parametrize(
    ("arguments", "typed", "code"),
    [
        (("mark",), None, 2),
        (("mark", "--no-backup", "--to", "/tmp"), None, 2),
        (("mark", "--to", "/tmp", "--seal-to", "unknown", "--yes"), None, 2),
        (("mark", "--no-backup"), "km\n", 2),
        (("mark", "--no-backup"), "mark\nkm\n", 2),
        (("mark", "--no-backup"), "", 1),
        (("unknown", "--no-backup", "--yes"), None, 2),
        (("km", "--no-backup", "--yes"), None, 1),
        (("mark", "--yes", "--to", "/proc/nowhere"), None, 1),
    ],
)
def test_the_script_drops_nothing_that_is_not_meant(
    run: Run, fresh_database: Database, arguments: Any, typed: str | None, code: int
) -> None:
    mark = fresh_database.tenant("mark")
    archive_tenant(fresh_database)
    done = run("drop_tenant", *arguments, input=typed)
    assert done.exit_code == code, done.output
    assert done.output
    assert "Traceback" not in done.output
    assert len(traces(fresh_database, mark)) == 3
    assert fresh_database.tenant("km").is_active


def test_the_script_drops_what_a_person_has_named_twice(run: Run, fresh_database: Database, mark: Tenant) -> None:
    archive_tenant(fresh_database)
    done = run("drop_tenant", "mark", "--no-backup", input="mark\nmark\n")
    assert done.exit_code == 0, done.output
    assert "There is no backup." in done.output
    assert traces(fresh_database, mark) == []


@pytest.fixture
def backed_up_elsewhere(
    other_database: Database, tenancy_migrations: Migrations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Backups read another server, which has another tenant with this slug."""
    make_tenant(other_database, tenancy_migrations, "mark", BAM)
    monkeypatch.setenv("BACKUP_DATABASE_URL", other_database.url(other_database.roles.backup))


@pytest.mark.usefixtures("backed_up_elsewhere")
def test_its_last_backup_is_taken_where_it_is_destroyed(
    run: Run, fresh_database: Database, own: People, mark: Tenant, tmp_path: Path
) -> None:
    own.wallet(own.make(mark="member"), "mark", balance_minor=500)
    archive_tenant(fresh_database)
    done = run("drop_tenant", "mark", "--to", str(tmp_path), "--yes", "--json")
    assert done.exit_code == 0, done.output
    manifest = open_bundle(Path(json.loads(done.output)["bundle"]), KEYS).manifest
    assert manifest.tenant.id == mark.id
    assert {table.rows for table in manifest.tables if table.name == "wallets"} == {1}


def test_a_backup_of_another_tenant_destroys_nothing(
    run: Run, fresh_database: Database, mark: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example if a URL names several servers."""
    monkeypatch.setattr(drop_tenant, "back_up", lambda source, slug, options: back_up(source, "km", options))
    archive_tenant(fresh_database)
    done = run("drop_tenant", "mark", "--to", str(tmp_path), "--yes")
    assert (done.exit_code, "another tenant" in done.output) == (1, True)
    assert len(traces(fresh_database, mark)) == 3
