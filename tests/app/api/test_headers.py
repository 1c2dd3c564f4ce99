"""The headers that all routes share."""

import pytest
from flask import Flask

from app.api.headers import etag, idempotency_key, if_match_version
from app.errors import IdempotencyKeyRequired, Invalid, PreconditionFailed, PreconditionRequired
from tests.factories.api import Api


@pytest.mark.parametrize("key", ["x", "!", "~", "x" * 255, "550e8400-e29b-41d4-a716-446655440000"])
def test_an_idempotency_key_is_kept_as_it_is(app: Flask, key: str) -> None:
    with app.test_request_context(headers={"Idempotency-Key": key}):
        assert idempotency_key() == key


def test_an_idempotency_key_is_needed_and_has_a_shape(app: Flask) -> None:
    with app.test_request_context(), pytest.raises(IdempotencyKeyRequired):
        idempotency_key()
    for key in ("x" * 256, "a b", "é", "\x7f", "a\tb", "a\u00a0b", "a,b"):
        with app.test_request_context(headers={"Idempotency-Key": key}), pytest.raises(Invalid):
            idempotency_key()


def test_an_etag_is_read_back_as_the_version_it_was_made_of(app: Flask) -> None:
    for version in (1, 12, 999_999_999):
        with app.test_request_context(headers={"If-Match": etag(version)["ETag"]}):
            assert if_match_version() == version
    with app.test_request_context(), pytest.raises(PreconditionRequired):
        if_match_version()
    for header in ("1", '"x"', 'W/"1"', "*", '"1","2"', '""', '"1000000000000"'):
        with app.test_request_context(headers={"If-Match": header}), pytest.raises(PreconditionFailed):
            if_match_version()


def test_every_answer_is_for_the_caller_alone_and_sets_no_cookie(api: Api) -> None:
    for path in ("/livez", "/api/me", "/nowhere", "/openapi.json"):
        headers = api.get(path).headers
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Set-Cookie" not in headers
