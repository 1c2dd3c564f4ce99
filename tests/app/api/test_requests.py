"""Bodies and queries are read strictly, as by a reference that examines everything."""

import json
from typing import Any

import pytest
from flask import Request
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.test import create_environ

from app.api.fields import Schema
from app.api.requests import load_json, load_query
from app.errors import Invalid, InvalidJson, ServiceError

NAMES = st.sampled_from(
    ['"a"', '"b"', '"\\u0061"', '"\\ud83d\\ude00"', '"\\u0000"', '"\\ud800"', '"đ"', '"\\\\u0000"', '""']
)
SCALARS = NAMES | st.sampled_from(
    ["1", "-0", "1e5", "12345678901234567890", "true", "null", '"\\""', "NaN", "[", "'x'", ""]
)
TEXTS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
        st.lists(st.tuples(NAMES, inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f"{name}: {value}" for name, value in pairs) + "}"
        ),
    ),
    max_leaves=8,
)
RAW = st.sampled_from(
    [b"\xef\xbb\xbf{}", b'{"a": "\x00"}', b'{"a": "\xed\xa0\x80"}', b'{"a": "\xff"}', b"[" * 5000, b" {} "]
)


class Anything(Schema):
    """Returns what it is given."""

    def load(self, data: Any, **_: Any) -> Any:
        return data


def request_of(body: bytes, **more: Any) -> Request:
    request = Request(create_environ(method="POST", data=body, content_type="application/json") | more)
    request.max_content_length = 10_000
    return request


def reference(body: bytes) -> Any:
    """Every name and value is examined, whatever the text has."""

    def examine(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, value in pairs:
            if name in made:
                raise ValueError("repeated")
            for text in (name, value):
                if isinstance(text, str) and any(each == "\0" or "\ud800" <= each <= "\udfff" for each in text):
                    raise Invalid.at(name, "nul_character", "")
            made[name] = value
        return made

    def refuse(name: str) -> Any:
        raise ValueError(name)

    return json.loads(body.decode(), object_pairs_hook=examine, parse_constant=refuse)


@given(body=TEXTS.map(str.encode) | RAW)
@settings(max_examples=1000, deadline=None, database=None)
def test_json_is_read_as_by_the_reference(body: bytes) -> None:
    try:
        wanted = reference(body)
    except json.JSONDecodeError as error:
        wanted = f"The body is not JSON: {error}"
    except (ValueError, RecursionError):
        wanted = InvalidJson
    except Invalid as error:
        wanted = type(error)
    try:
        found = load_json(request_of(body), Anything()) if body else wanted
    except ServiceError as error:
        found = error.detail if error.detail.startswith("The body is not JSON") else type(error)
    assert (found, repr(found)) == (wanted, repr(wanted))


@pytest.mark.parametrize("told", ["2", "02", "+2", "²", "2 ", " 2", "", "-2", "2.0", "0", "3", "1", "٢"])
@pytest.mark.parametrize("more", [{}, {"HTTP_TRANSFER_ENCODING": "chunked"}])
def test_a_length_is_read_as_by_werkzeug(told: str, more: dict[str, str]) -> None:
    """The whole body is read exactly if Werkzeug's length is right."""
    request = request_of(b"{}", CONTENT_LENGTH=told, **more)
    try:
        is_read = load_json(request, Anything()) == {}
    except ServiceError:
        is_read = False
    assert is_read == (request.content_length == 2)


def test_a_repeated_parameter_is_refused() -> None:
    with pytest.raises(Invalid, match="more than once"):
        load_query(Request(create_environ("/?a=1&a=2")), Anything())
    assert load_query(Request(create_environ("/?a=1&b=")), Anything()) == {"a": "1", "b": ""}
