"""Every error a caller can cause, by kind. Features add their own below these; each names a stable `code`.

ServiceError
├── Malformed               the request can't be read
├── Invalid                 it can be read, and a field of it is wrong
├── Unauthenticated         nobody, or nobody known
├── Forbidden               known, and not allowed
├── NotFound
├── Conflict                the rules of money or the state of things refuse it
├── PreconditionFailed      If-Match names another version
├── PreconditionRequired    If-Match is missing
├── TooManyRequests         more than this caller's limits allow
└── Unavailable             not now; the same request may go through later

Nothing here knows a status code: those are in `problems.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class ServiceError(Exception):
    """The root. `members` are extra members of the problem, in the words of the API."""

    code: ClassVar[str]
    # Of an error that a tenant's SQL functions raise (`refusals.py`): by which SQLSTATE, and its text.
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
