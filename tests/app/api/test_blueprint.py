"""Routes parse requests and dump results, and flask-smorest's documentation of them is kept."""

import inspect
from typing import Any

import marshmallow
import pytest
from flask import Flask, Response
from flask_smorest import Blueprint as SmorestBlueprint
from marshmallow import fields

from app.api.application import Application
from app.api.blueprint import Blueprint
from app.api.fields import Answer, Schema, Text
from app.api.headers import gives_etag, needs_idempotency_key, takes_up_to


class BodySchema(Schema):
    name = Text(max_length=5, required=True)


class FilterQuery(Schema):
    q = Text(max_length=5)


class ThingSchema(Answer):
    name = fields.String()


def documented(kind: Any) -> Any:
    """A view with every decorator of a blueprint of this kind."""
    blueprint = kind("name", "name")

    @needs_idempotency_key
    @takes_up_to(10)
    @blueprint.arguments(BodySchema)
    @blueprint.arguments(FilterQuery, location="query")
    @blueprint.response(201, ThingSchema)
    @blueprint.alt_response(200, schema=ThingSchema)
    @blueprint.alt_response(200, schema={"type": "string"}, content_type="text/csv")
    @gives_etag
    def view(body: Any, query: Any) -> Any:
        """Do something."""

    return view


def plain(about: Any) -> Any:
    """The documentation, with the class of each schema in place of its instance."""
    if isinstance(about, dict):
        return {name: plain(inner) for name, inner in about.items()}
    if isinstance(about, list):
        return [plain(inner) for inner in about]
    is_schema = isinstance(about, marshmallow.Schema)
    return type(about) if is_schema else about


def test_the_documentation_is_flask_smorests() -> None:
    ours, smorests = documented(Blueprint), documented(SmorestBlueprint)
    declared = ours._apidoc.pop("refusals")
    assert {kind for kind, _ in smorests._apidoc.pop("refusals")} < {kind for kind, _ in declared}
    assert plain(ours._apidoc) == plain(smorests._apidoc)
    assert {"arguments", "response", "headers", "gives"} <= set(ours._apidoc)
    assert (ours.__name__, ours.__doc__) == (smorests.__name__, smorests.__doc__) == ("view", "Do something.")


def test_a_view_can_be_unwrapped() -> None:
    assert inspect.signature(documented(Blueprint)).parameters.keys() == {"body", "query"}


def answering(result: Any) -> Flask:
    """An application whose views return this."""
    app, blueprint = Application("name"), Blueprint("name", "name")
    blueprint.get("/with-schema")(blueprint.response(200, ThingSchema)(lambda: result))
    blueprint.get("/without-schema")(blueprint.response(204)(lambda: result))
    app.register_blueprint(blueprint)
    return app


THING = {"name": "a", "more": "b"}


@pytest.mark.parametrize(
    ("result", "status", "etag"),
    [
        (THING, 200, None),
        ((THING, 202), 202, None),
        ((THING, {"ETag": '"1"'}), 200, '"1"'),
        ((THING, 202, {"ETag": '"1"'}), 202, '"1"'),
        ((THING, 202, {}), 202, None),
    ],
)
def test_a_view_may_return_a_status_and_headers(result: Any, status: int, etag: str | None) -> None:
    answer = answering(result).test_client().get("/with-schema")
    assert (answer.status_code, answer.json, answer.headers.get("ETag")) == (status, {"name": "a"}, etag)


def test_a_response_stays_as_it_is() -> None:
    answer = answering(Response("text", 299)).test_client().get("/with-schema")
    assert (answer.status_code, answer.data, answer.mimetype) == (299, b"text", "text/html")


def test_no_content_has_no_body() -> None:
    answer = answering(None).test_client().get("/without-schema")
    assert (answer.status_code, answer.data, answer.content_length) == (204, b"", None)


def test_a_wrong_tuple_is_an_error() -> None:
    app = answering((THING, 200, {}, "more"))
    app.testing = True
    with pytest.raises(TypeError, match="a tuple of 4"):
        app.test_client().get("/with-schema")


def test_the_body_is_passed_before_the_query_and_the_path_by_name() -> None:
    app, blueprint, passed = Application("name"), Blueprint("name", "name"), []
    app.config["MAX_CONTENT_LENGTH"] = 100

    @blueprint.post("/<int:number>")
    @blueprint.arguments(BodySchema)
    @blueprint.arguments(FilterQuery, location="query")
    @blueprint.response(200)
    def view(*arguments: Any, **named: Any) -> None:
        passed.extend([arguments, named])

    app.register_blueprint(blueprint)
    assert app.test_client().post("/7?q=x", json={"name": "a"}).json is None
    assert passed == [({"name": "a"}, {"q": "x"}), {"number": 7}]
