"""The operators' scripts on a test's own database, in this process, and tenants and bundles for them."""

import pytest
from flask import Flask

from tenant_schemas.testing.plugin import Database
from tests.factories.bundles import bundle, furnished, furnished_template  # noqa: F401
from tests.factories.people import People
from tests.factories.script_runner import Run, script_runner
from tests.factories.tenants import mark, mark_template  # noqa: F401


@pytest.fixture
def tenant_logins() -> str:
    """The login mode of the installation. A module may override it."""
    return "own"


@pytest.fixture
def run(fresh_database: Database, monkeypatch: pytest.MonkeyPatch, tenant_logins: str) -> Run:
    """`run("migrate", *arguments)` runs a script on the test's own database."""
    return script_runner(fresh_database, monkeypatch, tenant_logins)


@pytest.fixture
def own(fresh_app: Flask) -> People:
    """People on the test's own database."""
    return People(fresh_app)
