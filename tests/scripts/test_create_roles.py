"""`scripts.create_roles` creates the service's roles for the logins of the settings."""

import pytest

from tenant_schemas.testing.plugin import Database
from tests.factories.script_runner import Run


@pytest.fixture
def tenant_logins() -> str:
    """Roles belong to the whole server: in the other mode `create_roles` would close the pool to all other tests."""
    return "shared"


def test_creating_the_roles_lets_tenants_share_a_login_as_the_setting_says(run: Run, fresh_database: Database) -> None:
    assert run("create_roles", "--superuser-url", fresh_database.url()).exit_code == 0
    with fresh_database.as_pool() as pool:
        pool.execute("SET ROLE tenant_km")
        assert pool.execute("SELECT current_user::text").fetchone() == ("tenant_km",)


def test_roles_are_created_only_for_the_logins_of_the_contract(run: Run, fresh_database: Database) -> None:
    again = run("create_roles", "--superuser-url", fresh_database.url())
    assert again.exit_code == 0, again.output
    with pytest.MonkeyPatch.context() as other:
        other.setenv("DATABASE_URL", "postgresql://another:x@127.0.0.1/wallet")
        refused = run("create_roles", "--superuser-url", fresh_database.url())
    assert refused.exit_code == 2
    assert "must log in as wallet_app" in refused.output
