"""The API's description: OpenAPI 3.1 at /openapi.json, generated from the schemas, and a page at /docs without outside
resources.
"""

from http import HTTPStatus
from typing import Any

from flask import Flask
from flask_smorest import Api
from marshmallow import INCLUDE, fields

from app.api.documentation_page import blueprint as documentation_page
from app.api.fields import Answer, one_of_openapi
from app.api.money_fields import amount_openapi
from app.api.problems import MEDIA_TYPE

DESCRIPTION = """One service for many tenants. Name the tenant with `X-Tenant`, in the path (`/api/eur/wallet`),
or log in to it. Amounts are decimal strings. Errors are RFC 9457 problems with a stable `code`."""


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
CHALLENGE: dict[str, Any] = {
    "WWW-Authenticate": {
        "description": "how to authenticate; with `error` if the request's token was refused (RFC 6750)",
        "required": True,
        "schema": {
            "type": "string",
            "pattern": '^Bearer( error="invalid_token", error_description="[ !#-\\[\\]-~]*")?$',
        },
    }
}
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


class Documentation(Api):  # type: ignore[misc]  # flask-smorest is not typed
    """flask-smorest without its error handlers and its pagination: `problems.py` and `pagination.py` replace them."""

    ERROR_SCHEMA = ProblemSchema

    def _register_error_handlers(self) -> None: ...

    def _register_pagination_header(self) -> None: ...

    def _register_responses(self) -> None:
        """Register the error responses, which have the media type of problems."""
        self.DEFAULT_RESPONSE_CONTENT_TYPE = MEDIA_TYPE
        super()._register_responses()
        for status, headers in ERROR_HEADERS.items():
            self.spec.components.responses_lazy[status.name]["headers"] = headers
        del self.DEFAULT_RESPONSE_CONTENT_TYPE


def make_api(app: Flask, security_schemes: dict[str, Any], security: list[dict[str, Any]]) -> Documentation:
    """The API object with which the blueprints are registered. `security_schemes` describes the ways to
    authenticate.
    """
    app.config.update(
        API_TITLE="schema-wallet",
        API_VERSION="1",
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX="/",
        OPENAPI_JSON_PATH="openapi.json",
        API_SPEC_OPTIONS={
            "info": {"description": DESCRIPTION},
            "components": {"securitySchemes": security_schemes},
            "security": security,
        },
    )
    api = Documentation(app)
    plugin: Any = api.ma_plugin
    for describe in (amount_openapi, one_of_openapi):
        plugin.converter.add_attribute_function(describe)
    app.register_blueprint(documentation_page)
    return api
