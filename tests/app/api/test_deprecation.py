"""A deprecated operation says so in each answer and in the description."""

from datetime import date
from typing import Any

import pytest
from flask import Flask

from app.api import deprecation, problems
from app.api.application import Application
from app.api.blueprint import Blueprint
from app.api.deprecation import deprecated
from app.api.openapi import document_of, make_api
from app.current import request
from app.errors import NotFound, TooManyRequests

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

    @app.before_request
    def refuse() -> None:
        if "refused" in request.headers:
            raise TooManyRequests("Refused before the view.")

    api.register_blueprint(blueprint)
    deprecation.init_app(app)
    return app


def test_every_answer_of_a_deprecated_operation_says_since_and_until_when(old: Flask) -> None:
    client = old.test_client()
    gate = {"refused": "yes"}
    for path, headers, status in (("/api/old", {}, 200), ("/api/old/missing", {}, 404), ("/api/old", gate, 429)):
        answer = client.get(path, headers=headers)
        assert answer.status_code == status
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert not set(HEADERS) & set(client.get("/api/new").headers.keys())


def test_an_application_without_a_deprecated_operation_pays_nothing(app: Flask, old: Flask) -> None:
    assert len(old.after_request_funcs[None]) == 1
    assert "deprecation" not in str(app.after_request_funcs[None])


def test_the_description_marks_it(old: Flask) -> None:
    paths = document_of(old)["paths"]
    assert paths["/api/old"]["get"]["deprecated"] is True
    assert set(HEADERS) <= set(paths["/api/old"]["get"]["responses"]["200"]["headers"])
    assert "deprecated" not in paths["/api/new"]["get"]


def test_an_operation_is_served_for_half_a_year_after_its_deprecation() -> None:
    with pytest.raises(ValueError, match="180 days"):
        deprecated(since=SINCE, until=date(2027, 1, 1), successor="/api/new")
