"""Strict parsing of requests.

A request with anything unknown is refused as a whole: unknown fields and parameters, repeated ones, JSON with a
repeated key, NUL characters and lone surrogates.
"""

import json
import re
from collections.abc import Mapping
from time import monotonic
from typing import Any, Final, NoReturn

import marshmallow
from flask import Request

from app.current import current_app
from app.errors import (
    BodyRequired,
    BodyTooLarge,
    Invalid,
    InvalidJson,
    Malformed,
    Place,
    UnsupportedMediaType,
    fault,
)

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110, 9.2.1
_TOO_LARGE: Final = "The body is longer than this tenant or this service allows."
SLOW_BODY_SECONDS: Final = 1.0
# PostgreSQL can't store NUL characters, and UTF-8 can't encode lone surrogates.
_UNWRITABLE: Final = re.compile("[\x00\ud800-\udfff]")


def load_json(req: Request, body_schema: marshmallow.Schema) -> Any:
    """The body, loaded with this schema. Raises Malformed, InvalidJson, UnsupportedMediaType or Invalid."""
    body = _body_of(req)
    if not body:
        raise BodyRequired("Send a JSON object as the body.")
    if req.environ.get("CONTENT_TYPE") != "application/json" and not req.is_json:
        raise UnsupportedMediaType("Send the body with Content-Type: application/json.")
    return load_data(decoded_json(body), body_schema)


def decoded_json(body: bytes) -> Any:
    """The value of a JSON text. Raises InvalidJson, and Invalid for texts that PostgreSQL can't store."""
    try:
        return _decoded(body.decode("utf-8"))
    except json.JSONDecodeError as error:
        raise InvalidJson(f"The body is not JSON: {error}") from None
    except (ValueError, RecursionError):
        raise InvalidJson(
            "The body can't be read as JSON: it has a repeated key, NaN or bad UTF-8, or is nested too deep."
        ) from None


def load_optional_json(req: Request, body_schema: marshmallow.Schema) -> Any:
    """As `load_json`; a request without a body is read as one with `{}`."""
    try:
        return load_json(req, body_schema)
    except BodyRequired:
        return load_data({}, body_schema, "body")


def load_query(req: Request, query_schema: marshmallow.Schema) -> Any:
    """The query parameters, loaded with this schema. Raises Invalid."""
    values: dict[str, str] = {}
    for name, found in req.args.lists() if req.args else ():
        _refuse_unwritable(name, name, "query")
        if len(found) > 1:
            raise Invalid.at(name, "repeated", "The parameter is given more than once.", "query")
        _refuse_unwritable(found[0], name, "query")
        values[name] = found[0]
    return load_data(values, query_schema, "query")


def load_data(data: Any, request_schema: marshmallow.Schema, place: Place = "body") -> Any:
    """Data of JSON's own types, loaded with this schema. Raises Invalid."""
    try:
        return request_schema.load(data)
    except marshmallow.ValidationError as error:
        raise Invalid.of(faults_of(error.messages, place)) from None


def _body_of(req: Request) -> bytes:
    """The whole body. Raises BodyTooLarge or Malformed. Werkzeug would truncate a chunked body at the limit
    and accept an incomplete one. After a slow one the gate asks again who may do what: a removed member's request must
    not wait for its last byte.
    """
    limit, length = req.max_content_length or 0, _content_length(req)
    if length is None and not req.environ.get("wsgi.input_terminated"):
        return b""
    if length is not None and length > limit:
        raise BodyTooLarge(_TOO_LARGE)
    begun = monotonic()
    try:
        body: bytes = req.environ["wsgi.input"].read(limit + 1 if length is None else length)
    except OSError:  # gunicorn's errors for invalid chunks, and a client that disconnected.
        raise Malformed("The body is incomplete or not validly chunked.") from None
    if len(body) > limit:
        raise BodyTooLarge(_TOO_LARGE)
    if length is not None and len(body) != length:
        raise Malformed("The body is shorter than its Content-Length.")
    if monotonic() - begun > SLOW_BODY_SECONDS:
        current_app.extensions["after_slow_body"]()
    return body


def _content_length(req: Request) -> int | None:
    """As Werkzeug reads it, without its parser for the usual request. None for a chunked body."""
    told = req.environ.get("CONTENT_LENGTH", "")
    is_usual = told.isdecimal() and told.isascii() and "HTTP_TRANSFER_ENCODING" not in req.environ
    return int(told) if is_usual else req.content_length


def _decoded(text: str) -> Any:
    """The value of a JSON text. Only an escape can write a NUL character or a lone surrogate: JSON allows no control
    character in a string, and UTF-8 no surrogate.
    """
    if text.startswith("\ufeff"):
        raise json.JSONDecodeError("Unexpected UTF-8 BOM (decode using utf-8-sig)", text, 0)
    return (_ESCAPES if "\\u" in text else _NO_ESCAPES).decode(text)


def _object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key is repeated")
    return made


def _writable_object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise ValueError(f"the key {name!r} is repeated")
        _refuse_unwritable(name, name)
        _refuse_unwritable(value, name)
        made[name] = value
    return made


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_NO_ESCAPES: Final = json.JSONDecoder(object_pairs_hook=_object_without_repeats, parse_constant=_refuse_constant)
_ESCAPES: Final = json.JSONDecoder(object_pairs_hook=_writable_object_without_repeats, parse_constant=_refuse_constant)


def _refuse_unwritable(value: Any, field: str, place: Place = "body") -> None:
    """Raises Invalid for NUL characters and lone surrogates."""
    if isinstance(value, str) and _UNWRITABLE.search(value):
        shown = field.encode("ascii", "backslashreplace").decode().replace("\x00", "\\x00")
        raise Invalid.at(shown, "nul_character", "NUL characters and lone surrogates are not allowed.", place)


def faults_of(found: Any, place: Place = "body", path: tuple[str, ...] = ()) -> list[dict[str, str]]:
    """marshmallow's messages as the `errors` of a problem."""
    if isinstance(found, Mapping):
        inside = ((deeper, path if name == "_schema" else (*path, str(name))) for name, deeper in found.items())
        return [each for deeper, longer in inside for each in faults_of(deeper, place, longer)]
    return [fault(path, getattr(said, "code", "invalid"), str(said), place) for said in found]
