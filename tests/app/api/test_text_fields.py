"""Texts of the ledger keep honest text; names have nothing that can't be seen."""

import marshmallow
import pytest
from flask import Flask

from app.api.fields import Schema, Text
from app.api.text_fields import LedgerText, Name
from tests.factories.schemas import api_schemas


class ThingSchema(Schema):
    note = LedgerText(max_length=100)
    name = Name(max_length=100)


def code(**given: str) -> str | None:
    """The code of the fault; None for a text that is loaded as it is."""
    try:
        assert ThingSchema().load(given) == given
    except marshmallow.ValidationError as error:
        messages = error.messages_dict
        return str(next(iter(messages.values()))[0].code)
    return None


HONEST = {
    "a soft hyphen": "Donau\xaddampfschiff",
    "a mark in Hebrew": "\u05e9\u05dc\u05d5\u05dd!\u200f (EUR)",
    "a mark in Arabic": "\u0645\u0631\u062d\u0628\u0627\u061c 5",
    "a joiner after Latin": "PDF\u200c\u0647\u0627",
    "a joiner at the end": "\u0645\u200c",
    "the flag of Scotland": "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
    "an end of ayah": "\u06dd12",
    "a byte order mark": "\ufeffinvoice 7",
}
JOINED = ["می\u200cخو", "क्\u200dष", "👩\u200d🚀", "❤\ufe0f\u200d🔥", "a\xa0b", "e\u0301", "Đuro", "ㄱ", "⠓"]
REORDERING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@pytest.mark.parametrize("text", [*HONEST.values(), *JOINED], ids=ascii)
def test_a_text_of_the_ledger_keeps_what_people_write(text: str) -> None:
    assert code(note=text) is None


@pytest.mark.parametrize("each", REORDERING, ids=ascii)
def test_what_reorders_the_text_around_it_is_refused_everywhere(each: str) -> None:
    assert code(note=f"a{each}b") == "format_character"
    assert code(name=f"a{each}b") == "format_character"


@pytest.mark.parametrize("each", "\n\t", ids=ascii)
def test_a_name_is_one_line_without_tabs_and_a_text_of_the_ledger_need_not_be(each: str) -> None:
    assert code(name=f"Ana{each}Eve") == "control_character"
    assert code(note=f"Ana{each}Eve") is None


@pytest.mark.parametrize("name", JOINED, ids=ascii)
def test_joiners_between_letters_that_join_are_in_names(name: str) -> None:
    assert code(name=name) is None


@pytest.mark.parametrize(
    "name",
    [
        *(f"a{each}b" for each in "\u200f\u061c\u200b\u2060\ufeff\xad\ufff9\u2028\U000e0041"),
        *("a\u200db", "\u200dم", "م\u200c", "م\u200c م", "م\u200c\u200cم", "š\u200dđ"),
    ],
    ids=ascii,
)
def test_a_name_that_reads_as_another_is_refused(name: str) -> None:
    assert code(name=name) == "format_character"


@pytest.mark.parametrize(
    "name",
    [*"\u3164\u115f\u1160\uffa0\u2800\u034f\ufe0f\u17b4\U0001d159", "\u3164 \u2800", "\u3164\u200d\u3164", "\u0301"],
    ids=ascii,
)
def test_a_name_of_blanks_is_refused(name: str) -> None:
    assert code(name=name) == "empty"
    assert code(name=f"{name}Ana") is None, "beside letters they hide nothing"


# Nobody but their sender and the code reads these.
QUERIES_AND_SECRETS = {
    *("cursor", "after", "q", "text", "action", "slug", "category", "reference", "order_id"),
    *("email", "code", "device_token", "refresh_token", "url"),
}


def test_what_one_person_writes_and_another_reads_is_a_name_or_a_text_of_the_ledger(app: Flask) -> None:
    read = {name for schema in api_schemas() for name, field in schema().load_fields.items() if type(field) is Text}
    assert read == QUERIES_AND_SECRETS
