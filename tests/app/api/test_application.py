"""The application handles requests as Flask does. Each test compares the two."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, after_this_request, g, request, request_tearing_down
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.test import create_environ

from app.api.application import Application, path_of_url, static_rules
from tests.factories.api import Api
from tests.factories.people import People

PATHS = (
    "/",
    "/fixed",
    "/fixed/",
    "//fixed",
    "/slash/",
    "/slash",
    "/both",
    "/item/5",
    "/item/x",
    "/fixed/é",
    "",
    "/old",
)
HOSTS = ("localhost", "LOCALHOST:80", "example.com:8000", "é.example", "a..b", "x" * 64, "", "a b", "[::1]", "x/y")


def make(kind: type[Flask]) -> Flask:
    """A small application with every kind of hook."""
    app = kind("small", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = 100
    app.url_map.merge_slashes = False
    app.before_request(lambda: setattr(g, "steps", ["before"]))
    app.before_request(lambda: "stopped" if request.args.get("stop") else None)
    for step in ("after 1", "after 2"):
        app.after_request(adds(step))
    app.teardown_request(lambda error: TORN.append((app.name, repr(error))))
    for rule, methods in (
        ("/", ["GET"]),
        ("/fixed", ["GET"]),
        ("/slash/", ["GET", "POST"]),
        ("/item/<int:number>", ["GET"]),
    ):
        app.add_url_rule(rule, rule, shown, methods=methods)
    app.add_url_rule("/both", "both get", shown, methods=["GET"])
    app.add_url_rule("/both", "both put", shown, methods=["PUT"])
    app.add_url_rule("/fails", "fails", lambda: 1 / 0)
    app.add_url_rule("/once", "once", once)
    app.add_url_rule("/old", "old", shown, redirect_to="/fixed")
    return app


TORN: list[tuple[str, str]] = []


def adds(step: str) -> Callable[[Response], Response]:
    def add(response: Response) -> Response:
        response.headers.add("X-Step", step)
        return response

    return add


def shown(**variables: Any) -> dict[str, Any]:
    g.count = g.get("count", 0) + 1
    return {
        "steps": [*g.steps, g.count, "nothing" in g],
        "endpoint": request.endpoint,
        "variables": variables,
        "arguments": list(request.args.items(multi=True)),
        "place": [request.host, request.url, request.path, request.max_content_length],
    }


def once() -> dict[str, Any]:
    after_this_request(adds("once"))
    return shown()


@pytest.fixture(scope="module")
def both() -> tuple[Flask, Flask]:
    return make(Flask), make(Application)


def answers(app: Flask, environ: dict[str, Any]) -> tuple[int, bytes, list[tuple[str, str]]]:
    with app.request_context(environ):
        response = app.full_dispatch_request()
        told = list(response.headers)
        if "Location" in response.headers:  # Flask's names the host, ours the path alone.
            kept = [(name, value) for name, value in told if name not in {"Location", "Content-Length"}]
            return response.status_code, path_of_url(response.headers["Location"]).encode(), kept
        return response.status_code, response.get_data(), told


def outcome(app: Flask, **about: Any) -> Any:
    try:
        return answers(app, environ(**about))
    except ZeroDivisionError as error:
        return repr(error)


def environ(*, path: str, method: str = "GET", host: str = "localhost", query: str = "", **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = create_environ("/x", method=method) | more
    return made | {"PATH_INFO": path, "HTTP_HOST": host.encode().decode("latin-1"), "QUERY_STRING": query}


@given(
    path=st.sampled_from((*PATHS, "/once", "/fails")),
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "OPTIONS", "get", "ODD"]),
    host=st.sampled_from(HOSTS),
    query=st.sampled_from(["", "a=1", "a=1&a=2&b=", "stop=1", "%ff=%00"]),
    more=st.sampled_from(
        [
            {},
            {"HTTP_UPGRADE": "websocket", "HTTP_CONNECTION": "upgrade"},
            {"SCRIPT_NAME": "/mounted"},
            {"wsgi.url_scheme": "https"},
        ]
    ),
)
@settings(max_examples=500, deadline=None, database=None)
def test_requests_are_answered_as_by_flask(both: tuple[Flask, Flask], more: dict[str, Any], **about: str) -> None:
    flasks, ours = (outcome(app, **about, **more) for app in both)
    assert ours == flasks


@pytest.mark.parametrize(
    "change",
    [
        lambda app: app.config.update(SERVER_NAME="example.com"),
        lambda app: app.config.update(TRUSTED_HOSTS=["example.com"]),
        lambda app: app.config.update(MAX_CONTENT_LENGTH=None),
        lambda app: setattr(app, "subdomain_matching", True),
        lambda app: setattr(app.url_map, "host_matching", True),
        lambda app: setattr(app.url_map, "default_subdomain", "www"),
        lambda app: app.url_value_preprocessor(lambda endpoint, values: values and values.update(number=7)),
        lambda app: app.register_blueprint(hooked()),
    ],
)
def test_what_it_does_not_expect_is_flasks(change: Callable[[Flask], object]) -> None:
    apps = make(Flask), make(Application)
    for app in apps:
        change(app)
    for path in (*PATHS, "/hooked"):
        for host in ("example.com", "www.example.com", "localhost"):
            flasks, ours = (outcome(app, path=path, host=host) for app in apps)
            assert ours == flasks, (path, host)


def hooked() -> Blueprint:
    blueprint = Blueprint("hooked", "hooked")
    blueprint.before_request(lambda: g.steps.append("blueprint"))
    blueprint.after_request(adds("blueprint"))
    blueprint.teardown_request(lambda error: TORN.append(("blueprint", repr(error))))
    blueprint.add_url_rule("/hooked", "hooked", shown)
    return blueprint


@pytest.mark.parametrize("with_blueprint", [False, True])
@pytest.mark.parametrize("path", ["/fixed", "/nowhere", "/fails", "/hooked"])
def test_a_request_ends_as_in_flask(path: str, with_blueprint: bool) -> None:
    ends = []
    for kind in (Flask, Application):
        app = make(kind)
        if with_blueprint:
            app.register_blueprint(hooked())
        signalled: list[Any] = []

        def note(_: Any, exc: Any = None, signalled: list[Any] = signalled, **__: Any) -> None:
            signalled.append(repr(exc))

        TORN.clear()
        with request_tearing_down.connected_to(note, app):
            status = app.test_client().get(path).status_code
        ends.append((status, list(TORN), signalled))
        TORN.clear()
        app.test_client().get(path)
        ends[-1] = (*ends[-1], list(TORN))
    assert ends[0] == ends[1]


def adapters(app: Flask) -> Iterator[tuple[str, str]]:
    for rule in app.url_map.iter_rules():
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            for path in (rule.rule, f"{rule.rule}/", rule.rule.rstrip("/"), f"/{rule.rule}", rule.rule.upper()):
                yield method, path


def test_all_routes_of_the_service_are_found_as_by_flask(app: Flask) -> None:
    places = list(adapters(app))
    assert len(places) > 1000
    for method, path in places:
        request = app.request_class(environ(path=path, method=method))
        ours, flasks = app.create_url_adapter(request), Flask.create_url_adapter(app, request)
        assert matched(ours) == matched(flasks), (method, path)


def matched(adapter: Any) -> Any:
    try:
        return adapter.match(return_rule=True)
    except HTTPException as error:
        return type(error), getattr(error, "new_url", None), getattr(error, "valid_methods", None)


def test_a_rule_with_a_condition_is_searched() -> None:
    rules = (
        Rule("/plain", endpoint="plain", methods=["GET"]),
        Rule("/twice", endpoint="one", methods=["GET"]),
        Rule("/twice", endpoint="two", methods=["GET"], defaults={"a": 1}),
        Rule("/again", endpoint="three", methods=["GET"]),
        Rule("/again", endpoint="four", methods=["GET"]),
        Rule("/moved", endpoint="five", methods=["GET"], redirect_to="/plain"),
        Rule("/socket", endpoint="six", websocket=True),
        Rule("/<name>", endpoint="seven", methods=["GET"]),
    )
    assert {path for method, path in static_rules(Map(rules)) if method == "GET"} == {"/plain", "/twice"}


def test_a_query_that_is_not_utf_8_is_the_callers_mistake(api: Api, people: People) -> None:
    response = api.get("/livez", environ_overrides={"QUERY_STRING": "a=\xff"})
    assert response.status_code == 200
    response = api.get("/api/me", people.make(), environ_overrides={"QUERY_STRING": "a=\xff"})
    assert (response.status_code, response.json["code"]) == (400, "malformed_request")


def test_no_view_and_no_hook_of_the_service_is_a_coroutine_function(app: Flask) -> None:
    hooks = (app.before_request_funcs, app.after_request_funcs, app.teardown_request_funcs)
    functions = [
        *app.view_functions.values(),
        *(hook for by_blueprint in hooks for found in by_blueprint.values() for hook in found),
        *app.teardown_appcontext_funcs,
        *(handler for codes in app.error_handler_spec[None].values() for handler in codes.values()),
    ]
    assert len(functions) > 60
    assert [function for function in functions if inspect.iscoroutinefunction(function)] == []


def test_no_hook_of_the_service_belongs_to_a_blueprint(app: Flask) -> None:
    """Such a hook would make every request slower."""
    assert set(app.before_request_funcs) == set(app.after_request_funcs) == set(app.teardown_request_funcs) == {None}
    assert not app.url_value_preprocessors
