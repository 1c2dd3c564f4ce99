"""What all routes share: strict reading of requests, and writing of answers.

A request that says more than we understand is refused, never half read: unknown fields and parameters, repeated ones,
JSON that repeats a key, NUL characters and lone surrogates.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import marshmallow
import orjson
from flask import Flask, Request, Response, g, request
from flask.json.provider import JSONProvider
from flask.sessions import SessionInterface
from flask_smorest import Blueprint as SmorestBlueprint
from webargs.flaskparser import FlaskParser
from webargs.multidictproxy import MultiDictProxy
from werkzeug.exceptions import RequestEntityTooLarge

from app.api.fields import Schema
from app.api.problems import possible_refusals
from app.errors import (
    BodyRequired,
    IdempotencyKeyRequired,
    Invalid,
    InvalidJson,
    Malformed,
    PreconditionFailed,
    PreconditionRequired,
    UnsupportedMediaType,
)

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})  # They change nothing (RFC 9110, 9.2.1).
IDEMPOTENCY_KEY_HEADER = "Idempotency-Key"
MAX_KEY_LENGTH = 200
View = TypeVar("View", bound=Callable[..., Any])
_ETAG = '^"[0-9]{1,9}"$'
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x2b\x2d-\x7e]+")  # A comma would be two headers joined.


class StrictParser(FlaskParser):
    """webargs with the doors shut: see the top of this file."""

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
                "The body is not JSON that can be read: a repeated key, NaN, bad UTF-8, or too deep."
            ) from None

    def load_querystring(self, req: Request, schema: marshmallow.Schema) -> Any:
        for name, values in req.args.lists():
            _refuse_unwritable(name, name)
            if len(values) > 1:
                raise Invalid.at(name, "repeated", "It is given more than once.")
            _refuse_unwritable(values[0], name)
        return MultiDictProxy(req.args, schema)

    def handle_error(self, error: Any, req: Any, schema: Any, **kwargs: Any) -> NoReturn:
        faults = [fault for found in error.messages.values() for fault in faults_of(found)]
        raise Invalid.of(faults)


def _body_of(req: Request) -> bytes:
    """The whole body or none of it. Werkzeug would cut a chunked one at the limit, and take one that broke off."""
    limit, length = req.max_content_length or 0, req.content_length
    if length is None and not req.environ.get("wsgi.input_terminated"):
        return b""
    if length is not None and length > limit:
        raise RequestEntityTooLarge
    try:
        body: bytes = req.environ["wsgi.input"].read(limit + 1 if length is None else length)
    except OSError:  # The server's own errors for chunks that are none, and a client that went away.
        raise Malformed("The body broke off or is not chunked as it says.") from None
    if len(body) > limit:
        raise RequestEntityTooLarge
    if length is not None and len(body) != length:
        raise Malformed("The body broke off before its Content-Length.")
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
    """PostgreSQL stores no NUL character and UTF-8 has no lone surrogate; neither may travel any further."""
    if isinstance(value, str) and ("\x00" in value or any("\ud800" <= character <= "\udfff" for character in value)):
        shown = field.encode("ascii", "backslashreplace").decode().replace("\x00", "\\x00")
        raise Invalid.at(shown, "nul_character", "NUL characters and lone surrogates are not allowed.")


def faults_of(found: Any, path: str = "") -> list[dict[str, str]]:
    """What marshmallow found wrong, as the `errors` of a problem: field, code and message of each."""
    if isinstance(found, Mapping):
        inside = ((f"{path}.{name}" if path else str(name), deeper) for name, deeper in found.items())
        return [fault for name, deeper in inside for fault in faults_of(deeper, name)]
    field = path.removesuffix("._schema").removesuffix("_schema") or "body"
    return [{"field": field, "code": getattr(said, "code", "invalid"), "message": str(said)} for said in found]


class Blueprint(SmorestBlueprint):  # type: ignore[misc]  # flask-smorest is not typed
    """A feature's routes, read strictly, and documented with the headers they want."""

    ARGUMENTS_PARSER = StrictParser()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._prepare_doc_cbks.extend((_document_headers, _document_refusals))

    def arguments(self, schema: type[Schema], *, location: str = "json") -> Callable[[View], View]:
        """The schema is made once, at import, and not for each request."""
        read = super().arguments(schema(), location=location)

        def mark(view: View) -> View:
            marked = cast(View, read(view))
            if location == "query":
                marked.__dict__["reads_query"] = True
            return marked

        return mark

    if TYPE_CHECKING:

        def get(self, rule: str, **options: Any) -> Callable[[View], View]: ...
        def post(self, rule: str, **options: Any) -> Callable[[View], View]: ...
        def put(self, rule: str, **options: Any) -> Callable[[View], View]: ...
        def patch(self, rule: str, **options: Any) -> Callable[[View], View]: ...
        def delete(self, rule: str, **options: Any) -> Callable[[View], View]: ...
        def response(self, status_code: int, schema: type[Schema] | None = None) -> Callable[[View], View]: ...
        def alt_response(self, status_code: int, *, schema: type[Schema]) -> Callable[[View], View]: ...


