"""The fields that all schemas share."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import marshmallow
import pytest

from app.api.fields import Choice, Identifier, Moment, Schema, Text, Words, coded


class ThingSchema(Schema):
    text = Text(max_length=5)
    choice = Choice(Words("Number", "one", "two"))
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


@pytest.mark.parametrize("text", ["x", "12345", "a\tb", "a\nb", "𝕏𝕏𝕏𝕏𝕏", "  x  ", "đ'\"<", "a\u202eb", "\u3164"])
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
