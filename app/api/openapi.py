"""The API's description: OpenAPI 3.1 at /openapi.json, generated from the schemas, and a page at /docs without outside
resources.
"""

import re
from collections.abc import Callable
from threading import Lock
from typing import Any, Final

from flask import Flask, Response
from flask_smorest import Api
from flask_smorest.spec.plugins import FlaskPlugin
from werkzeug.routing import Rule

from app.api.conditional import public_answer
from app.api.document import finish
from app.api.documentation_page import blueprint as documentation_page
from app.api.fields import one_of_openapi
from app.api.money_fields import amount_openapi
from app.api.problem_schema import ProblemSchema
from app.api.problems import MEDIA_TYPE
from app.api.spelling import camel_case
from app.current import current_app
from app.version import VERSION

EXTENSION: Final = "openapi"
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

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._lock = Lock()
        self._descriptions: list[Callable[[], None]] = []
        self._document: dict[str, Any] | None = None
        super().__init__(*arguments, **options)

    def describe_later(self, describe: Callable[[], None]) -> None:
        """Call `describe` when the document is first asked for. It adds to `spec`."""
        self._descriptions.append(describe)

    def _register_error_handlers(self) -> None: ...

    def _register_pagination_header(self) -> None: ...

    def _register_responses(self) -> None:
        """Register the fields of our own, then the error responses, which have the media type of problems."""
        plugin: Any = self.ma_plugin
        for describe in (amount_openapi, one_of_openapi):
            plugin.converter.add_attribute_function(describe)
        self.DEFAULT_RESPONSE_CONTENT_TYPE = MEDIA_TYPE
        super()._register_responses()
        del self.DEFAULT_RESPONSE_CONTENT_TYPE

    @property
    def document(self) -> dict[str, Any]:
        """The OpenAPI document, once all blueprints are registered. The first call makes it in 0.3 s of processor time,
        which commands and most processes never spend.
        """
        with self._lock:
            if self._document is None:
                for describe in self._descriptions:
                    describe()
                self._document = finish(self.spec.to_dict())
            return self._document


def document_of(app: Flask) -> dict[str, Any]:
    """The OpenAPI document of an application."""
    api: Documentation = app.extensions[EXTENSION]
    return api.document


def _show_document() -> Response:
    return public_answer(document_of(current_app))


def make_api(app: Flask, security_schemes: dict[str, Any], security: list[dict[str, Any]]) -> Documentation:
    """The API object with which the blueprints are registered. `security_schemes` describes the ways to
    authenticate.
    """
    app.config.update(
        API_TITLE="schema-wallet",
        API_VERSION=VERSION,
        OPENAPI_VERSION="3.1.0",
        API_SPEC_OPTIONS={
            "info": {"description": DESCRIPTION, "license": {"name": "MIT", "identifier": "MIT"}},
            "servers": [{"url": "/", "description": "this installation"}],
            "components": {"securitySchemes": security_schemes},
            "security": security,
        },
    )
    api = Documentation(app, spec_kwargs={"flask_plugin": Paths()})
    app.extensions[EXTENSION] = api
    app.add_url_rule("/openapi.json", "openapi", _show_document)
    app.register_blueprint(documentation_page)
    return api
