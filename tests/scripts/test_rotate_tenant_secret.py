"""A wrong TENANT_SECRET locks no tenant out: each command refuses it, the doctor names it; a rotation changes it."""

import json

import psycopg
import pytest

from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.testing.plugin import Database
from tests.factories.bundles import SLUG, Furnished, balance, world
from tests.factories.script_runner import Run

NEW = "another tenant secret, of 32 characters or more"

pytestmark = pytest.mark.both_servers


def findings(run: Run) -> list[tuple[str, str]]:
    told = json.loads(run("doctor", "--json").output)
    return [(each["check"], each["where"]) for each in told["findings"] if each["check"] in {"secret", "login"}]


def test_a_restore_with_an_old_secret_is_refused_and_the_living_tenant_can_log_in(
    fresh_database: Database, furnished: Furnished, bundle: Bundle, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("migrate").exit_code == 0
    before = world(fresh_database)
    monkeypatch.setenv("TENANT_SECRET", NEW)
    for arguments in (
        ("restore_tenant", str(bundle.folder), "--yes"),
        ("restore_tenant", str(bundle.folder), "--as", "shop2"),
        ("clone_tenant", SLUG, "shop2"),
        ("provision_tenant", "shop2", "--currency", "EUR"),
        ("reset_tenant_login", SLUG),
        ("backup_tenant", SLUG, "--to", str(bundle.folder)),
    ):
        refused = run(*arguments)
        assert (refused.exit_code, "TENANT_SECRET is not" in refused.output) == (2, True), refused.output
    assert world(fresh_database) == before
    assert balance(fresh_database, SLUG, furnished.wallet_id) > 0
    assert ("secret", "setting TENANT_SECRET") in findings(run)
    assert ("login", f"role tenant_{SLUG}") in findings(run)


def test_a_rotation_gives_all_logins_new_passwords_and_refuses_the_old_secret(
    fresh_database: Database, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login's verifier belongs to the whole server, so this database has a tenant of its own only."""
    fresh_database.as_superuser().execute("DELETE FROM shared.tenants")
    assert run("provision_tenant", "turned", "--currency", "EUR").exit_code == 0
    assert run("migrate").exit_code == 0
    old = run("database_url", "--tenant", "turned").output.strip()
    assert findings(run) == []
    monkeypatch.setenv("TENANT_SECRET", NEW)
    declined = run("rotate_tenant_secret", input="n\n")
    assert declined.exit_code == 1
    psycopg.connect(old).close()
    done = run("rotate_tenant_secret", "--yes")
    assert (done.exit_code, done.output[:8]) == (0, "1 logins"), done.output
    psycopg.connect(run("database_url", "--tenant", "turned").output.strip()).close()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(old)
    assert findings(run) == []
    fresh_database.as_superuser().execute("ALTER ROLE tenant_turned RENAME TO tenant_away")
    broken = run("rotate_tenant_secret", "--yes")
    fresh_database.as_superuser().execute("ALTER ROLE tenant_away RENAME TO tenant_turned")
    assert (broken.exit_code, "do not exist" in broken.output) == (1, True), broken.output
    monkeypatch.setenv("TENANT_SECRET", fresh_database.tenant_secret)
    assert run("database_url", "--tenant", "turned").exit_code == 2
