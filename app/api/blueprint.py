"""The blueprint of every feature: strict request parsing, and OpenAPI documentation of headers and refusals."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from flask_smorest import Blueprint as SmorestBlueprint

from app.api.fields import Schema
from app.api.headers import View
from app.api.problems import possible_refusals
from app.api.requests import StrictParser


class Blueprint(SmorestBlueprint):  # type: ignore[misc]  # flask-smorest is not typed
    """A feature's routes: requests are parsed strictly, and OpenAPI documents the headers and refusals of
    each route.
    """

    ARGUMENTS_PARSER = StrictParser()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._prepare_doc_cbks.extend((_document_headers, _document_refusals))

    def arguments(self, schema: type[Schema], *, location: str = "json") -> Callable[[View], View]:
        """Parse a body or a query with this schema. The schema is instantiated once, at import."""
        read = super().arguments(schema(), location=location)

        def mark(view: View) -> View:
            marked = cast(View, read(view))
            if location == "query":
                marked.__dict__["reads_query"] = True
            return marked

        return mark

    if TYPE_CHECKING:

        def get(self, rule: str, **options: Any) -> Callable[[View], View]: ...
        def post(self, rule: str, **options: Any) -> Callable[[View], View]: ...
        def put(self, rule: str, **options: Any) -> Callable[[View], View]: ...
        def patch(self, rule: str, **options: Any) -> Callable[[View], View]: ...
        def delete(self, rule: str, **options: Any) -> Callable[[View], View]: ...
        def response(self, status_code: int, schema: type[Schema] | None = None) -> Callable[[View], View]: ...
        def alt_response(self, status_code: int, *, schema: type[Schema]) -> Callable[[View], View]: ...


def _document_headers(doc: dict[str, Any], doc_info: dict[str, Any], **_: Any) -> dict[str, Any]:
    wanted, given = doc_info.get("headers", []), doc_info.get("gives", {})
    for status, response in doc.get("responses", {}).items():
        if given and str(status).startswith("2"):
            response["headers"] = given
    return {**doc, "parameters": [*doc.get("parameters", []), *wanted]} if wanted else doc


def _document_refusals(doc: dict[str, Any], doc_info: dict[str, Any], *, method: str, **_: Any) -> dict[str, Any]:
    """Name the refusals of an operation. `openapi.py` describes them once."""
    refusals = {str(status.value): status.name for status in possible_refusals(doc, method)}
    told = {str(status): response for status, response in doc.get("responses", {}).items()}
    return {**doc, "responses": refusals | told}
