"""`scripts.create_roles` creates the service's roles for the logins of the settings."""

import pytest
import sqlalchemy as sa

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


@pytest.mark.both_servers
def test_a_login_that_is_no_superuser_is_refused_before_anything_is_made(run: Run, fresh_database: Database) -> None:
    """As a managed server gives one: it may make roles and databases, but not change the catalogue."""
    superuser = fresh_database.as_superuser()
    superuser.execute("CREATE ROLE provider LOGIN CREATEROLE CREATEDB PASSWORD 'of-the-provider'")
    try:
        superuser.execute(f"GRANT CONNECT ON DATABASE {fresh_database.name} TO provider")
        url = sa.make_url(fresh_database.url()).set(username="provider", password="of-the-provider")
        with pytest.MonkeyPatch.context() as other:
            missing = sa.make_url(fresh_database.app_url).set(database="not_made_yet")
            other.setenv("DATABASE_URL", missing.render_as_string(hide_password=False))
            refused = run("create_roles", "--superuser-url", url.render_as_string(hide_password=False))
        assert (refused.exit_code, "Nothing was made" in refused.output) == (2, True)
        assert superuser.execute("SELECT FROM pg_database WHERE datname = 'not_made_yet'").fetchone() is None
    finally:
        superuser.execute("DROP OWNED BY provider; DROP ROLE provider")


def test_roles_are_created_only_for_the_logins_of_the_contract(run: Run, fresh_database: Database) -> None:
    again = run("create_roles", "--superuser-url", fresh_database.url())
    assert again.exit_code == 0, again.output
    with pytest.MonkeyPatch.context() as other:
        other.setenv("DATABASE_URL", "postgresql://another:x@127.0.0.1/wallet")
        refused = run("create_roles", "--superuser-url", fresh_database.url())
    assert refused.exit_code == 2
    assert "must log in as wallet_app" in refused.output