def wants_header(name: str, description: str, *, required: bool = True, **about: Any) -> Callable[[View], View]:
    """Note in the API's description that a view wants this header. Reading it is the view's own doing."""
    header = {
        "in": "header",
        "name": name,
        "description": description,
        "required": required,
        "schema": {"type": "string", **about},
    }

    def mark(view: View) -> View:
        documentation = view.__dict__.setdefault("_apidoc", {})
        documentation["headers"] = [*documentation.get("headers", []), header]
        return view

    return mark


def gives_header(name: str, description: str, *, always: bool = True, **about: Any) -> Callable[[View], View]:
    """Note in the API's description that a view's answers have this header. Sending it is the view's own doing."""

    def mark(view: View) -> View:
        header = {"description": description, "required": always, "schema": {"type": "string", **about}}
        view.__dict__.setdefault("_apidoc", {}).setdefault("gives", {})[name] = header
        return view

    return mark


def needs_idempotency_key(view: View, *, max_length: int = MAX_KEY_LENGTH) -> View:
    """Note in the API's description that a view wants an Idempotency-Key, and says whether it was used before."""
    description = "New for each intent, the same for a retry: the same key and request have the same answer."
    pattern = f"^{_IDEMPOTENCY_KEY.pattern}$"
    wants = wants_header(IDEMPOTENCY_KEY_HEADER, description, minLength=1, maxLength=max_length, pattern=pattern)
    gives = gives_header(
        "Idempotent-Replayed", "An earlier request with this key had done it.", always=False, enum=["true"]
    )
    return gives(wants(view))


def needs_version(view: View) -> View:
    """Note in the API's description that a view wants an If-Match, and gives the ETag for the next."""
    return gives_etag(wants_header("If-Match", "The ETag of the version you have seen.", pattern=_ETAG)(view))


def gives_etag(view: View) -> View:
    """Note in the API's description that a view's answers have an ETag."""
    return gives_header("ETag", "The version of what can be changed here.", pattern=_ETAG)(view)


def takes_up_to(max_bytes: int) -> Callable[[View], View]:
    """Let a view read a body of this size, also where MAX_BODY_BYTES is less; the tenant's own limit counts all the
    same. To be above `arguments`.
    """

    def mark(view: View) -> View:
        @wraps(view)
        def read(*arguments: Any, **named: Any) -> Any:
            allowed = max(request.max_content_length or 0, max_bytes)
            request.max_content_length = min(allowed, g.get("max_body_bytes", allowed))
            return view(*arguments, **named)

        return cast(View, read)

    return mark


def _document_headers(doc: dict[str, Any], doc_info: dict[str, Any], **_: Any) -> dict[str, Any]:
    wanted, given = doc_info.get("headers", []), doc_info.get("gives", {})
    for status, response in doc.get("responses", {}).items():
        if given and str(status).startswith("2"):
            response["headers"] = given
    return {**doc, "parameters": [*doc.get("parameters", []), *wanted]} if wanted else doc


def _document_refusals(doc: dict[str, Any], doc_info: dict[str, Any], *, method: str, **_: Any) -> dict[str, Any]:
    """What these look like is written once, in `docs.py`."""
    refusals = {str(status.value): status.name for status in possible_refusals(doc, method)}
    told = {str(status): response for status, response in doc.get("responses", {}).items()}
    return {**doc, "responses": refusals | told}


class NoSessions(SessionInterface):
    """Flask's sessions are not ours (app/auth/sessions.py), and no request owes them the work of looking for them."""

    def open_session(self, app: Flask, request: Request) -> None:
        return None


class FastJson(JSONProvider):
    """Flask's JSON by orjson. Schemas have made plain values before it is asked."""

    def dumps(self, obj: Any, **_: Any) -> str:
        return orjson.dumps(obj).decode()

    def loads(self, s: str | bytes, **_: Any) -> Any:
        return orjson.loads(s)

    def response(self, *args: Any, **kwargs: Any) -> Response:
        return Response(orjson.dumps(self._prepare_response_obj(args, kwargs)), mimetype="application/json")


def idempotency_key(max_length: int = MAX_KEY_LENGTH) -> str:
    """The request's Idempotency-Key. Raises IdempotencyKeyRequired, or Invalid if it isn't one."""
    key = request.headers.get(IDEMPOTENCY_KEY_HEADER)
    if not key:
        raise IdempotencyKeyRequired("Send an Idempotency-Key header: a new one for each intent, the same for a retry.")
    if len(key) > max_length or not _IDEMPOTENCY_KEY.fullmatch(key):
        message = f"Use 1 to {max_length} visible ASCII characters, but no comma."
        raise Invalid.at(IDEMPOTENCY_KEY_HEADER, "not_a_key", message)
    return key


def if_match_version() -> int:
    """The version in If-Match. Raises PreconditionRequired if it is missing, PreconditionFailed if it is no version."""
    header = request.headers.get("If-Match")
    if not header:
        raise PreconditionRequired("Send If-Match with the ETag of the version you have seen.")
    version = re.fullmatch(r'"([0-9]{1,9})"', header.strip(), re.ASCII)
    if not version:
        raise PreconditionFailed("If-Match names no version of this resource; read it again for its ETag.")
    return int(version[1])


def etag(version: int) -> dict[str, str]:
    return {"ETag": f'"{version}"'}
