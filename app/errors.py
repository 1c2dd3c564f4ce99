"""The errors that a caller can cause, by kind. Features subclass them; each class has a stable `code`.

ServiceError
├── Malformed               the request can't be parsed
├── BodyTooLarge            the body is longer than allowed
├── Invalid                 a field of the request is invalid
├── Unauthenticated         no valid credential
├── Forbidden               the caller may not do this
├── NotFound                no such object, for this caller
├── MethodNotAllowed        the URL has no such method
├── Gone                    it was there, and is not there any more
├── Conflict                a rule of money or the state of a resource refuses it
├── PreconditionFailed      If-Match names another version
├── PreconditionRequired    If-Match is missing
├── TooManyRequests         a limit is exceeded
├── Unavailable             a passing condition; the same request may succeed later
└── InternalError           a fault of the service

The status codes are in `app/api/problems.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

Place = Literal["body", "query", "path", "header"]


class ServiceError(Exception):
    """The root. `members` are further members of the problem, by their names in the API."""

    code: ClassVar[str]
    # Of an error that a tenant's SQL functions raise (`sql_refusals.py`): by which SQLSTATE, and its text.
    sqlstate: ClassVar[str]
    text: ClassVar[str]

    def __init__(self, detail: str, members: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.members = dict(members or {})


class Malformed(ServiceError):
    """The request can't be parsed."""

    code = "malformed_request"


class BodyRequired(Malformed):
    """The operation needs a body, and the request has none."""

    code = "body_required"


class InvalidJson(Malformed):
    """The body is not JSON, or repeats a key."""

    code = "invalid_json"


class UnsupportedMediaType(Malformed):
    """The body is not declared as application/json."""

    code = "unsupported_media_type"


class IdempotencyKeyRequired(Malformed):
    """The operation moves money and needs an Idempotency-Key."""

    code = "idempotency_key_required"


class BodyTooLarge(ServiceError):
    """The body is longer than this installation or this tenant allows."""

    code = "body_too_large"


class Invalid(ServiceError):
    """A field, parameter or header is invalid. `errors` lists each fault: its place, field, code and message."""

    code = "validation_failed"

    @classmethod
    def at(cls, field: str, code: str, message: str, place: Place = "body") -> "Invalid":
        return cls.of([fault(field.split("."), code, message, place)])

    @classmethod
    def of(cls, faults: Sequence[Mapping[str, str]]) -> "Invalid":
        return cls("; ".join(f"{fault['field']}: {fault['message']}" for fault in faults), {"errors": faults})


def fault(path: Sequence[str], code: str, message: str, place: Place) -> dict[str, str]:
    """One entry of `errors`. A fault in the body has the JSON pointer (RFC 6901) of its field too."""
    found = {"in": place, "field": ".".join(path) or "body", "code": code, "message": message}
    if place == "body":
        found["pointer"] = "".join(f"/{name.replace('~', '~0').replace('/', '~1')}" for name in path)
    return found


class Unauthenticated(ServiceError):
    """The root of refusals for want of a valid credential. `is_of_token`: the request presented a token, and it was
    refused (RFC 6750, 3.1).
    """

    is_of_token: ClassVar[bool] = False


class Forbidden(ServiceError):
    """The root of refusals of what the caller may not do."""


class NotFound(ServiceError):
    """Nothing has this URL."""

    code = "not_found"


class Gone(ServiceError):
    """The root of refusals of what was there, and is not there any more."""


class MethodNotAllowed(ServiceError):
    """The URL has no such method. `Allow` names those it has."""

    code = "method_not_allowed"


class Conflict(ServiceError):
    """The root of refusals by a rule of money or by the state of an object."""


class PreconditionFailed(ServiceError):
    """The object has changed since the version that If-Match names. Read it again."""

    code = "version_mismatch"


class PreconditionRequired(ServiceError):
    """The operation needs the version that the caller has seen, as If-Match."""

    code = "if_match_required"


class TooManyRequests(ServiceError):
    """The caller, the tenant or the address has sent too many requests. `Retry-After` says when the next is taken."""

    code = "rate_limited"


class Unavailable(ServiceError):
    """The root of passing conditions: the same request may succeed later."""


class DatabaseUnavailable(Unavailable):
    """The database does not answer now, or gave up this statement. The same request may succeed later."""

    code = "database_unavailable"


class InternalError(ServiceError):
    """The service failed. Its log has the error under the request's id."""

    code = "internal_error"
