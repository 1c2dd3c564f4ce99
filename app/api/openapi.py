"""The API's description: OpenAPI 3.1 at /openapi.json, generated from the schemas, and a page at /docs without outside
resources.
"""

import json
import re
from typing import Any

from flask import Flask
from flask_smorest import Api
from flask_smorest.spec.plugins import FlaskPlugin
from flask_swagger_ui import get_swaggerui_blueprint
from werkzeug.routing import Rule

from app.api.answers import json_answer
from app.api.fields import one_of_openapi
from app.api.money_fields import amount_openapi
from app.api.problem_schema import ERROR_HEADERS, ProblemSchema
from app.api.problems import MEDIA_TYPE
from app.api.spelling import camel_case

_VARIABLE = re.compile(r"<(?:[^:<>]+:)?([^<>]+)>")
DESCRIPTION = """One service for many tenants. Name the tenant with `X-Tenant`, in the path (`/api/eur/wallet`),
or log in to it. Amounts are decimal strings. Errors are RFC 9457 problems with a stable `code`."""


class Paths(FlaskPlugin):  # type: ignore[misc]  # flask-smorest is not typed
    """Paths with parameters as the wire spells them: `walletId`. A tenant's id on the wire is its slug."""

    @staticmethod
    def flaskpath2openapi(path: str) -> str:
        return _VARIABLE.sub(lambda found: f"{{{_parameter(found[1])}}}", path)

    def rule_to_params(self, rule: Rule) -> list[dict[str, Any]]:
        return [about | {"name": _parameter(about["name"])} for about in super().rule_to_params(rule)]


def _parameter(variable: str) -> str:
    return "tenantId" if variable == "slug" else camel_case(variable)


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

    def document(self) -> dict[str, Any]:
        """The OpenAPI document. The fields of bodies have no `default`: several generators would require such a field
        in requests. Their descriptions name it.
        """
        document: dict[str, Any] = self.spec.to_dict()
        for about in document["components"]["schemas"].values():
            for field in about.get("properties", {}).values():
                if "default" in field:
                    default = f"default: {json.dumps(field.pop('default'))}"
                    field["description"] = f"{field['description']}; {default}" if "description" in field else default
        return document


def make_api(app: Flask, security_schemes: dict[str, Any], security: list[dict[str, Any]]) -> Documentation:
    """The API object with which the blueprints are registered. `security_schemes` describes the ways to
    authenticate.
    """
    app.config.update(
        API_TITLE="schema-wallet",
        API_VERSION="1",
        OPENAPI_VERSION="3.1.0",
        API_SPEC_OPTIONS={
            "info": {"description": DESCRIPTION},
            "components": {"securitySchemes": security_schemes},
            "security": security,
        },
    )
    api = Documentation(app, spec_kwargs={"flask_plugin": Paths()})
    plugin: Any = api.ma_plugin
    for describe in (amount_openapi, one_of_openapi):
        plugin.converter.add_attribute_function(describe)
    app.add_url_rule("/openapi.json", "openapi", lambda: json_answer(api.document(), 200))
    app.register_blueprint(get_swaggerui_blueprint("/docs", "/openapi.json", config={"validatorUrl": None}))
    return api
