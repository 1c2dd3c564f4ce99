"""A tenant with rows in every table and a backup of it, for the tests of restore."""

import pytest

from tenant_schemas.testing.plugin import Database
from tests.factories.bundles import bundle, furnished, furnished_template  # noqa: F401
from tests.factories.script_runner import Run, script_runner


@pytest.fixture
def run(fresh_database: Database, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The operators' scripts on this database."""
    return script_runner(fresh_database, monkeypatch)
