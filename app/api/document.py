"""The finishing of the OpenAPI document: what several operations share becomes a component, and what generators of
clients misread is spelled for them.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from app.api.problem_codes import problem_types

Json = dict[str, Any]

EXAMPLES_FILE: Final = Path(__file__).with_name("examples.json")

_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}
# The headers that answers of many operations have.
HEADERS: dict[str, Json] = {
    "X-Request-ID": {"description": "names the request in the service's log", "required": True, "schema": _TEXT},
    "Retry-After": {"description": "seconds until the next try", "required": True, "schema": _COUNT},
    "WWW-Authenticate": {
        "description": "how to authenticate; with `error` if the request's token was refused (RFC 6750)",
        "required": True,
        "schema": {
            "type": "string",
            "pattern": '^Bearer( error="invalid_token", error_description="[ !#-\\[\\]-~]*")?$',
        },
    },
    "RateLimit-Limit": {"description": "requests in a whole window", "schema": _COUNT},
    "RateLimit-Remaining": {"description": "requests left in this window", "schema": _COUNT},
    "RateLimit-Reset": {"description": "seconds until the next window", "schema": _COUNT},
    "RateLimit-Policy": {
        "description": "each limit that the request was counted for: whose it is, q requests in w seconds",
        "schema": _TEXT,
    },
    "RateLimit": {"description": "each of these limits: r requests left, t seconds until the window", "schema": _TEXT},
}
# Every answer has the first; a counted one has the others.
_OF_EVERY_ANSWER = ("X-Request-ID", *(name for name in HEADERS if name.startswith("RateLimit")))
_OF_STATUS = {"401": ("WWW-Authenticate",), "429": ("Retry-After",), "503": ("Retry-After",)}


def finish(document: Json) -> Json:
    """Finish the document in place."""
    components = document["components"]
    _spell_defaults(components["schemas"])
    components["schemas"]["Problem"]["properties"]["code"] = {
        "type": "string",
        "enum": [each.code for each in problem_types()],
        "x-words": "ProblemCode",
        "description": "stable; decide by it. Later releases may add codes",
    }
    _name_words(document)
    _refer(document)
    _show_examples(document)
    components["headers"] = HEADERS
    for response in _answers(document):
        names = (*_OF_EVERY_ANSWER, *_OF_STATUS.get(response.pop("x-status"), ()))
        shared = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
        response["headers"] = shared | response.get("headers", {})
    return document


def _answers(document: Json) -> Iterator[Json]:
    """All descriptions of answers, in the order of their status, each with its status as `x-status`."""
    for response in document["components"]["responses"].values():
        yield _with_status(response, "")
    for item in document["paths"].values():
        for method, operation in item.items():
            if method == "parameters":
                continue
            responses = dict(sorted(operation["responses"].items()))
            operation["responses"] = responses
            yield from (_with_status(about, status) for status, about in responses.items() if "$ref" not in about)


def _with_status(response: Json, status: str) -> Json:
    response["x-status"] = status
    return response


def _show_examples(document: Json) -> None:
    """Add the recorded exchanges (`tests/app/api/test_document_examples.py` records them)."""
    recorded: dict[str, Json] = json.loads(EXAMPLES_FILE.read_text(encoding="utf-8"))
    for item in document["paths"].values():
        for method, operation in item.items():
            if method == "parameters" or operation.get("operationId") not in recorded:
                continue
            about = recorded[operation["operationId"]]
            answer = operation["responses"].get(about["status"], {})
            for part, name in ((operation.get("requestBody", {}), "body"), (answer, "answer")):
                content = part.get("content", {}).get("application/json")
                if content is not None and name in about:
                    content["example"] = about[name]


def _spell_defaults(schemas: Json) -> None:
    """Write the default of a field into its description: several generators would require the field in requests."""
    for schema in schemas.values():
        for field in schema.get("properties", {}).values():
            if "default" in field:
                default = f"default: {json.dumps(field.pop('default'))}"
                field["description"] = f"{field['description']}; {default}" if "description" in field else default


def _name_words(document: Json) -> None:
    """Make a schema of each list of words (`Words` in `fields.py`), and refer to it wherever it stands."""
    named: Json = {}
    for part in list(_objects(document)):
        name = part.pop("x-words", None)
        if name is None:
            continue
        words = {"type": "string", "enum": [word for word in part.pop("enum") if word is not None]}
        if named.setdefault(name, words) != words:
            raise RuntimeError(f"Two lists of words have the name {name}.")
        reference = {"$ref": f"#/components/schemas/{name}"}
        is_nullable = isinstance(part.pop("type"), list)
        part.update({"anyOf": [reference, {"type": "null"}]} if is_nullable else reference)
    document["components"]["schemas"].update(sorted(named.items()))


def _refer(document: Json) -> None:
    """Refer to the schema that `x-schema` names, where a field holds what another part of the code has dumped."""
    for part in list(_objects(document)):
        if "x-schema" in part:
            reference = {"$ref": f"#/components/schemas/{part.pop('x-schema')}"}
            part.pop("type")
            part.pop("additionalProperties", None)
            part.update(reference)


def _objects(node: Any) -> Iterator[Json]:
    if isinstance(node, dict):
        yield node
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _objects(inner)
