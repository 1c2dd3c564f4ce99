"""`scripts.configure_tenant` changes a tenant's settings and resets them to the default, or refuses the whole
change.
"""

from typing import Any

import pytest

from tenant_schemas.testing.plugin import Database
from tests.factories.script_runner import Run


@pytest.fixture
def tenant_logins() -> str:
    """Tenants may log in themselves and through the pool."""
    return "shared"


def test_a_tenants_limits_are_set_and_given_back_to_the_default(run: Run, fresh_database: Database) -> None:
    numbers = ("max-concurrent-requests", "max-body-bytes", "statement-timeout-ms", "idle-in-transaction-timeout-ms")
    names = (*numbers, "max-connections")
    told = [part for name in names for part in (f"--{name}", "7")]
    done = run("configure_tenant", "km", "--rate-limit", "600/minute", *told)
    assert done.exit_code == 0, done.output
    limits = {name.replace("-", "_"): 7 for name in names}
    log = fresh_database.as_tenant("km").execute("SELECT action, actor_kind, after ->> 'rate_limit' FROM audit_log")
    assert log.fetchall() == [("tenant.configure", "system", "600/minute")]
    assert fresh_database.tenant("km").settings == {"currency": "BAM", "rate_limit": "600/minute"} | limits
    assert "max_connections 7, " in done.output
    back = [part for name in names for part in (f"--{name}", "default")]
    done = run("configure_tenant", "km", "--rate-limit", "default", *back)
    assert (done.exit_code, fresh_database.tenant("km").settings) == (0, {"currency": "BAM"})
    assert "rate_limit default" in done.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("km",),
        ("nope", "--also", "USD"),
        ("km", "--also", "XAU"),
        ("km", "--locale", "x_Y"),
        ("km", "--rate-limit", "many"),
        ("km", "--rate-limit", "600/minute", "--max-connections", "0"),
        ("km", "--max-body-bytes", "64k"),
        ("km", "--also", "default"),
    ],
)
def test_what_a_tenant_can_not_be_told_is_refused_and_changes_nothing(
    run: Run, fresh_database: Database, arguments: Any
) -> None:
    before = fresh_database.tenant("km")
    assert run("configure_tenant", *arguments).exit_code == 2
    assert fresh_database.tenant("km") == before


def test_a_tenant_demands_a_second_factor_of_its_staff_or_not(run: Run, fresh_database: Database) -> None:
    for option, value in (("--require-second-factor", True), ("--no-require-second-factor", False)):
        done = run("configure_tenant", "km", option)
        assert (done.exit_code, done.output.strip()) == (0, f"km: require_second_factor {value}")
        assert fresh_database.tenant("km").settings["require_second_factor"] is value
