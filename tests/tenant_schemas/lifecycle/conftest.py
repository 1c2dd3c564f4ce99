"""A tenant to archive, drop or rename, and people in it."""

import pytest
from flask import Flask

from tenant_schemas.lifecycle import lock_retry
from tests.factories.people import People
from tests.factories.tenants import mark, mark_template  # noqa: F401


@pytest.fixture
def own(fresh_app: Flask) -> People:
    """People on the test's own database."""
    return People(fresh_app)


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the attempts to lock what stays locked for the whole test."""
    monkeypatch.setattr(lock_retry, "_PAUSES_SECONDS", (0.01, 0.01))
