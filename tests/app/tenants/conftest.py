"""An operator, and an installation of each test's own where tenants change."""

from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app.tenants.provisioning_worker import EXTENSION as PROVISIONER
from app.tenants.provisioning_worker import Provisioner
from tenant_schemas.testing.plugin import Database
from tests.factories.api import Api
from tests.factories.people import People, Person

TENANTS = "/api/admin/tenants"


def make_operator(app: Flask, database: Database) -> Person:
    """An operator who is a member of no tenant."""
    return People(app).make(name="Operator", is_operator=True)


class Installation:
    """An application on a database that one test may break, with an operator."""

    def __init__(self, app: Flask, database: Database) -> None:
        self.app, self.database = app, database
        self.api, self.people = Api(app), People(app)
        self.operator = make_operator(app, database)

    def another_operator(self) -> Person:
        return make_operator(self.app, self.database)


@pytest.fixture
def operator(app: Flask, database: Database) -> Person:
    return make_operator(app, database)


@pytest.fixture
def own(fresh_app: Flask, fresh_database: Database) -> Installation:
    return Installation(fresh_app, fresh_database)


@pytest.fixture
def slug() -> str:
    """Roles belong to the whole server, so each test needs another slug."""
    return f"p{uuid4().hex[:12]}"


def ask(own: Installation, slug: str, **told: Any) -> TestResponse:
    return own.api.send("POST", TENANTS, own.operator, json={"id": slug, "currency": "CHF"} | told)


def asked(own: Installation, slug: str, **told: Any) -> str:
    """The request's URL, to poll."""
    response = ask(own, slug, **told)
    assert (response.status_code, response.json["status"]) == (202, "pending"), response.text
    return response.headers["Location"]


def became(own: Installation, location: str) -> dict[str, Any]:
    response = own.api.get(location, own.operator)
    assert response.status_code == 200, response.text
    return dict(response.json)


def work_off(app: Flask) -> None:
    own: Provisioner = app.extensions[PROVISIONER]
    with app.app_context():
        own.work_off()


def remains(database: Database, slug: str) -> list[str]:
    """Everything that exists of a tenant with this slug."""
    query = """
        SELECT 'role' FROM pg_roles WHERE rolname = 'tenant_' || %(slug)s
        UNION ALL SELECT 'schema' FROM pg_namespace WHERE nspname = %(slug)s || '_schema'
        UNION ALL SELECT 'row' FROM shared.tenants WHERE slug = %(slug)s"""
    return [thing for (thing,) in database.as_superuser().execute(query, {"slug": slug})]
