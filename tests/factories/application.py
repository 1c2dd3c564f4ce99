"""The application's parts for the engine, as fixtures: engine tests use them and never import the application.

tests/conftest.py imports the fixtures, beside its own `tenancy_migrations`, `app` and `fresh_app`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask

from app import create_app
from app.backup_policy import BACKUP_POLICY
from app.tenancy import RESERVED_SLUGS
from tenant_schemas.backup.policy import BackupPolicy
from tenant_schemas.flask import EXTENSION
from tenant_schemas.testing.plugin import Database


@pytest.fixture(scope="session")
def backup_policy() -> BackupPolicy:
    return BACKUP_POLICY


@pytest.fixture(scope="session")
def reserved_slugs() -> frozenset[str]:
    """Slugs that no tenant may have."""
    return RESERVED_SLUGS


@contextmanager
def running(database: Database, **settings: Any) -> Iterator[Flask]:
    """The application on this database, with these settings changed."""
    from tests.conftest import settings_for

    app = create_app(settings_for(database, **settings))
    try:
        yield app
    finally:
        app.extensions[EXTENSION].close()
