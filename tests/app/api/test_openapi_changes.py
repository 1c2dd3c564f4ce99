"""No release breaks the clients of the last one unsaid: the document is compared with the last release's."""

import json
import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from flask import Flask

from app.api.commands import release_file
from app.api.openapi import document_of
from app.config import ROOT
from tests.factories.openapi_changes import breaking_changes

Json = dict[str, Any]


def unreleased() -> str:
    """The part of CHANGELOG.md about the next release."""
    text = (ROOT / "CHANGELOG.md").read_text()
    return text.partition("\n## Unreleased\n")[2].partition("\n## ")[0]


def last_release() -> Json:
    releases = re.findall(r"^## ([0-9.]+), \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    document: Json = json.loads(release_file(releases[0]).read_text())
    assert document["info"]["version"] == releases[0]
    return document


def test_a_change_that_breaks_clients_stands_in_the_changelog(app: Flask) -> None:
    """Write the line as it is into CHANGELOG.md, under Unreleased, with what the client has to do."""
    said = unreleased()
    assert [change for change in breaking_changes(last_release(), document_of(app)) if change not in said] == []


def _lose(document: Json, *path: str) -> None:
    for step in path[:-1]:
        document = document[step]
    del document[path[-1]]


def _require(document: Json, schema: str, name: str) -> None:
    about = document["components"]["schemas"][schema]
    about["properties"].setdefault(name, {"type": "string"})
    about.setdefault("required", []).append(name)


BREAKS: dict[str, Callable[[Json], Any]] = {
    "GET /api/me is gone": lambda new: _lose(new, "paths", "/api/me"),
    "GET /api/me: operationId is other, was showMe": lambda new: new["paths"]["/api/me"]["get"].update(
        operationId="other"
    ),
    "GET /api/wallet: 200.held is gone": lambda new: _lose(new, *WALLET, "properties", "held"),
    "GET /api/wallet: 200.held may be missing": lambda new: new["components"]["schemas"]["Wallet"]["required"].remove(
        "held"
    ),
    "GET /api/wallet: query parameter currency is gone": lambda new: new["paths"]["/api/wallet"]["get"].update(
        parameters=[each for each in new["paths"]["/api/wallet"]["get"]["parameters"] if each["name"] != "currency"]
    ),
    "GET /api/wallet: 200.version is string, was integer": lambda new: new["components"]["schemas"]["Wallet"][
        "properties"
    ].update(version={"type": "string"}),
    "POST /api/wallet/payments: body.orderId is needed": lambda new: _require(new, "Payment", "orderId"),
    "POST /api/wallet/payments: body.more is needed": lambda new: _require(new, "Payment", "more"),
    "POST /api/wallet/payments: no answer 200": lambda new: _lose(
        new, "paths", "/api/wallet/payments", "post", "responses", "200"
    ),
    "POST /api/admin/members: body.role takes no auditor": lambda new: new["components"]["schemas"]["MembershipRole"][
        "enum"
    ].remove("auditor"),
}
WALLET = ("components", "schemas", "Wallet")


@pytest.mark.parametrize("change", BREAKS)
def test_each_breaking_change_is_found(app: Flask, change: str) -> None:
    old = document_of(app)
    new = deepcopy(old)
    BREAKS[change](new)
    assert change in breaking_changes(old, new)


def test_an_addition_breaks_nothing(app: Flask) -> None:
    old = document_of(app)
    new = deepcopy(old)
    new["paths"]["/api/more"] = new["paths"]["/api/me"]
    new["components"]["schemas"]["Wallet"]["properties"]["more"] = {"type": "string"}
    new["components"]["schemas"]["WalletStatus"]["enum"].append("more")
    new["components"]["schemas"]["Payment"]["properties"]["more"] = {"type": "string"}
    new["paths"]["/api/wallet"]["get"]["parameters"].append(
        {"in": "query", "name": "more", "schema": {"type": "string"}}
    )
    assert breaking_changes(old, new) == []
