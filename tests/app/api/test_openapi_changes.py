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


def _operation(document: Json, method: str, path: str) -> Json:
    found: Json = document["paths"][path][method]
    return found


def _parameter(document: Json, method: str, path: str, name: str) -> Json:
    """The schema of a query parameter or a header."""
    (found,) = [each for each in _operation(document, method, path)["parameters"] if each["name"] == name]
    schema: Json = found["schema"]
    return schema


def _rename_code(document: Json) -> None:
    codes = _operation(document, "get", "/api/wallet")["responses"]["404"]["x-codes"]
    codes[codes.index("tenant_not_found")] = "other"


def _field(document: Json, schema: str, name: str) -> Json:
    found: Json = document["components"]["schemas"][schema]["properties"][name]
    return found


def _relax(document: Json, header: str) -> None:
    """The shared header is no longer required."""
    document["components"]["headers"][header]["required"] = False


def _scheme(document: Json, name: str) -> Json:
    found: Json = document["components"]["securitySchemes"][name]
    return found


SCHEMES = ("components", "securitySchemes")
PAYMENTS = "/api/wallet/payments"
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
    "GET /api/wallet: 404 has no code tenant_not_found": _rename_code,
    "GET /api/wallet: no answer 403": lambda new: _lose(new, "paths", "/api/wallet", "get", "responses", "403"),
    "POST /api/wallet/payments: body.description has the maxLength 5, had 500": lambda new: _field(
        new, "Payment", "description"
    ).update(maxLength=5),
    "POST /api/wallet/payments: body.orderId has the minLength 9, had 1": lambda new: _field(
        new, "Payment", "orderId"
    ).update(minLength=9),
    "POST /api/wallet/payments: body.orderId has the pattern ^x, had None": lambda new: _field(
        new, "Payment", "orderId"
    ).update(pattern="^x"),
    "GET /api/wallet: currency has the pattern ^[A-Z]{2}$, had ^[A-Z]{3}$": lambda new: _parameter(
        new, "get", "/api/wallet", "currency"
    ).update(pattern="^[A-Z]{2}$"),
    "GET /api/wallet/transactions: limit has the maximum 5, had 200": lambda new: _parameter(
        new, "get", "/api/wallet/transactions", "limit"
    ).update(maximum=5),
    "GET /api/wallet/transactions: limit has the minimum 5, had 1": lambda new: _parameter(
        new, "get", "/api/wallet/transactions", "limit"
    ).update(minimum=5),
    "POST /api/wallet/payments: Idempotency-Key has the maxLength 36, had 255": lambda new: _parameter(
        new, "post", PAYMENTS, "Idempotency-Key"
    ).update(maxLength=36),
    "POST /api/auth/refresh: a body is needed": lambda new: _operation(new, "post", "/api/auth/refresh")[
        "requestBody"
    ].update(required=True),
    "POST /api/wallet/payments: takes no body": lambda new: _lose(new, "paths", PAYMENTS, "post", "requestBody"),
    "GET /api/me: token no longer authenticates": lambda new: _operation(new, "get", "/api/me").update(
        security=[{"cookie": [], "csrf": []}]
    ),
    "GET /api/wallet: token no longer authenticates": lambda new: new["security"].remove({"token": []}),
    "POST /api/auth/login: nothing no longer authenticates": lambda new: _lose(
        new, "paths", "/api/auth/login", "post", "security"
    ),
    "security scheme csrf is gone": lambda new: _lose(new, *SCHEMES, "csrf"),
    "security scheme csrf has the name X-CSRF, had X-CSRF-Token": lambda new: _scheme(new, "csrf").update(
        name="X-CSRF"
    ),
    "security scheme cookie has the in query, had cookie": lambda new: _scheme(new, "cookie").update({"in": "query"}),
    "security scheme token has the scheme basic, had bearer": lambda new: _scheme(new, "token").update(scheme="basic"),
    "GET /api/wallet: 200.id has the format None, had uuid": lambda new: _field(new, "Wallet", "id").pop("format"),
    "GET /api/wallet: 200.openedAt has the format date, had date-time": lambda new: _field(
        new, "Wallet", "openedAt"
    ).update(format="date"),
    "GET /api/wallet: 200 may have no header ETag": lambda new: _operation(new, "get", "/api/wallet")["responses"][
        "200"
    ]["headers"]["ETag"].update(required=False),
    "GET /api/wallet: 401 may have no header WWW-Authenticate": lambda new: _relax(new, "WWW-Authenticate"),
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
    _operation(new, "get", "/api/wallet")["responses"]["403"]["x-codes"].append("more")
    _operation(new, "get", "/api/wallet")["responses"]["410"] = {"description": "more", "x-codes": ["more"]}
    _field(new, "Payment", "description").update(maxLength=5_000)
    _scheme(new, "token").update(description="more")
    new["components"]["securitySchemes"]["more"] = {"type": "http", "scheme": "digest"}
    _operation(new, "get", "/api/wallet").update(security=[*new["security"], {"more": []}])
    _operation(new, "get", "/api/me")["requestBody"] = {"content": {"application/json": {"schema": {}}}}
    new["paths"]["/api/more"] = new["paths"]["/api/me"]
    new["components"]["schemas"]["Wallet"]["properties"]["more"] = {"type": "string"}
    new["components"]["schemas"]["WalletStatus"]["enum"].append("more")
    new["components"]["schemas"]["Payment"]["properties"]["more"] = {"type": "string"}
    new["paths"]["/api/wallet"]["get"]["parameters"].append(
        {"in": "query", "name": "more", "schema": {"type": "string"}}
    )
    assert breaking_changes(old, new) == []
