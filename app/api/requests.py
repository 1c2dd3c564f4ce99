"""Strict parsing of requests.

A request with anything unknown is refused as a whole: unknown fields and parameters, repeated ones, JSON with a
repeated key, NUL characters and lone surrogates.
"""

import json
from collections.abc import Mapping
from typing import Any, NoReturn

import marshmallow
from flask import Request
from webargs.flaskparser import FlaskParser
from webargs.multidictproxy import MultiDictProxy
from werkzeug.exceptions import RequestEntityTooLarge

from app.errors import (
    BodyRequired,
    Invalid,
    InvalidJson,
    Malformed,
    UnsupportedMediaType,
)

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110, 9.2.1


class StrictParser(FlaskParser):
    """webargs' parser for Flask, made strict; see the top of this file."""

    DEFAULT_UNKNOWN_BY_LOCATION = {"json": None, "query": marshmallow.RAISE}  # noqa: RUF012

    def load_json(self, req: Request, schema: marshmallow.Schema) -> Any:
        body = _body_of(req)
        if not body:
            raise BodyRequired("Send a JSON object as the body.")
        if not req.is_json:
            raise UnsupportedMediaType("Send the body with Content-Type: application/json.")
        try:
            return json.loads(
                body.decode("utf-8"), object_pairs_hook=_object_without_repeats, parse_constant=_refuse_constant
            )
        except json.JSONDecodeError as error:
            raise InvalidJson(f"The body is not JSON: {error}") from None
        except (ValueError, RecursionError):
            raise InvalidJson(
                "The body can't be read as JSON: it has a repeated key, NaN or bad UTF-8, or is nested too deep."
            ) from None

    def load_querystring(self, req: Request, schema: marshmallow.Schema) -> Any:
        for name, values in req.args.lists():
            _refuse_unwritable(name, name)
            if len(values) > 1:
                raise Invalid.at(name, "repeated", "The parameter is given more than once.")
            _refuse_unwritable(values[0], name)
        return MultiDictProxy(req.args, schema)

    def handle_error(self, error: Any, req: Any, schema: Any, **kwargs: Any) -> NoReturn:
        faults = [fault for found in error.messages.values() for fault in faults_of(found)]
        raise Invalid.of(faults)


def _body_of(req: Request) -> bytes:
    """The whole body. Raises RequestEntityTooLarge or Malformed. Werkzeug would truncate a chunked body at the limit
    and accept an incomplete one.
    """
    limit, length = req.max_content_length or 0, req.content_length
    if length is None and not req.environ.get("wsgi.input_terminated"):
        return b""
    if length is not None and length > limit:
        raise RequestEntityTooLarge
    try:
        body: bytes = req.environ["wsgi.input"].read(limit + 1 if length is None else length)
    except OSError:  # gunicorn's errors for invalid chunks, and a client that disconnected.
        raise Malformed("The body is incomplete or not validly chunked.") from None
    if len(body) > limit:
        raise RequestEntityTooLarge
    if length is not None and len(body) != length:
        raise Malformed("The body is shorter than its Content-Length.")
    return body


def _object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
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


def _refuse_unwritable(value: Any, field: str) -> None:
    """Raises Invalid for NUL characters, which PostgreSQL can't store, and lone surrogates, which UTF-8 can't
    encode.
    """
    if isinstance(value, str) and ("\x00" in value or any("\ud800" <= character <= "\udfff" for character in value)):
        shown = field.encode("ascii", "backslashreplace").decode().replace("\x00", "\\x00")
        raise Invalid.at(shown, "nul_character", "NUL characters and lone surrogates are not allowed.")


def faults_of(found: Any, path: str = "") -> list[dict[str, str]]:
    """marshmallow's messages as the `errors` of a problem: field, code and message of each."""
    if isinstance(found, Mapping):
        inside = ((f"{path}.{name}" if path else str(name), deeper) for name, deeper in found.items())
        return [fault for name, deeper in inside for fault in faults_of(deeper, name)]
    field = path.removesuffix("._schema").removesuffix("_schema") or "body"
    return [{"field": field, "code": getattr(said, "code", "invalid"), "message": str(said)} for said in found]
