"""Problems in OpenAPI: their schema, and the headers of errors."""

from http import HTTPStatus
from typing import Any

from marshmallow import INCLUDE, fields

from app.api.fields import Answer

RETRY_AFTER: dict[str, Any] = {
    "Retry-After": {
        **{"description": "seconds until the next try", "required": True},
        "schema": {"type": "integer", "minimum": 0},
    }
}
LIMIT_HEADERS: dict[str, Any] = {
    name: {"description": description, "schema": {"type": "integer", "minimum": 0}}
    for name, description in {
        "RateLimit-Limit": "requests in a whole window; in every counted answer, as the next two headers",
        "RateLimit-Remaining": "requests left in this window",
        "RateLimit-Reset": "seconds until the next window",
    }.items()
} | {
    name: {"description": description, "schema": {"type": "string"}}
    for name, description in {
        "RateLimit-Policy": "each limit that the request was counted for: whose it is, q requests in w seconds",
        "RateLimit": "each of these limits: r requests left, t seconds until the next window",
    }.items()
}
CHALLENGE: dict[str, Any] = {"WWW-Authenticate": {"required": True, "schema": {"type": "string", "enum": ["Bearer"]}}}
# The headers of errors, by status.
ERROR_HEADERS: dict[HTTPStatus, dict[str, Any]] = {
    HTTPStatus.UNAUTHORIZED: CHALLENGE,
    HTTPStatus.TOO_MANY_REQUESTS: RETRY_AFTER | LIMIT_HEADERS,
    HTTPStatus.SERVICE_UNAVAILABLE: RETRY_AFTER,
}


class FaultSchema(Answer):
    field = fields.String()
    code = fields.String()
    message = fields.String()


class ProblemSchema(Answer):
    """An RFC 9457 problem. Some have more members: `available`, `refundable`, …"""

    class Meta:
        unknown = INCLUDE

    may_lack = ("errors",)

    title = fields.String()
    status = fields.Integer()
    code = fields.String(metadata={"description": "stable; branch on this"})
    detail = fields.String()
    errors = fields.List(fields.Nested(FaultSchema))
