"""`python -m scripts.doctor` prints the findings of the engine's doctor, and exits 1 if one of them is an error."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from click.testing import CliRunner, Result

from app.tenancy import MIGRATIONS
from scripts.doctor import main
from tenant_schemas.doctor import examine
from tenant_schemas.schema_diff.compare import drifted_objects
from tenant_schemas.testing.plugin import Database
from tests.conftest import SECRET_KEY, SIGNING_KEYS
from tests.factories.doctor import EXEMPT

Run = Callable[..., Result]


@pytest.fixture
def run(fresh_database: Database, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The script in the environment of an installation on the test's own database, with shared logins."""
    made = {
        "DATABASE_URL": fresh_database.app_url,
        "ADMIN_DATABASE_URL": fresh_database.admin_url,
        "TENANT_SECRET": fresh_database.tenant_secret,
        "TENANT_LOGINS": "shared",
        "SECRET_KEY": SECRET_KEY,
        "SIGNING_KEYS": SIGNING_KEYS,
    }
    for name, value in made.items():
        monkeypatch.setenv(name, value)
    return lambda *arguments: CliRunner().invoke(main, arguments)


def found(result: Result) -> list[dict[str, Any]]:
    """Without the findings that a temporary server always has."""
    return [finding for finding in json.loads(result.output)["findings"] if finding["check"] not in EXEMPT]


def test_a_sound_installation_has_no_findings(run: Run) -> None:
    assert found(run("--json")) == []


def test_an_error_is_named_with_its_place_and_remedy_and_exits_1(run: Run, fresh_database: Database) -> None:
    fresh_database.as_superuser().execute("ALTER TABLE shared.memberships DISABLE ROW LEVEL SECURITY")
    result = run("--json")
    assert result.exit_code == 1
    (finding,) = found(result)
    assert (finding["severity"], finding["where"]) == ("error", "table shared.memberships")
    assert "ENABLE ROW LEVEL SECURITY" in finding["remedy"]
    table = run()
    assert table.exit_code == 1
    assert "shared.memberships" in table.output
    assert "errors" in table.output


def test_warnings_alone_exit_0(run: Run, fresh_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's server has errors of its own, which are exempt here."""
    fresh_database.as_superuser().execute("CREATE PUBLICATION everything FOR ALL TABLES")
    monkeypatch.setattr("scripts.doctor.examine", partial(examine, exempt=EXEMPT))
    result = run("--json")
    assert [(finding["severity"], finding["check"]) for finding in found(result)] == [("warning", "publication")]
    assert result.exit_code == 0


def test_the_migrator_says_what_it_could_not_see(run: Run, fresh_database: Database) -> None:
    assert "pg_hba" in run().output
    assert json.loads(run("--superuser-url", fresh_database.url(), "--json").output)["unseen"] == []


def test_the_mode_of_logins_is_that_of_the_settings(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a login for each tenant an open pool is an error."""
    monkeypatch.setenv("TENANT_LOGINS", "own")
    assert {finding["where"] for finding in found(run("--json"))} >= {"role wallet_pool", "role tenant_eur"}


def test_a_stored_look_is_used_and_full_looks_again(run: Run, fresh_database: Database) -> None:
    """The stored look is a wrong one here, as only the owner could make it. The doctor stores none."""
    superuser = fresh_database.as_superuser()
    superuser.execute("ALTER TABLE km_schema.wallets ADD COLUMN nickname text")
    with fresh_database.admin_engine().begin() as connection:
        drifted_objects(connection, MIGRATIONS, fresh_database.tenants())
    superuser.execute(
        "UPDATE shared.schema_stamps SET fingerprint = (SELECT fingerprint FROM shared.schema_stamps"
        " WHERE schema_name = 'eur_schema')"
    )
    looked = superuser.execute("SELECT * FROM shared.schema_stamps ORDER BY 1").fetchall()
    assert found(run("--json")) == []
    assert [finding["where"] for finding in found(run("--json", "--full"))] == ["schema km_schema"]
    assert superuser.execute("SELECT * FROM shared.schema_stamps ORDER BY 1").fetchall() == looked


def test_bad_arguments_and_settings_exit_2(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("--nonsense").exit_code == 2
    monkeypatch.setenv("ADMIN_DATABASE_URL", "")
    assert run().exit_code == 2


def test_the_provers_findings_and_old_proofs_are_the_doctors(run: Run, fresh_database: Database) -> None:
    superuser = fresh_database.as_superuser()
    superuser.execute("UPDATE shared.tenants SET created_at = now() - interval '3 days' WHERE slug = 'km'")
    superuser.execute(
        "INSERT INTO shared.tenant_proofs (tenant_id, proven_at, findings, first_finding)"
        " SELECT id, now(), 1, 'wallet 5' FROM shared.tenants WHERE slug = 'eur'"
    )
    result = run("--json")
    assert result.exit_code == 1
    shown = {(each["severity"], each["check"], each["where"]): each["what"] for each in found(result)}
    assert "wallet 5" in shown["error", "proofs", "tenant eur"]
    assert "never proven" in shown["warning", "proofs", "tenant km"]
    assert len(shown) == 2
