"""The current request, `g` and application are those of Flask's proxies."""

from threading import Thread
from typing import Any

import flask
import pytest
from flask import Flask, Request

from app.current import current_app, current_globals, current_request, g, request


@pytest.fixture
def small() -> Flask:
    return Flask("small")


def test_they_are_flasks(small: Flask) -> None:
    with small.test_request_context("/place?a=1", method="PUT"):
        assert (request.method, request.path, request.args["a"]) == ("PUT", "/place", "1")
        assert (current_app.name, current_app.config) == ("small", small.config)
        assert current_request() is flask.request._get_current_object()  # type: ignore[attr-defined]
        assert current_globals() is flask.g._get_current_object()
        assert isinstance(request, Request)


def test_what_is_set_is_seen_through_both(small: Flask) -> None:
    with small.test_request_context():
        g.one = 1
        flask.g.two = 2
        request.max_content_length = 7
        assert (flask.g.one, g.two, g.get("three", 3), flask.request.max_content_length) == (1, 2, 3, 7)
        assert "one" in g
        assert "three" not in g
        assert g.pop("one") == 1
        assert "one" not in flask.g
        with pytest.raises(AttributeError):
            _ = g.one


def test_the_innermost_request_of_the_thread_counts(small: Flask) -> None:
    seen: list[Any] = []

    def look() -> None:
        with small.test_request_context("/other"):
            g.place = request.path
            seen.append(g.place)

    with small.test_request_context("/outer"):
        g.place = request.path
        with small.test_request_context("/inner"):
            assert request.path == "/inner"
        thread = Thread(target=look)
        thread.start()
        thread.join()
        assert (g.place, request.path, seen) == ("/outer", "/outer", ["/other"])


def test_outside_a_request_there_is_none(small: Flask) -> None:
    for find in (lambda: request.method, lambda: g.one, lambda: "one" in g, lambda: current_app.name, current_request):
        with pytest.raises(LookupError):
            find()
    with small.app_context():
        assert current_app.name == "small"
        with pytest.raises(LookupError):
            current_request()
