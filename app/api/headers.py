"""Request and response headers: decorators that describe them in OpenAPI, and functions that read them."""

import re
from collections.abc import Callable, Collection
from functools import wraps
from typing import Any, cast

from app.api.refusals import View, refuses
from app.current import g, request
from app.errors import IdempotencyKeyRequired, Invalid, PreconditionFailed, PreconditionRequired

IDEMPOTENCY_KEY_HEADER = "Idempotency-Key"


MAX_KEY_LENGTH = 200


_ETAG = '^"[0-9]{1,9}"$'


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


def needs_idempotency_key(view: View, *, max_length: int = MAX_KEY_LENGTH) -> View:
    """Describe in OpenAPI that a view requires an Idempotency-Key, and that its answer tells whether the key was used
    before.
    """
    description = "A new key for each intent, the same key for a retry. The same key and request have the same answer."
    pattern = f"^{_IDEMPOTENCY_KEY.pattern}$"
    wants = wants_header(IDEMPOTENCY_KEY_HEADER, description, minLength=1, maxLength=max_length, pattern=pattern)
    gives = gives_header(
        "Idempotent-Replayed", "true if an earlier request with this key did it.", always=False, enum=["true"]
    )
    return refuses(IdempotencyKeyRequired, Invalid)(gives(wants(view)))


def needs_version(view: View) -> View:
    """Describe in OpenAPI that a view requires If-Match and returns the new ETag."""
    wants = wants_header("If-Match", "The ETag of the version you have seen.", pattern=_ETAG)
    return refuses(PreconditionFailed, PreconditionRequired)(gives_etag(wants(view)))


def gives_etag(view: View) -> View:
    """Describe in OpenAPI that a view returns an ETag."""
    return gives_header("ETag", "The version of the resource, for If-Match.", pattern=_ETAG)(view)


def gives_location(view: View) -> View:
    """Describe in OpenAPI that a view names what it made."""
    return gives_header("Location", "The URL of the new resource.", on=(201,))(view)


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


def idempotency_key(max_length: int = MAX_KEY_LENGTH) -> str:
    """The request's Idempotency-Key. Raises IdempotencyKeyRequired, or Invalid for a malformed key."""
    key: str | None = request.environ.get("HTTP_IDEMPOTENCY_KEY")  # Without the calls of `request.headers`.
    if not key:
        raise IdempotencyKeyRequired("Send an Idempotency-Key header: a new one for each intent, the same for a retry.")
    if len(key) > max_length or not _IDEMPOTENCY_KEY.fullmatch(key):
        message = f"Use 1 to {max_length} visible ASCII characters, but no comma."
        raise Invalid.at(IDEMPOTENCY_KEY_HEADER, "not_a_key", message)
    return key


def if_match_version() -> int:
    """The version in If-Match. Raises PreconditionRequired without the header, PreconditionFailed for a malformed
    version.
    """
    header = request.headers.get("If-Match")
    if not header:
        raise PreconditionRequired("Send If-Match with the ETag of the version you have seen.")
    version = re.fullmatch(r'"([0-9]{1,9})"', header.strip(), re.ASCII)
    if not version:
        raise PreconditionFailed("If-Match names no version of this resource; read it again for its ETag.")
    return int(version[1])


def etag(version: int) -> dict[str, str]:
    return {"ETag": f'"{version}"'}
