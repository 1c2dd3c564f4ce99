"""Errors on the wire: RFC 9457 problems with a stable `code`. No other file knows the status codes of errors.

The text of a problem comes from here or from the error itself. PostgreSQL's messages, SQL and stack traces go to the
log.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
import psycopg
import structlog
from flask import Flask, Response
from sqlalchemy.exc import DBAPIError
from werkzeug.exceptions import HTTPException

from app import errors
from app.api.answers import JsonAnswer
from app.metrics.definitions import DATABASE_ERRORS, PROBLEMS
from app.metrics.observations import count
from tenant_schemas import errors as tenancy
from tenant_schemas.flask import schema_is_gone, tenant_has_moved

log = structlog.get_logger(__name__)

Refusal = type[errors.ServiceError] | type[tenancy.TenancyError]

MEDIA_TYPE = "application/problem+json"
TYPES = "/problems/"
NOT_NOW = "The database can't process this now. Send the same request again, with the same Idempotency-Key."
MISSING = "The data of this tenant is missing. An operator must restore it: do not send the request again."
# Defaults: a rate limit sets its own value.
RETRY_AFTER_SECONDS = {HTTPStatus.SERVICE_UNAVAILABLE: "2", HTTPStatus.TOO_MANY_REQUESTS: "1"}

STATUS_OF_KIND: dict[type[Exception], HTTPStatus] = {
    errors.UnsupportedMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.Malformed: HTTPStatus.BAD_REQUEST,
    errors.BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.Invalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.Unauthenticated: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.MethodNotAllowed: HTTPStatus.METHOD_NOT_ALLOWED,
    errors.Gone: HTTPStatus.GONE,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.PreconditionFailed: HTTPStatus.PRECONDITION_FAILED,
    errors.PreconditionRequired: HTTPStatus.PRECONDITION_REQUIRED,
    errors.TooManyRequests: HTTPStatus.TOO_MANY_REQUESTS,
    errors.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.InternalError: HTTPStatus.INTERNAL_SERVER_ERROR,
}

TENANCY: dict[type[tenancy.TenancyError], tuple[HTTPStatus, str]] = {
    tenancy.TenantRequired: (HTTPStatus.BAD_REQUEST, "tenant_required"),
    tenancy.TenantAmbiguous: (HTTPStatus.BAD_REQUEST, "tenant_ambiguous"),
    tenancy.TenantNotFound: (HTTPStatus.NOT_FOUND, "tenant_not_found"),
    tenancy.SchemaBehind: (HTTPStatus.SERVICE_UNAVAILABLE, "schema_behind"),
    tenancy.SchemaMissing: (HTTPStatus.INTERNAL_SERVER_ERROR, "schema_missing"),
    tenancy.ConnectionsExhausted: (HTTPStatus.SERVICE_UNAVAILABLE, "busy"),
}

# The codes of errors that Werkzeug and Flask raise. Others of them have the first one.
HTTP_CODES = {
    HTTPStatus.BAD_REQUEST: errors.Malformed.code,
    HTTPStatus.NOT_FOUND: errors.NotFound.code,
    HTTPStatus.METHOD_NOT_ALLOWED: errors.MethodNotAllowed.code,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: errors.BodyTooLarge.code,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: errors.UnsupportedMediaType.code,
    HTTPStatus.INTERNAL_SERVER_ERROR: errors.InternalError.code,
}

# SQLSTATEs of passing conditions: no connection (none, 08…), shutting down or starting (57P…), too many connections,
# serialization failure, deadlock, lock not available, statement time-out, idle_in_transaction time-out.
PASSING_STATES = frozenset({None, "25P03", "53300", "40001", "40P01", "55P03", "57014", "57P01", "57P02", "57P03"})
# SQLSTATEs of a request to a schema that its tenant no longer uses: no right, no schema, no table, no function.
LEFT_STATES = frozenset({"42501", "3F000", "42P01", "42883"})

# What an error_description must not contain (RFC 6750, 3).
_NO_DESCRIPTION = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")


def register(app: Flask) -> None:
    """Turn every error of the application into a problem."""
    app.register_error_handler(errors.ServiceError, _service_error)
    app.register_error_handler(tenancy.TenancyError, _tenancy_error)
    app.register_error_handler(psycopg.Error, _database_error)
    app.register_error_handler(DBAPIError, _wrapped_database_error)
    app.register_error_handler(HTTPException, _http_exception)
    app.register_error_handler(Exception, _unexpected)


def status_and_code(kind: Refusal) -> tuple[HTTPStatus, str]:
    """How errors of this class are answered."""
    if issubclass(kind, tenancy.TenancyError):
        return TENANCY[kind]
    return _status_of(kind), kind.code


def problem(
    status: HTTPStatus, code: str, detail: str, members: Mapping[str, Any] | None = None, **headers: str
) -> Response:
    """A problem response. Its `type` is the path of the page that describes its code."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    if status in RETRY_AFTER_SECONDS:
        more["Retry-After"] = RETRY_AFTER_SECONDS[status]
    count(PROBLEMS, code, str(status.value))
    if status is HTTPStatus.UNAUTHORIZED:
        more["WWW-Authenticate"] = "Bearer"
    return JsonAnswer(orjson.dumps(_body(status, code, detail, members)), status.value, more, MEDIA_TYPE)


