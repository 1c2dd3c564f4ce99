"""`scripts.reset_tenant_login` repairs a tenant's login and gives it another password."""

import psycopg
import pytest

from tenant_schemas.testing.plugin import Database
from tests.factories.script_runner import Run


@pytest.fixture
def tenant_logins() -> str:
    """Tenants may log in themselves and through the pool."""
    return "shared"


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
    """A login's verifier belongs to the whole server, so the tenant exists in this database only."""
    assert run("provision_tenant", "risen", "--currency", "EUR").exit_code == 0
    before = run("database_url", "--tenant", "risen").output.strip()
    result = run("reset_tenant_login", "risen", "--raise-epoch")
    assert result.exit_code == 0, result.output
    assert fresh_database.tenant("risen").login_epoch == 2
    with psycopg.connect(run("database_url", "--tenant", "risen").output.strip()) as connection:
        assert connection.execute("SELECT current_schema()").fetchone() == ("risen_schema",)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(before)
