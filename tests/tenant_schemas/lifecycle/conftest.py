"""A tenant to archive, drop or rename, and people in it."""

import pytest
from flask import Flask

from tests.factories.people import People
from tests.factories.tenants import mark, mark_template  # noqa: F401


@pytest.fixture
def own(fresh_app: Flask) -> People:
    """People on the test's own database."""
    return People(fresh_app)
