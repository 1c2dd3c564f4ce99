"""`scripts.archive_tenant` and `scripts.unarchive_tenant` change the status and write it into the tenant's log."""

import pytest

from tenant_schemas.tenant import TenantStatus
from tenant_schemas.testing.plugin import Database
from tests.factories.script_runner import Run

pytestmark = [pytest.mark.both_servers, pytest.mark.usefixtures("mark")]


def test_the_scripts_archive_and_take_back_and_the_log_says_so(run: Run, fresh_database: Database) -> None:
    assert run("archive_tenant", "mark").exit_code == 0
    again = run("archive_tenant", "mark")
    assert (again.exit_code, "archived" in again.output) == (1, True)
    assert run("unarchive_tenant", "mark").exit_code == 0
    assert run("unarchive_tenant", "mark").exit_code == 1
    assert run("archive_tenant", "unknown").exit_code == 2
    log = fresh_database.as_tenant("mark").execute("SELECT action, after ->> 'status' FROM audit_log ORDER BY seq")
    assert log.fetchall() == [("tenant.archive", "archived"), ("tenant.unarchive", "active")]


def test_a_tenant_whose_log_is_broken_can_still_be_put_away(run: Run, fresh_database: Database) -> None:
    fresh_database.as_superuser().execute("DROP FUNCTION mark_schema.audit_note_v1 CASCADE")
    done = run("archive_tenant", "mark")
    assert done.exit_code == 0
    assert "audit log" in done.output
    assert fresh_database.tenant("mark").status is TenantStatus.ARCHIVED
    assert run("unarchive_tenant", "mark").exit_code == 1
