"""The operators' door on a server of one's own: each script does its one thing and exits 0, 1 or 2."""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from app.config import ROOT
from tenant_schemas.testing.plugin import Database
from tests.conftest import SECRET_KEY, SIGNING_KEYS

Run = Callable[..., Result]


@pytest.fixture
def variables(fresh_database: Database, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of an installation on the test's own database."""
    made = {
        "DATABASE_URL": fresh_database.app_url,
        "ADMIN_DATABASE_URL": fresh_database.admin_url,
        "TENANT_SECRET": fresh_database.tenant_secret,
        "SECRET_KEY": SECRET_KEY,
        "SIGNING_KEYS": SIGNING_KEYS,
        # Roles are the whole server's: `create_roles` would close the pool to all other tests.
        "TENANT_LOGINS": "shared",
    }
    for name, value in made.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def run(variables: dict[str, str]) -> Run:
    def run(script: str, *arguments: str) -> Result:
        return CliRunner().invoke(importlib.import_module(f"scripts.{script}").main, arguments)

    return run


def test_migrate_reports_every_schema(run: Run) -> None:
    result = run("migrate", "--json")
    assert result.exit_code == 0
    assert [outcome["schema_name"] for outcome in json.loads(result.output)] == ["shared", "eur_schema", "km_schema"]


def test_migrate_fails_for_the_tenant_that_is_in_the_way_alone(run: Run, fresh_database: Database) -> None:
    superuser = fresh_database.as_superuser()
    superuser.execute("UPDATE shared.tenants SET revision = '9999' WHERE slug = 'eur'")
    result = run("migrate", "--json")
    assert result.exit_code == 1
    errors = {outcome["schema_name"]: outcome["error"] for outcome in json.loads(result.output)}
    assert "9999 is not in this history" in errors["eur_schema"]
    assert errors["km_schema"] is None


def test_a_dry_run_shows_the_sql_and_does_nothing(run: Run, fresh_database: Database) -> None:
    """To a tenant that has been at the first revision ever since."""
    fresh_database.as_superuser().execute("UPDATE shared.tenants SET revision = '0007' WHERE slug = 'eur'")
    result = run("migrate", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "-- eur: 1 steps from 0007." in result.output
    assert "audit_log: ACCESS EXCLUSIVE" in result.output
    assert "CREATE TABLE audit_chain" in result.output
    assert fresh_database.tenant("eur").revision == "0007"


def test_migrate_refuses_a_tenant_that_does_not_exist(run: Run) -> None:
    assert run("migrate", "--tenant", "nope").exit_code == 2


def test_status_shows_each_schema_and_exits_1_when_one_is_behind(run: Run, fresh_database: Database) -> None:
    assert run("migration_status").exit_code == 0
    fresh_database.as_superuser().execute("UPDATE shared.tenants SET revision = '0000' WHERE slug = 'km'")
    result = run("migration_status", "--json")
    assert result.exit_code == 1
    assert {row["schema"]: row["revision"] for row in json.loads(result.output)}["km_schema"] == "0000"


def test_a_tenant_is_provisioned_and_can_be_logged_in_to(run: Run) -> None:
    result = run("provision_tenant", "jp", "--currency", "JPY", "--schema-name", "japan", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["schema_name"] == "japan"
    url = run("database_url", "--tenant", "jp").output.strip()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT current_user, current_schema()").fetchone() == ("tenant_jp", "japan")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("eur", "--currency", "EUR"), 1),
        (("pg_x", "--currency", "EUR"), 2),
        (("wallet", "--currency", "EUR"), 2),
        (("new", "--currency", "XXX"), 2),
        (("new", "--currency", "eur"), 2),
        (("new",), 2),
    ],
)
def test_what_cannot_be_provisioned_is_refused_with_a_reason(run: Run, arguments: Any, code: int) -> None:
    result = run("provision_tenant", *arguments)
    assert result.exit_code == code
    assert result.output
    assert "Traceback" not in result.output


def test_a_tenant_may_have_several_currencies_from_the_start_or_later(run: Run, fresh_database: Database) -> None:
    made = run("provision_tenant", "jp", "--currency", "JPY", "--also", "KWD", "--locale", "ja-JP", "--json")
    assert made.exit_code == 0, made.output
    expected = {"currency": "JPY", "currencies": ["JPY", "KWD"], "locale": "ja_JP"}
    assert json.loads(made.output)["settings"] == expected
    assert run("configure_tenant", "jp", "--also", "USD", "--also", "JPY").exit_code == 0
    assert fresh_database.tenant("jp").settings == expected | {"currencies": ["JPY", "KWD", "USD"]}
    assert run("configure_tenant", "km", "--locale", "bs_BA").exit_code == 0
    assert fresh_database.tenant("km").settings == {"currency": "BAM", "locale": "bs_BA"}


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


def test_wrong_settings_exit_2_and_list_every_fault(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "foo")
    monkeypatch.setenv("STATEMENT_TIMEOUT_MS", "99999999999")
    monkeypatch.setenv("SECRET_KEY", "short")
    result = run("migrate")
    assert result.exit_code == 2
    for name in ("DATABASE_URL", "STATEMENT_TIMEOUT_MS", "SECRET_KEY"):
        assert name in result.output


def test_a_login_that_changed_its_own_password_is_set_right(run: Run, fresh_database: Database) -> None:
    url = run("database_url", "--tenant", "eur").output.strip()
    own = fresh_database.as_tenant("eur")
    own.execute("ALTER ROLE CURRENT_USER PASSWORD 'mine'")
    own.execute("ALTER ROLE CURRENT_USER SET search_path TO km_schema")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    assert run("reset_tenant_login", "eur").exit_code == 0
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT current_schema()").fetchone() == ("eur_schema",)


def test_a_raised_epoch_is_another_password_and_is_in_the_registry(run: Run, fresh_database: Database) -> None:
    """The login's verifier is the whole server's, so the tenant is one of this database only."""
    assert run("provision_tenant", "risen", "--currency", "EUR").exit_code == 0
    before = run("database_url", "--tenant", "risen").output.strip()
    result = run("reset_tenant_login", "risen", "--raise-epoch")
    assert result.exit_code == 0, result.output
    assert fresh_database.tenant("risen").login_epoch == 2
    with psycopg.connect(run("database_url", "--tenant", "risen").output.strip()) as connection:
        assert connection.execute("SELECT current_schema()").fetchone() == ("risen_schema",)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(before)


def test_creating_the_roles_lets_tenants_share_a_login_as_the_setting_says(run: Run, fresh_database: Database) -> None:
    assert run("create_roles", "--superuser-url", fresh_database.url()).exit_code == 0
    with fresh_database.as_pool() as pool:
        pool.execute("SET ROLE tenant_km")
        assert pool.execute("SELECT current_user::text").fetchone() == ("tenant_km",)


def test_psql_logs_in_as_the_tenant(variables: dict[str, str]) -> None:
    command = [sys.executable, "-m", "scripts.psql", "--tenant", "km", "-Atc", "SELECT current_user"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "tenant_km"


def test_roles_are_created_only_for_the_logins_of_the_contract(run: Run, fresh_database: Database) -> None:
    again = run("create_roles", "--superuser-url", fresh_database.url())
    assert again.exit_code == 0, again.output
    with pytest.MonkeyPatch.context() as other:
        other.setenv("DATABASE_URL", "postgresql://somebody:x@127.0.0.1/wallet")
        refused = run("create_roles", "--superuser-url", fresh_database.url())
    assert refused.exit_code == 2
    assert "must log in as wallet_app" in refused.output


def test_demo_data_is_refused_on_a_server_of_ones_own(run: Run) -> None:
    assert run("seed_demo").exit_code == 2
