"""Applications with limits small enough to be reached."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from flask import Flask

from app import create_app
from tenant_schemas.flask import EXTENSION
from tenant_schemas.registry import change_settings
from tenant_schemas.testing.plugin import Database
from tests.conftest import settings_for
from tests.factories.api import Api
from tests.factories.people import People


class World:
    """One application on a database of the test's own, with an admin of both tenants."""

    def __init__(self, app: Flask, database: Database) -> None:
        self.app = app
        self.database = database
        self.api = Api(app)
        self.people = People(app)
        self.admin = self.people.make(eur="admin", km="admin")

    def get(self, slug: str, path: str = "/api/wallet", **more: Any) -> Any:
        return self.api.get(path, self.admin, slug, **more)

    def post(self, slug: str, path: str, **more: Any) -> Any:
        return self.api.post(path, self.admin, slug, **more)

    def configure(self, slug: str, **changed: Any) -> None:
        """Change the tenant's settings by SQL, unchecked; None removes one."""
        with self.database.admin_engine().begin() as connection:
            change_settings(connection, self.database.tenant(slug).id, changed)


Make = Callable[..., World]


@pytest.fixture
def make(fresh_database: Database) -> Iterator[Make]:
    with ExitStack() as stack:
        yield lambda **changed: stack.enter_context(_world(fresh_database, changed))


@contextmanager
def _world(database: Database, changed: dict[str, Any]) -> Iterator[World]:
    app = create_app(settings_for(database, **changed))
    try:
        yield World(app, database)
    finally:
        app.extensions[EXTENSION].close()
