"""A copy of the histories, to which tests add revisions."""

from pathlib import Path

import pytest

from tenant_schemas.migrations.history import History, Migrations
from tests.factories.histories import copied_histories
from tests.factories.scratch_revision import STEPS, migrations_in, next_number, write_revision


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of the repository with its histories."""
    copied_histories(tmp_path)
    return tmp_path


@pytest.fixture
def scratch(repository: Path) -> Migrations:
    """The repository's histories, and one more revision for tenants."""
    write_revision(repository, History.TENANT, next_number(), STEPS)
    return migrations_in(repository)


@pytest.fixture
def histories(tmp_path: Path) -> Migrations:
    """A copy of the repository's histories, to add revisions to."""
    return copied_histories(tmp_path)
