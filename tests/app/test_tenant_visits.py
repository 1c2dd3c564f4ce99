"""`flask` commands do their work in every tenant that they can reach, and report the others."""

import pytest
from flask import Flask

from tenant_schemas.testing.plugin import Database
from tests.factories.locks import held_tenant
from tests.factories.people import People

COMMANDS = {
    "audit": "eur: sound",
    "initialize": "eur: 1 wallets opened",
    "reconcile": "eur: reconciled, 0 differences",
    "expire-holds": "eur: 0 wallets had expired holds",
}
KM_IS_LOCKED = "canceling statement due to lock timeout. Blocked by: postgres (process {}, a forgotten shell"


def run(app: Flask, *arguments: str) -> tuple[int, str]:
    result = app.test_cli_runner().invoke(args=["wallets", *arguments])
    return result.exit_code, result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_a_locked_tenant_stops_no_other_and_the_session_is_named(
    fresh_app: Flask, fresh_database: Database, command: str
) -> None:
    People(fresh_app).make(eur="member", km="member")
    with held_tenant(fresh_database, "km") as pid:
        code, said = run(fresh_app, command, "--lock-timeout", "50")
    assert code == 1
    assert KM_IS_LOCKED.format(pid) in said
    assert COMMANDS[command] in said
    assert run(fresh_app, command)[0] == 0, "nothing is left of the failure"


@pytest.mark.parametrize("command", [*COMMANDS, "expire-documents"])
def test_a_schema_that_is_gone_stops_no_other(fresh_app: Flask, fresh_database: Database, command: str) -> None:
    fresh_database.as_superuser().execute("DROP SCHEMA eur_schema CASCADE")
    code, said = run(fresh_app, command)
    assert code == 1
    assert "Schema eur_schema of the login tenant_eur is gone" in said
    assert "km: " in said
    assert "Traceback" not in said


@pytest.mark.parametrize("command", [*COMMANDS, "expire-documents"])
def test_an_unreadable_registry_is_a_line_of_its_own(fresh_app: Flask, fresh_database: Database, command: str) -> None:
    fresh_database.as_superuser().execute("REVOKE SELECT ON shared.tenants FROM wallet_app")
    code, said = run(fresh_app, command)
    assert code == 1
    assert said.startswith("Error: The database refused or does not answer: permission denied")
