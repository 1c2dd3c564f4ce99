"""The suite's world: one database with the tenants eur and km, the application on it, and people to act in it.

Commits are real everywhere; each test makes its own people and wallets, and looks at those only. A test that needs a
whole tenant to itself, or breaks something, takes `fresh_database`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from flask import Flask

from app import create_app
from app.config import Settings
from app.tenancy import MIGRATIONS
from tenant_schemas.flask import EXTENSION
from tenant_schemas.migrations import Migrations
from tenant_schemas.testing import Database
from tests.factories.api import Api
from tests.factories.people import People

SECRET_KEY = "a signing key for tests, of 32 characters or more"


@pytest.fixture(scope="session")
def tenancy_migrations() -> Migrations:
    return MIGRATIONS


@pytest.fixture(scope="session")
def tenant_settings() -> Mapping[str, Mapping[str, Any]]:
    return {"eur": {"currency": "EUR", "currencies": ["USD", "JPY", "KWD"]}, "km": {"currency": "BAM"}}


def settings_for(database: Database, **changed: Any) -> Settings:
    """The settings of an application on a test database."""
    settings: dict[str, Any] = {
        "database_url": database.app_url,
        "admin_database_url": database.admin_url,
        "tenant_secret": database.tenant_secret,
        "secret_key": SECRET_KEY,
        "is_embedded": False,
        "base_domain": "wallet.example",
        "token_seconds": 900,
        "max_connections": 40,
        "connection_wait_seconds": 5.0,
        "statement_timeout_ms": 10_000,
        "max_body_bytes": 65_536,
        "hold_expiry_seconds": 0,
        "log_level": "info",
    }
    return Settings(**(settings | changed))


@pytest.fixture(scope="session")
def app(database: Database) -> Iterator[Flask]:
    """The application on the shared database."""
    yield from _running(database)


@pytest.fixture
def fresh_app(fresh_database: Database) -> Iterator[Flask]:
    """The application on a database of this test's own."""
    yield from _running(fresh_database)


def _running(database: Database) -> Iterator[Flask]:
    app = create_app(settings_for(database))
    yield app
    app.extensions[EXTENSION].close()


@pytest.fixture
def api(app: Flask) -> Api:
    return Api(app)


@pytest.fixture
def people(app: Flask) -> People:
    return People(app)
