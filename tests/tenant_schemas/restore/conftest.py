"""A tenant with something in every table and a backup of it, for the tests of restores."""

import pytest

from tenant_schemas.testing.plugin import Database
from tests.factories.bundles import bundle, furnished, furnished_template  # noqa: F401
from tests.factories.door import Run, door


@pytest.fixture
def run(fresh_database: Database, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The operators' scripts on this database."""
    return door(fresh_database, monkeypatch)
