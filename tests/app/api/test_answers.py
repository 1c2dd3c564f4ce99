"""A JSON answer is sent as Werkzeug's response would be."""

from typing import Any

import orjson
import pytest
from flask import Flask, Response
from werkzeug.test import create_environ, run_wsgi_app

from app.api.answers import JsonAnswer, json_answer, protect

PROTECTION = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
HEADERS: tuple[dict[str, str] | None, ...] = (
    None,
    {},
    {"ETag": '"1"', "Idempotent-Replayed": "true"},
    {"Location": "/api/orders/a%20b"},
)


def sent(response: Response, method: str) -> tuple[bytes, str, list[tuple[str, str]]]:
    """Body, status and headers, in the order of their names."""
    body, status, headers = run_wsgi_app(response, create_environ(method=method))
    return b"".join(body), status, sorted(headers.items())


@pytest.mark.parametrize("headers", HEADERS)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
@pytest.mark.parametrize("status", [200, 201, 202, 204, 299, 304, 400, 422, 429, 503])
def test_it_is_sent_as_a_response_of_werkzeug(status: int, method: str, headers: dict[str, str] | None) -> None:
    value = {"đ": [1, None, "a"]}
    plain = Response(orjson.dumps(value), status, headers, mimetype="application/json")
    plain.headers.extend(PROTECTION)
    assert sent(json_answer(value, status, headers), method) == sent(plain, method)


def test_it_has_the_parts_of_a_response() -> None:
    answer = JsonAnswer(b'{"a":1}', 422, {"Retry-After": "1"}, "application/problem+json")
    assert (answer.status_code, answer.status, answer.json) == (422, "422 UNPROCESSABLE ENTITY", {"a": 1})
    assert (answer.mimetype, answer.content_length, answer.get_data()) == ("application/problem+json", 7, b'{"a":1}')


def test_what_a_hook_changes_is_sent() -> None:
    answer = json_answer({"a": 1}, 200)
    answer.data = b"changed"
    answer.status_code = 202
    answer.headers["X-More"] = "more"
    body, status, headers = sent(answer, "GET")
    assert (body, status) == (b"changed", "202 ACCEPTED")
    assert {("Content-Length", "7"), ("X-More", "more")} < set(headers)
    answer.response = iter([b"in ", "pieces"])
    assert sent(answer, "GET")[0] == b"in pieces"


def test_it_calls_what_waits_for_its_end() -> None:
    ended: list[bool] = []
    answer = json_answer({}, 200)
    answer.call_on_close(lambda: ended.append(True))
    run_wsgi_app(answer, create_environ())[0].close()  # type: ignore[attr-defined]
    assert ended == [True]


def test_a_header_with_a_line_break_is_refused() -> None:
    with pytest.raises(ValueError, match="newline"):
        json_answer({}, 200, {"ETag": "a\nb"})


@pytest.mark.parametrize(
    ("given", "kept"),
    [(None, "no-store"), ("private", "no-store"), ("public, max-age=5", "public, max-age=5")],
)
def test_only_a_public_answer_may_be_stored(given: str | None, kept: str) -> None:
    response: Any = Response("x", headers={"Cache-Control": given} if given else None)
    assert protect(response).headers["Cache-Control"] == kept
    assert protect(response).headers.getlist("X-Content-Type-Options") == ["nosniff"]


def test_a_json_answer_is_protected_once() -> None:
    answer = protect(json_answer({}, 200))
    assert [answer.headers.getlist(name) for name, _ in PROTECTION] == [[value] for _, value in PROTECTION]


def test_every_answer_of_the_service_is_protected(app: Flask) -> None:
    for path in ("/livez", "/api/wallet", "/nowhere", "/openapi.json", "/docs/", "/.well-known/jwks.json"):
        headers = app.test_client().get(path).headers
        assert len(headers.getlist("Cache-Control")) == 1, path
        assert headers.getlist("X-Content-Type-Options") == ["nosniff"], path
