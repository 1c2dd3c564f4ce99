"""`scripts.suspend_tenant` and `scripts.resume_tenant` change the status and write it into the tenant's log."""

import pytest

from tenant_schemas.tenant import TenantStatus
from tenant_schemas.testing.plugin import Database
from tests.factories.script_runner import Run

pytestmark = [pytest.mark.both_servers, pytest.mark.usefixtures("mark")]


def test_the_scripts_suspend_and_resume_and_the_log_says_so(run: Run, fresh_database: Database) -> None:
    assert run("suspend_tenant", "mark").exit_code == 0
    assert fresh_database.tenant("mark").status is TenantStatus.SUSPENDED
    again = run("suspend_tenant", "mark")
    assert (again.exit_code, "is suspended" in again.output) == (1, True)
    assert run("unarchive_tenant", "mark").exit_code == 1
    assert run("resume_tenant", "mark").exit_code == 0
    assert run("resume_tenant", "mark").exit_code == 1
    assert run("suspend_tenant", "unknown").exit_code == 2
    log = fresh_database.as_tenant("mark").execute("SELECT action, after ->> 'status' FROM audit_log ORDER BY seq")
    assert log.fetchall() == [("tenant.suspend", "suspended"), ("tenant.resume", "active")]
