"""A wrong TENANT_SECRET is refused before anything is done, and the first check value is proved by a login."""

from dataclasses import replace

import pytest

from app.config import Settings
from app.secret_checks import record_first_secrets, refuse_wrong_secret, secrets_of
from tenant_schemas.errors import SecretRefused
from tenant_schemas.roles import driver_of
from tenant_schemas.secret_checks import wrong_secrets
from tenant_schemas.testing.plugin import Database
from tests.conftest import settings_for

WRONG = "a tenant secret of another installation"


@pytest.fixture
def settings(fresh_database: Database) -> Settings:
    return settings_for(fresh_database)


def test_a_recorded_secret_refuses_every_other_one(fresh_database: Database, settings: Settings) -> None:
    refuse_wrong_secret(replace(settings, tenant_secret=WRONG))  # Nothing is recorded yet.
    record_first_secrets(fresh_database.admin_engine(), settings)
    refuse_wrong_secret(settings)
    of_service = replace(settings, admin_database_url="")
    of_backups = replace(of_service, backup_database_url=fresh_database.url(fresh_database.roles.backup))
    for each in (settings, of_service, of_backups):
        with pytest.raises(SecretRefused, match="TENANT_SECRET is not the secret"):
            refuse_wrong_secret(replace(each, tenant_secret=WRONG))
    with fresh_database.admin_engine().connect() as connection:
        changed = secrets_of(replace(settings, secret_key=WRONG))
        assert wrong_secrets(driver_of(connection), changed) == ["SECRET_KEY"]


def test_a_second_record_changes_nothing(fresh_database: Database, settings: Settings) -> None:
    record_first_secrets(fresh_database.admin_engine(), settings)
    record_first_secrets(fresh_database.admin_engine(), replace(settings, tenant_secret=WRONG))
    refuse_wrong_secret(settings)


def test_a_first_secret_that_opens_no_tenants_login_is_not_recorded(
    fresh_database: Database, settings: Settings
) -> None:
    with pytest.raises(SecretRefused, match="none of these tenants can log in: eur, km"):
        record_first_secrets(fresh_database.admin_engine(), replace(settings, tenant_secret=WRONG))
    record_first_secrets(fresh_database.admin_engine(), settings)
    refuse_wrong_secret(settings)


def test_a_server_that_is_away_is_no_wrong_secret(settings: Settings) -> None:
    away = "postgresql://wallet_app:x@127.0.0.1:1/wallet"
    refuse_wrong_secret(replace(settings, database_url=away, admin_database_url=away))