def problem_body(error: errors.ServiceError) -> dict[str, Any]:
    """The error as a problem's JSON, for an answer that embeds it."""
    return _body(_status_of(type(error)), error.code, error.detail, error.members)


def _body(status: HTTPStatus, code: str, detail: str, members: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "type": f"{TYPES}{code}",
        "title": title_of(code),
        "status": status,
        "code": code,
        "detail": detail,
        **(members or {}),
    }


def title_of(code: str) -> str:
    """`insufficient_funds` as "Insufficient funds"."""
    return code.replace("_", " ").capitalize()


def _status_of(error: type[errors.ServiceError]) -> HTTPStatus:
    for kind in error.__mro__:
        if kind in STATUS_OF_KIND:
            return STATUS_OF_KIND[kind]
    raise LookupError(f"{error} has no status: derive it from a kind of STATUS_OF_KIND.")


def _service_error(error: errors.ServiceError) -> Response:
    response = problem(_status_of(type(error)), error.code, error.detail, error.members)
    if isinstance(error, errors.Unauthenticated) and error.is_of_token:
        response.headers["WWW-Authenticate"] = challenge_of_token(error.detail)
    return response


def challenge_of_token(detail: str) -> str:
    """The challenge for a token that was refused (RFC 6750, 3). A request without a token gets `Bearer` alone."""
    return f'Bearer error="invalid_token", error_description="{_NO_DESCRIPTION.sub("", detail)}"'


def _tenancy_error(error: tenancy.TenancyError) -> Response:
    known = TENANCY.get(type(error))
    if isinstance(error, tenancy.SchemaMissing) and not tenant_has_moved():
        return _schema_missing(error)
    if isinstance(error, tenancy.BindingMismatch | tenancy.SchemaMissing):
        log.error("binding_unproven", error=str(error))
        return problem(HTTPStatus.SERVICE_UNAVAILABLE, errors.DatabaseUnavailable.code, NOT_NOW)
    if known is None:
        return _unexpected(error)
    status, code = known
    return problem(status, code, str(error))


def _wrapped_database_error(error: DBAPIError) -> Response:
    return _database_error(error.orig) if isinstance(error.orig, psycopg.Error) else _unexpected(error)


def _database_error(error: psycopg.Error) -> Response:
    passing = error.sqlstate in PASSING_STATES or (error.sqlstate or "").startswith("08")
    may_have_left = error.sqlstate in LEFT_STATES
    has_left = may_have_left and tenant_has_moved()
    if may_have_left and not has_left and schema_is_gone():
        return _schema_missing(error)
    if not (passing and isinstance(error, psycopg.OperationalError)) and not has_left:
        return _unexpected(error)
    count(DATABASE_ERRORS, error.sqlstate or "none")
    log.warning("database_unavailable", sqlstate=error.sqlstate, error=str(error))
    return problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        errors.DatabaseUnavailable.code,
        NOT_NOW,
    )


def _schema_missing(error: Exception) -> Response:
    status, code = TENANCY[tenancy.SchemaMissing]
    log.error(code, error=str(error))
    return problem(status, code, MISSING)


def _http_exception(error: HTTPException) -> Response:
    original = getattr(error, "original_exception", None)
    if original is not None:  # Raised after the view, for instance by the commit, and wrapped by Flask.
        return _wrapped_database_error(original) if isinstance(original, DBAPIError) else _unexpected(original)
    if error.code is None or error.code < HTTPStatus.BAD_REQUEST:
        return Response(error.get_response().get_data(), error.code, error.get_headers())
    status = HTTPStatus(error.code)
    code = HTTP_CODES[status if status in HTTP_CODES else HTTPStatus.BAD_REQUEST]
    response = problem(status, code, error.description or status.phrase)
    valid_methods = getattr(error, "valid_methods", None)
    if valid_methods:
        response.headers["Allow"] = ", ".join(sorted(valid_methods))
    return response


def _unexpected(error: BaseException) -> Response:
    log.error("unexpected_error", exc_info=error)
    return problem(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        errors.InternalError.code,
        "The service failed. The error is in its log under the request id.",
    )
