"""The check value of a secret is held against a rotation by what sets a password, and tells of nothing else."""

import psycopg
import pytest

from tenant_schemas.errors import SecretRefused
from tenant_schemas.migrations.history import Migrations
from tenant_schemas.roles import driver_of
from tenant_schemas.secret_checks import TENANT_SECRET, check_tenant_secret, replace_secret, wrong_secrets
from tenant_schemas.testing.plugin import Database, make_tenant


def test_a_rotation_waits_for_a_tenant_that_is_being_made_and_the_next_is_refused(
    fresh_database: Database, tenancy_migrations: Migrations
) -> None:
    engine, secret = fresh_database.admin_engine(), fresh_database.tenant_secret
    with engine.begin() as connection:
        replace_secret(driver_of(connection), TENANT_SECRET, secret)
    with engine.begin() as making:
        check_tenant_secret(driver_of(making), secret, lock=True)
        with engine.connect() as rotating, rotating.begin():
            rotating.exec_driver_sql("SET LOCAL lock_timeout TO 100")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                replace_secret(driver_of(rotating), TENANT_SECRET, "new")
    with engine.begin() as rotating:
        replace_secret(driver_of(rotating), TENANT_SECRET, "new")
    roles = fresh_database.as_superuser().execute("SELECT count(*) FROM pg_roles").fetchone()
    with pytest.raises(SecretRefused, match="rotate_tenant_secret"):
        make_tenant(fresh_database, tenancy_migrations, "late", {"currency": "EUR"})
    assert fresh_database.as_superuser().execute("SELECT count(*) FROM pg_roles").fetchone() == roles


def test_an_installation_without_the_table_has_no_wrong_secret(fresh_database: Database) -> None:
    superuser = fresh_database.as_superuser()
    superuser.execute("DROP TABLE shared.secret_checks")
    assert wrong_secrets(superuser, {TENANT_SECRET: "any"}) == []


def test_no_tenant_may_read_a_check_value(fresh_database: Database) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        fresh_database.as_tenant("eur").execute("SELECT * FROM shared.secret_checks")
