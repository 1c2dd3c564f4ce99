"""Isolation tests run in both login modes: `app` once has a login for each tenant, and once the pool's one login."""

from collections.abc import Iterator

import pytest
from flask import Flask

from app import create_app
from tenant_schemas.flask import EXTENSION
from tenant_schemas.testing.plugin import Database
from tests.conftest import settings_for


@pytest.fixture(scope="session", params=["own", "shared"])
def tenant_logins(request: pytest.FixtureRequest) -> str:
    """The login mode of the test."""
    return str(request.param)


@pytest.fixture(scope="session")
def app(database: Database, tenant_logins: str) -> Iterator[Flask]:
    """The application on the shared database, in this mode."""
    app = create_app(settings_for(database, tenant_logins=tenant_logins))
    yield app
    app.extensions[EXTENSION].close()
