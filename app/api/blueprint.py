"""The blueprint of every feature: strict request parsing, and OpenAPI documentation of headers and refusals.

flask-smorest documents the routes. Its wrappers, which also parse requests and dump answers, are not called.
"""

from collections.abc import Callable
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, cast

from flask import Response
from flask_smorest import Blueprint as SmorestBlueprint

from app.api.answers import json_answer
from app.api.conditional import conditional_answer
from app.api.dumper import dumper_of
from app.api.fields import Schema
from app.api.openapi import Documentation
from app.api.problem_schema import ProblemSchema
from app.api.problems import MEDIA_TYPE
from app.api.refusals import View, refusals_of, refuses
from app.api.requests import load_json, load_optional_json, load_query
from app.api.spelling import camel_case
from app.current import current_request
from app.errors import BodyRequired, BodyTooLarge, Invalid, InvalidJson, Malformed, NotFound, UnsupportedMediaType

_OF_BODIES = (Malformed, BodyRequired, InvalidJson, BodyTooLarge, UnsupportedMediaType, Invalid)


class Blueprint(SmorestBlueprint):  # type: ignore[misc]  # flask-smorest is not typed
    """A feature's routes: requests are parsed strictly, and OpenAPI documents the headers and refusals of
    each route.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._prepare_doc_cbks.extend((_document_refusals, _document_headers))

    def arguments(
        self, schema: type[Schema], *, location: str = "json", required: bool = True
    ) -> Callable[[View], View]:
        """Parse a body or a query with this schema, and pass it to the view after the arguments of decorators above.
        The schema is instantiated once, at import. Where a body is not required, none is read as `{}`.
        """
        request_schema = schema()
        document = super().arguments(request_schema, location=location, required=required)
        load = load_query if location == "query" else load_json if required else load_optional_json

        def mark(view: View) -> View:
            @wraps(document(view))
            def read(*arguments: Any, **named: Any) -> Any:
                loaded = load(current_request(), request_schema)
                return view(*arguments, loaded, **named)

            if location == "query":
                read.__dict__["reads_query"] = True
                return refuses(Invalid)(cast(View, read))
            kinds = _OF_BODIES if required else [kind for kind in _OF_BODIES if kind is not BodyRequired]
            return refuses(*kinds)(cast(View, read))

        return mark

    def response(self, status_code: int, schema: type[Schema] | None = None) -> Callable[[View], View]:
        """Dump the result of the view with this schema, and answer with this status. The view may return its result, a
        tuple of the result with a status, with headers or with both, or a response, which stays as it is.
        """
        answer_schema = schema() if schema else None
        document = super().response(status_code, answer_schema)
        dump = dumper_of(answer_schema) if answer_schema else None

        def mark(view: View) -> View:
            is_conditional = view.__dict__.get("_apidoc", {}).get("conditional", False)

            @wraps(document(view))
            def answer(*arguments: Any, **named: Any) -> Response:
                returned = view(*arguments, **named)
                if isinstance(returned, Response):
                    return returned
                result, status, headers = _parts(returned, status_code)
                value = dump(result) if dump else result
                return conditional_answer(value, headers) if is_conditional else json_answer(value, status, headers)

            return cast(View, answer)

        return mark

    def alt_response(self, status_code: int, **about: Any) -> Callable[[View], View]:
        """Document another answer of the view."""
        document = super().alt_response(status_code, **about)

        def mark(view: View) -> View:
            view.__dict__["_apidoc"] = document(view)._apidoc
            return view

        return mark

    def add_url_rule(self, rule: str, endpoint: str | None, view: Callable[..., Any], **options: Any) -> None:
        """As flask-smorest's. The view's name becomes the `operationId`. A malformed id in the path leads nowhere: 404
        `not_found`.
        """
        about = view.__dict__.setdefault("_apidoc", {}).setdefault("manual_doc", {})
        about["operationId"] = camel_case(view.__name__)
        super().add_url_rule(rule, endpoint, refuses(NotFound)(view) if "<uuid:" in rule else view, **options)

    def register_views_in_doc(self, api: Documentation, *arguments: Any, **named: Any) -> None:
        """As flask-smorest's, but when the document is first asked for."""
        api.describe_later(partial(super().register_views_in_doc, api, *arguments, **named))

    if TYPE_CHECKING:

        def get(self, rule: str, **options: Any) -> Callable[[View], View]: ...
        def post(self, rule: str, **options: Any) -> Callable[[View], View]: ...
        def put(self, rule: str, **options: Any) -> Callable[[View], View]: ...
        def patch(self, rule: str, **options: Any) -> Callable[[View], View]: ...
        def delete(self, rule: str, **options: Any) -> Callable[[View], View]: ...


def _parts(returned: Any, default_status: int) -> tuple[Any, int, dict[str, str] | None]:
    """Result, status and headers of what a view returned."""
    match returned if type(returned) is tuple else (returned,):
        case result, int(status), headers:
            return result, status, headers
        case result, int(status):
            return result, status, None
        case result, headers:
            return result, default_status, headers
        case (result,):
            return result, default_status, None
    raise TypeError(f"A view returned a tuple of {len(returned)}.")


def _document_headers(doc: dict[str, Any], doc_info: dict[str, Any], **_: Any) -> dict[str, Any]:
    wanted, given = doc_info.get("headers", []), doc_info.get("gives", {})
    for status, response in doc.get("responses", {}).items():
        is_default = status == "default"
        headers = {name: header for name, (header, on) in given.items() if not is_default and int(status) in on}
        if headers:
            response["headers"] = headers
    return {**doc, "parameters": [*doc.get("parameters", []), *wanted]} if wanted else doc


def _document_refusals(doc: dict[str, Any], doc_info: dict[str, Any], *, method: str, **_: Any) -> dict[str, Any]:
    """Describe the refusals of an operation, by status, with the codes of each."""
    told = {str(status): response for status, response in doc.get("responses", {}).items()}
    refused = {
        str(status.value): {
            "description": f"{status.phrase}: {', '.join(f'`{code}`' for code in codes)}.",
            "content": {MEDIA_TYPE: {"schema": ProblemSchema}},
            "x-codes": codes,
        }
        for status, codes in refusals_of(doc_info, method).items()
    }
    unchanged = {"304": {"description": "The caller has this answer already."}} if doc_info.get("conditional") else {}
    return {**doc, "responses": told | unchanged | refused}
