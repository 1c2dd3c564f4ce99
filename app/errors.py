"""The errors that a caller can cause, by kind. Features subclass them; each class has a stable `code`.

ServiceError
├── Malformed               the request can't be parsed
├── BodyTooLarge            the body is longer than allowed
├── Invalid                 a field of the request is invalid
├── Unauthenticated         no valid credential
├── Forbidden               the caller may not do this
├── NotFound
├── Conflict                a rule of money or the state of a resource refuses it
├── PreconditionFailed      If-Match names another version
├── PreconditionRequired    If-Match is missing
├── TooManyRequests         a limit is exceeded
└── Unavailable             a passing condition; the same request may succeed later

The status codes are in `app/api/problems.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


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
    code = "malformed_request"


class BodyRequired(Malformed):
    code = "body_required"


class InvalidJson(Malformed):
    code = "invalid_json"


class UnsupportedMediaType(Malformed):
    code = "unsupported_media_type"


class IdempotencyKeyRequired(Malformed):
    code = "idempotency_key_required"


class BodyTooLarge(ServiceError):
    """The body is longer than this installation or this tenant allows."""

    code = "body_too_large"


class Invalid(ServiceError):
    """`members["errors"]` lists each fault: field, code, message."""

    code = "validation_failed"

    @classmethod
    def at(cls, field: str, code: str, message: str) -> "Invalid":
        return cls.of([{"field": field, "code": code, "message": message}])

    @classmethod
    def of(cls, faults: Sequence[Mapping[str, str]]) -> "Invalid":
        return cls("; ".join(f"{fault['field']}: {fault['message']}" for fault in faults), {"errors": faults})


class Unauthenticated(ServiceError):
    code = "unauthenticated"


class Forbidden(ServiceError):
    code = "forbidden"


class NotFound(ServiceError):
    code = "not_found"


class Conflict(ServiceError):
    code = "conflict"


class PreconditionFailed(ServiceError):
    code = "version_mismatch"


class PreconditionRequired(ServiceError):
    code = "if_match_required"


class TooManyRequests(ServiceError):
    code = "rate_limited"


class Unavailable(ServiceError):
    code = "unavailable"


class DatabaseUnavailable(Unavailable):
    """The database does not answer now, or gave up this statement. The same request may succeed later."""

    code = "database_unavailable"
