"""No `flask` command shows a stack trace: an error is a line and exit code 1."""

import pytest

from app import create_app
from tenant_schemas.testing.plugin import Database
from tests.conftest import settings_for

NOWHERE = "postgresql://wallet_app:secret-of-the-url@127.0.0.1:1/wallet"
USER = "6f1c2f0e-6c1f-4f0e-9b39-0d6b1f3f8a10"
PASSWORD = ("--password", "a long and unusual one")
COMMANDS = [
    ("auth", "prune"),
    ("members", "prune-invitations"),
    ("members", "forget-former"),
    ("members", "forget-former", "--tenant", "km", "--user", USER),
    ("members", "add", "ana@example.com", "--tenant", "km", *PASSWORD),
    ("members", "set-password", "ana@example.com", *PASSWORD),
    ("users", "remove-second-factor", "ana@example.com"),
    ("webhooks", "disable", "--tenant", "km"),
    ("wallets", "audit"),
    ("wallets", "initialize", "--tenant", "km"),
    ("wallets", "reconcile"),
    ("wallets", "expire-holds"),
    ("wallets", "expire-documents"),
    ("wallets", "import", "--orders", __file__),
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_server_that_does_not_answer_is_a_line(database: Database, arguments: tuple[str, ...]) -> None:
    app = create_app(settings_for(database, database_url=NOWHERE))
    result = app.test_cli_runner().invoke(args=arguments)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    (said,) = result.output.splitlines()
    assert said.startswith("Error: The database refused or does not answer: connection failed")
    assert "secret-of-the-url" not in said
