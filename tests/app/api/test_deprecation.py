"""A deprecated operation says so in each answer and in the description."""

from datetime import date
from typing import Any

import pytest
from flask import Flask

from app.api import problems
from app.api.application import Application
from app.api.blueprint import Blueprint
from app.api.deprecation import deprecated
from app.api.openapi import document_of, make_api
from app.errors import NotFound

SINCE, UNTIL = date(2026, 12, 1), date(2027, 6, 1)
HEADERS = {
    "Deprecation": "@1796083200",
    "Sunset": "Tue, 01 Jun 2027 00:00:00 GMT",
    "Link": '</api/new>; rel="successor-version"',
}


@pytest.fixture
def old() -> Flask:
    """An application with a deprecated operation and a current one."""
    app, blueprint = Application("name"), Blueprint("name", "name", url_prefix="/api")
    api = make_api(app, {}, [])
    problems.register(app)

    @blueprint.get("/old")
    @deprecated(since=SINCE, until=UNTIL, successor="/api/new")
    @blueprint.response(200)
    def show_old() -> dict[str, Any]:
        """Show it."""
        return {}

    @blueprint.get("/old/missing")
    @deprecated(since=SINCE, until=UNTIL, successor="/api/new")
    @blueprint.response(200)
    def show_missing() -> None:
        """Show nothing."""
        raise NotFound("There is nothing.")

    @blueprint.get("/new")
    @blueprint.response(200)
    def show_new() -> dict[str, Any]:
        """Show it."""
        return {}

    api.register_blueprint(blueprint)
    return app


def test_every_answer_of_a_deprecated_operation_says_since_and_until_when(old: Flask) -> None:
    client = old.test_client()
    for path, status in (("/api/old", 200), ("/api/old/missing", 404)):
        answer = client.get(path)
        assert answer.status_code == status
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert not set(HEADERS) & set(client.get("/api/new").headers.keys())


def test_the_description_marks_it(old: Flask) -> None:
    paths = document_of(old)["paths"]
    assert paths["/api/old"]["get"]["deprecated"] is True
    assert set(HEADERS) <= set(paths["/api/old"]["get"]["responses"]["200"]["headers"])
    assert "deprecated" not in paths["/api/new"]["get"]


def test_an_operation_is_served_for_half_a_year_after_its_deprecation() -> None:
    with pytest.raises(ValueError, match="180 days"):
        deprecated(since=SINCE, until=date(2027, 1, 1), successor="/api/new")
