"""Request and response headers: decorators that describe them in OpenAPI, and functions that read them."""

import re
from collections.abc import Callable, Collection
from functools import wraps
from typing import Any, cast

from app.api.refusals import View, refuses
from app.current import g, request
from app.errors import IdempotencyKeyRequired, Invalid, PreconditionFailed, PreconditionRequired

IDEMPOTENCY_KEY_HEADER = "Idempotency-Key"
IF_MATCH = "The ETag that you have seen, or its `version` in quotes; `*` for any version."


MAX_KEY_LENGTH = 255


_ETAGS = r'^(\*|(W/)?"[^"]*"(, *(W/)?"[^"]*")*)$'
_ETAG = '^(W/)?"[^"]*"$'
_TAG_OF_ANSWER = "The tag of this answer, for If-None-Match and If-Match."
_OF_CONDITIONAL = (200, 304)


_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x2b\x2d-\x7e]+")  # No comma: it joins repeated headers.


def wants_header(name: str, description: str, *, required: bool = True, **about: Any) -> Callable[[View], View]:
    """Describe a request header of a view in OpenAPI. The view itself reads it."""
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


def gives_header(
    name: str, description: str, *, always: bool = True, on: Collection[int] = range(200, 300), **about: Any
) -> Callable[[View], View]:
    """Describe a response header of a view in OpenAPI, on answers with one of these statuses. The view itself
    sends it.
    """

    def mark(view: View) -> View:
        header = {"description": description, "required": always, "schema": {"type": "string", **about}}
        documentation = view.__dict__.setdefault("_apidoc", {})
        documentation["gives"] = {**documentation.get("gives", {}), name: (header, on)}
        return view

    return mark


def needs_idempotency_key(view: View) -> View:
    """Describe in OpenAPI that a view requires an Idempotency-Key, and that its answer tells whether the key was used
    before.
    """
    description = "A new key for each intent, the same key for a retry. The same key and request have the same answer."
    pattern = f"^{_IDEMPOTENCY_KEY.pattern}$"
    wants = wants_header(IDEMPOTENCY_KEY_HEADER, description, minLength=1, maxLength=MAX_KEY_LENGTH, pattern=pattern)
    gives = gives_header(
        "Idempotent-Replayed", "true if an earlier request with this key did it.", always=False, enum=["true"]
    )
    return refuses(IdempotencyKeyRequired, Invalid)(gives(wants(view)))


def needs_version(view: View) -> View:
    """Describe in OpenAPI that a view requires If-Match and returns the new ETag."""
    wants = wants_header("If-Match", IF_MATCH, minLength=1, pattern=_ETAGS)
    return refuses(PreconditionFailed, PreconditionRequired)(gives_etag(wants(view)))


def gives_etag(view: View) -> View:
    """Describe in OpenAPI that a view returns an ETag."""
    return gives_header("ETag", _TAG_OF_ANSWER, pattern=_ETAG)(view)


def gives_location(view: View) -> View:
    """Describe in OpenAPI that a view names what it made."""
    return gives_header("Location", "The URL of the new resource.", on=(201,))(view)


def conditional(view: View) -> View:
    """Describe in OpenAPI that a view answers 304 if the caller has the answer. `Blueprint.response` compares."""
    wants = wants_header("If-None-Match", "The ETag of the answer you have; 304 if it is still right.", required=False)
    view = gives_header("Cache-Control", "who may keep this answer, and how long.", on=_OF_CONDITIONAL)(wants(view))
    view = gives_header("ETag", _TAG_OF_ANSWER, on=_OF_CONDITIONAL, pattern=_ETAG)(view)
    view.__dict__["_apidoc"]["conditional"] = True
    return view


def gives_vary(view: View) -> View:
    """Describe in OpenAPI that a conditional answer may be kept (`REVALIDATED`), for requests with the same headers."""
    return gives_header("Vary", "the request headers on which this answer depends.", on=_OF_CONDITIONAL)(view)


def takes_up_to(max_bytes: int) -> Callable[[View], View]:
    """Accept a body of up to `max_bytes` in a view, also where MAX_BODY_BYTES is lower. The tenant's own limit still
    applies. The decorator must be above `arguments`.
    """

    def mark(view: View) -> View:
        @wraps(view)
        def read(*arguments: Any, **named: Any) -> Any:
            allowed = max(request.max_content_length or 0, max_bytes)
            request.max_content_length = min(allowed, g.get("max_body_bytes", allowed))
            return view(*arguments, **named)

        return cast(View, read)

    return mark


def idempotency_key() -> str:
    """The request's Idempotency-Key. Raises IdempotencyKeyRequired, or Invalid for a malformed key."""
    key: str | None = request.environ.get("HTTP_IDEMPOTENCY_KEY")  # Without the calls of `request.headers`.
    if not key:
        raise IdempotencyKeyRequired("Send an Idempotency-Key header: a new one for each intent, the same for a retry.")
    if len(key) > MAX_KEY_LENGTH or not _IDEMPOTENCY_KEY.fullmatch(key):
        message = f"Use 1 to {MAX_KEY_LENGTH} visible ASCII characters, but no comma."
        raise Invalid.at(IDEMPOTENCY_KEY_HEADER, "not_a_key", message, "header")
    return key
