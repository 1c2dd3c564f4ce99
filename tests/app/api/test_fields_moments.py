"""Every field for a moment reads alike: RFC 3339 with an offset, within the years that UTC can represent."""

from typing import Any

import pytest
from flask import Flask

from tests.app.api.test_problems import answer_of, refused_at
from tests.factories.api import Api
from tests.factories.people import People, Person

# Method, path and field. {wallet} is a wallet of the asker's.
PLACES = (
    *(
        ("get", f"{path}/statement{form}", name)
        for path in ("/api/wallet", "/api/admin/wallets/{wallet}")
        for form in ("", ".csv", ".pdf")
        for name in ("from", "to")
    ),
    *(("get", "/api/wallet/transactions", name) for name in ("from", "to")),
    *(("get", "/api/admin/wallets/{wallet}/transactions", name) for name in ("from", "to")),
    *(("get", "/api/admin/transactions", name) for name in ("from", "to")),
    *(("get", "/api/admin/transactions.csv", name) for name in ("from", "to")),
    *(("get", "/api/wallet/holds", name) for name in ("from", "to")),
    *(("get", "/api/admin/holds", name) for name in ("from", "to")),
    *(("get", "/api/admin/wallets/{wallet}/holds", name) for name in ("from", "to")),
    *(("get", "/api/orders", name) for name in ("from", "to")),
    *(("get", "/api/admin/orders", name) for name in ("from", "to")),
    *(("get", "/api/admin/wallets/{wallet}/orders", name) for name in ("from", "to")),
    *(("get", "/api/admin/audit-log", name) for name in ("from", "to")),
    *(("get", "/api/admin/events/replay", name) for name in ("from", "to")),
    ("get", "/api/wallet/balance", "at"),
    ("get", "/api/admin/wallets/{wallet}/balance", "at"),
    ("post", "/api/wallet/holds", "expiresAt"),
    ("post", "/api/admin/api-keys", "expiresAt"),
    *(("post", "/api/admin/webhooks/{webhook}/replay", name) for name in ("from", "to")),
)
# The first two are moments of the years 0 and 10000 in UTC.
NO_MOMENTS = (
    *("0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59.999999-00:01", "0001-01-01T00:00:00+14:00"),
    *("2026-01-01T00:00:00", "2026-02-30T00:00:00Z", "infinity", ""),
)
FIRST, LAST = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"
OVER_PLACES = pytest.mark.parametrize("place", PLACES, ids=" ".join)


@pytest.fixture(scope="module")
def asker(app: Flask) -> Person:
    return People(app).make(eur="admin")


@pytest.fixture(scope="module")
def ids(app: Flask, asker: Person) -> dict[str, Any]:
    """Of what a path can name."""
    webhook = Api(app).post("/api/admin/webhooks", asker, "eur", json={"url": "https://localhost/hook"})
    return {"wallet": People(app).wallet(asker, "eur", balance_minor=10_000), "webhook": webhook.json["id"]}


def sent(path: str, field: str, moment: str) -> dict[str, Any]:
    if path.endswith("api-keys"):
        return {"json": {"name": "a robot", "role": "service", field: moment}}
    if field == "expiresAt":
        return {"json": {"amount": "0.01", field: moment}}
    if path.endswith("/replay") and "webhook" in path:
        return {"json": {"from": FIRST, "to": LAST, field: moment}}
    needed = {"from": FIRST, "to": LAST} if "/statement" in path or path.endswith("/replay") else {}
    return {"query_string": needed | {field: moment}}


def test_every_place_for_a_moment_is_tried_here(api: Api) -> None:
    described: Any = api.get("/openapi.json").json
    places = set()
    for path, item in described["paths"].items():
        for method, operation in item.items():
            if method == "parameters":
                continue
            told = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            body = described["components"]["schemas"].get(told.get("$ref", "").rpartition("/")[2], {})
            fields = list(body.get("properties", {}).items())
            fields += [(about["name"], about["schema"]) for about in operation.get("parameters", ())]
            places |= {(method, path, name) for name, about in fields if about.get("format") == "date-time"}
    assert places == {
        (method, path.format(wallet="{walletId}", webhook="{webhookId}"), field) for method, path, field in PLACES
    }


@OVER_PLACES
def test_what_is_no_moment_or_none_in_utc_is_refused_by_name(
    api: Api, asker: Person, ids: dict[str, Any], place: tuple[str, str, str]
) -> None:
    method, path, field = place
    filled, ask = path.format(**ids), getattr(api, method)
    answers = {text: answer_of(ask(filled, asker, "eur", **sent(path, field, text))) for text in NO_MOMENTS}
    assert answers == {text: refused_at(field, "not_a_moment") for text in NO_MOMENTS}


@OVER_PLACES
def test_the_first_and_the_last_moment_are_taken(
    api: Api, asker: Person, ids: dict[str, Any], place: tuple[str, str, str]
) -> None:
    method, path, field = place
    if path.endswith("api-keys"):
        pytest.skip("a key ends in a year at the latest, which its own tests try")
    if path.endswith("/replay"):
        pytest.skip("there must be an event in the period, which its own tests try")
    moment = FIRST if field == "from" else LAST
    answer = getattr(api, method)(path.format(**ids), asker, "eur", **sent(path, field, moment))
    assert answer.status_code == (201 if method == "post" else 200)
    if field == "expiresAt":
        assert answer.json["expiresAt"] == LAST
