"""The fields and headers that all routes share, one by one."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import marshmallow
import pytest
from flask import Flask, jsonify

from app.api.fields import Choice, Identifier, Moment, Schema, Text, coded
from app.api.flask_overrides import FastJson
from app.api.headers import etag, idempotency_key, if_match_version
from app.errors import IdempotencyKeyRequired, Invalid, PreconditionFailed, PreconditionRequired
from tests.factories.api import Api


class ThingSchema(Schema):
    text = Text(max_length=5)
    choice = Choice("one", "two")
    identifier = Identifier()
    moment = Moment()


SCHEMA = ThingSchema()


def load(**given: Any) -> Any:
    return SCHEMA.load(given)


def codes(**given: Any) -> dict[str, str]:
    with pytest.raises(marshmallow.ValidationError) as caught:
        load(**given)
    messages: dict[str, list[Any]] = caught.value.messages_dict
    return {name: said[0].code for name, said in messages.items()}


@pytest.mark.parametrize("text", ["x", "12345", "a\tb", "a\nb", "𝕏𝕏𝕏𝕏𝕏", "  x  ", "đ'\"<"])
def test_text_is_kept_as_it_is(text: str) -> None:
    assert load(text=text) == {"text": text}


def test_each_fault_has_a_code() -> None:
    assert codes(text="123456") == {"text": "too_long"}
    assert codes(text="\t\n") == {"text": "empty"}
    assert codes(text="\x00") == {"text": "control_character"}
    assert codes(choice="three") == {"choice": "unknown_choice"}
    assert codes(identifier="three") == {"identifier": "not_a_uuid"}
    assert codes(moment="three") == {"moment": "not_a_moment"}
    assert codes(other="x") == {"other": "unknown_field"}


def test_a_fault_names_what_would_be_right() -> None:
    with pytest.raises(marshmallow.ValidationError) as caught:
        load(text="123456", choice="three")
    messages = caught.value.messages_dict
    assert "5" in messages["text"][0]
    assert "one, two" in messages["choice"][0]


def test_a_message_keeps_its_code_when_it_is_filled_in() -> None:
    filled = coded("too_long", "At most {most}.").format(most=5)
    assert (filled, filled.code) == ("At most 5.", "too_long")


@pytest.mark.parametrize(
    ("sent", "moment"),
    [
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:00.123456Z", datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)),
        ("2026-01-31T12:00:00+02:00", datetime(2026, 1, 31, 10, tzinfo=UTC)),
        ("2026-01-31T12:00:00-11:30", datetime(2026, 1, 31, 23, 30, tzinfo=UTC)),
    ],
)
def test_a_moment_is_read_with_its_offset(sent: str, moment: datetime) -> None:
    assert load(moment=sent) == {"moment": moment}


def test_a_moment_is_written_in_utc_to_the_microsecond() -> None:
    elsewhere = datetime(2026, 1, 31, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert SCHEMA.dump({"moment": elsewhere}) == {"moment": "2026-01-30T23:30:00.000000Z"}
    assert SCHEMA.dump({"moment": None}) == {"moment": None}


def test_an_answer_keeps_the_order_of_its_fields() -> None:
    assert list(SCHEMA.dump({"moment": None, "choice": "one", "text": "x"})) == ["text", "choice", "moment"]


@pytest.mark.parametrize("key", ["x", "!", "~", "x" * 200, "550e8400-e29b-41d4-a716-446655440000"])
def test_an_idempotency_key_is_kept_as_it_is(app: Flask, key: str) -> None:
    with app.test_request_context(headers={"Idempotency-Key": key}):
        assert idempotency_key() == key


def test_an_idempotency_key_is_needed_and_has_a_shape(app: Flask) -> None:
    with app.test_request_context(), pytest.raises(IdempotencyKeyRequired):
        idempotency_key()
    for key in ("x" * 201, "a b", "é", "\x7f", "a\tb", "a\u00a0b", "a,b"):
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


def test_json_is_written_in_utf_8_and_read_back(app: Flask) -> None:
    value = {"đ": ["𝕏", 1, None, True, {"a": "\n"}], "id": str(UUID(int=1))}
    json = FastJson(app)
    assert json.loads(json.dumps(value)) == value
    with app.test_request_context():
        answer = jsonify(value)
        assert answer.mimetype == "application/json"
        assert "đ".encode() in answer.data
        assert b" " not in answer.data


def test_every_answer_is_for_the_caller_alone_and_sets_no_cookie(api: Api) -> None:
    for path in ("/livez", "/api/me", "/nowhere", "/openapi.json"):
        headers = api.get(path).headers
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Set-Cookie" not in headers
