"""A tenant with something in every table and a backup of it, for the tests of restores."""

from pathlib import Path

import pytest
from flask import Flask

from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.testing.plugin import Database
from tests.factories.bundles import SLUG, Furnished, furnish, take
from tests.factories.door import Run, door


@pytest.fixture
def furnished(fresh_database: Database, fresh_app: Flask) -> Furnished:
    """A tenant of this test's own with something in every table; its slug is SLUG."""
    return furnish(fresh_database, fresh_app)


@pytest.fixture
def bundle(fresh_database: Database, furnished: Furnished, tmp_path: Path) -> Bundle:
    """A backup of it."""
    return take(fresh_database, SLUG, tmp_path)


@pytest.fixture
def run(fresh_database: Database, monkeypatch: pytest.MonkeyPatch) -> Run:
    return door(fresh_database, monkeypatch)
