"""Every refusal that a test meets must be declared by the view that gave it."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import pytest
from flask import current_app, request

from app.api import problems
from app.api.refusals import refusals_of

FORESEEN = range(400, 500)


@pytest.fixture(autouse=True)
def refusals_are_declared(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Fail the test for a refusal that OpenAPI does not name. It costs nothing where nothing is refused. A test that
    invents a refusal clears the list.
    """
    undeclared: list[str] = []
    answer = problems.problem

    def observed(status: HTTPStatus, code: str, *arguments: Any, **more: Any) -> Any:
        if status in FORESEEN or status is HTTPStatus.SERVICE_UNAVAILABLE:
            undeclared.extend(_undeclared(status, code))
        return answer(status, code, *arguments, **more)

    monkeypatch.setattr(problems, "problem", observed)
    yield undeclared
    assert undeclared == [], "add `@refuses(…)` to the view"


def _undeclared(status: HTTPStatus, code: str) -> list[str]:
    view = current_app.view_functions.get(request.endpoint or "")
    if view is None or not hasattr(view, "access"):
        return []
    declared = refusals_of(view.__dict__["_apidoc"], request.method)
    return [] if code in declared.get(status, ()) else [f"{request.method} {request.url_rule}: {status.value} {code}"]
