"""The examples of the description are real: they are recorded from requests that every operation answers.

`UPDATE_EXAMPLES=1 python -m pytest tests/app/api/test_document_examples.py` records them again.
"""

import json
import os
import re
from typing import Any

import jsonschema_rs
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app.api.document import EXAMPLES_FILE
from app.api.openapi import document_of
from app.api.spelling import camel_case
from tenant_schemas.testing.plugin import Database
from tests.factories.exchanges import Exchanges
from tests.isolation.samples import SAMPLES, World

Json = dict[str, Any]
SECRET = re.compile(r"\w*token|key|\w*password|secret|uri|codes", re.I)
CALLERS = ("member", "admin", "operator")


@pytest.fixture(scope="module")
def recorded(app: Flask, database: Database) -> dict[str, Json]:
    """The request and the answer of each operation, by its name."""
    world, found = World(app, database), {}
    names = {
        (method, rule.rule): camel_case(app.view_functions[rule.endpoint].__name__)
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
    }
    for sample in SAMPLES:
        role = next((role for role in CALLERS if role in sample.who), "anonymous")
        if not sample.rule.startswith("/api/") or sample.method == "DELETE":
            continue
        answer = world.send(sample, role, "eur")
        if answer.status_code >= 300:
            continue
        _, body = json.loads(world.fill(sample.text, "eur"))
        found[names[sample.method, sample.rule]] = exchange(body, answer)
    found |= {name: exchange(*kept) for name, kept in Exchanges(app, database).kept.items()}
    if os.environ.get("UPDATE_EXAMPLES"):
        EXAMPLES_FILE.write_text(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    return found


def exchange(body: Json | None, answer: TestResponse) -> Json:
    about: Json = {"status": str(answer.status_code)}
    about |= {"body": shown(body)} if body else {}
    return about | ({"answer": shown(answer.json)} if answer.data and answer.is_json else {})


def shown(value: Any, name: str = "") -> Any:
    """The value without secrets, and with one item of each list."""
    if isinstance(value, dict):
        return {name: shown(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [shown(inner, name) for inner in value[:1]]
    return "…" * 12 if isinstance(value, str) and SECRET.fullmatch(name) else value


def shape(value: Any) -> Any:
    """The names and types of a value; null may stand for anything."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return "list"
    return "text" if value is None or isinstance(value, str) else type(value).__name__


def test_each_example_has_the_shape_of_a_real_exchange(recorded: dict[str, Json]) -> None:
    kept: dict[str, Json] = json.loads(EXAMPLES_FILE.read_text())
    assert {name: shape(each) for name, each in kept.items()} == {name: shape(each) for name, each in recorded.items()}


def test_every_json_of_the_description_has_an_example_that_it_allows(app: Flask) -> None:
    document = document_of(app)
    seen = 0
    for item in document["paths"].values():
        for operation in (each for method, each in item.items() if method in {"get", "post", "put", "patch"}):
            name = operation["operationId"]
            parts = [operation.get("requestBody", {})]
            parts += [about for status, about in operation["responses"].items() if status in {"200", "201"}]
            found = [
                part["content"]["application/json"] for part in parts if "application/json" in part.get("content", {})
            ]
            with_example = [about for about in found if "example" in about]
            assert bool(with_example) == bool(found), name
            for about in with_example:
                schema = about["schema"] | {"components": document["components"]}
                assert list(jsonschema_rs.validator_for(schema).iter_errors(about["example"])) == [], name
                seen += 1
    assert seen > 60
