"""Every route with a body refuses invalid input, names the fault, and writes nothing.

Each route is listed with a valid body. Every fault is put into that body, so the fault is the only reason for the
refusal.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any, Literal
from uuid import UUID, uuid4

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from app.api.headers import MAX_KEY_LENGTH
from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import Answer, answer_of, faults_of, problem_of, refused_at
from tests.factories.api import Api
from tests.factories.catalogue import Catalogue
from tests.factories.feed import Feed
from tests.factories.people import People, Person

TENANTS = ("eur", "km")


@dataclass(frozen=True)
class Route:
    """A route with a body, and the fields that tests can make invalid."""

    path: str
    body: dict[str, Any]
    method: str = "POST"
    status: int = 201
    required: tuple[str, ...] = ()
    texts: dict[str, int] = field(default_factory=dict)
    identifiers: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    amount: str | None = None
    allows: Literal["positive", "zero_or_more", "not_zero"] = "positive"
    also: tuple[str, ...] = ()  # fields that are tried elsewhere
    may_be_empty: bool = False
    wants_body: bool = True
    wants_key: bool = True

    @property
    def fields(self) -> set[str]:
        return {*self.texts, *self.identifiers, *self.choices} | ({self.amount} if self.amount else set())

    def __str__(self) -> str:
        return f"{self.method} {self.path.removeprefix('/api/')}"


# {wallet} and the like stand for what the world below holds, {order} for one that was never paid.
ROUTES = (
    Route(
        "/api/auth/login",
        {"email": "unknown@example.com", "password": "wrong"},
        status=401,
        required=("email", "password"),
        texts={"email": 254, "password": 1024, "code": 40},
        also=("cookie", "deviceToken"),
    ),
    Route(
        "/api/auth/refresh",
        {"refreshToken": "unknown"},
        status=401,
        texts={"refreshToken": 200},
        may_be_empty=True,
        wants_body=False,
    ),
    Route(
        "/api/auth/password",
        {"currentPassword": "wrong", "newPassword": "long enough by far"},
        status=403,
        required=("currentPassword", "newPassword"),
        texts={"currentPassword": 1024, "newPassword": 1024},
    ),
    Route(
        "/api/auth/password/forgotten",
        {"email": "unknown@example.com"},
        status=202,
        required=("email",),
        texts={"email": 254},
    ),
    Route(
        "/api/auth/password/reset",
        {"token": "unknown", "newPassword": "long enough by far"},
        status=404,
        required=("token", "newPassword"),
        texts={"token": 100, "newPassword": 1024},
    ),
    Route("/api/auth/email/confirm", {"token": "unknown"}, status=404, required=("token",), texts={"token": 100}),
    Route(
        "/api/auth/invitations/accept",
        {"token": "unknown", "password": "long enough by far", "name": "Ana"},
        status=404,
        required=("token",),
        texts={"token": 100, "password": 1024, "name": 200},
    ),
    Route("/api/me", {"name": "Ana"}, method="PATCH", status=200, required=("name",), texts={"name": 200}),
    Route(
        "/api/me/email",
        {"newEmail": "{email}", "currentPassword": "wrong"},
        status=403,
        required=("newEmail", "currentPassword"),
        texts={"currentPassword": 1024},
        also=("newEmail",),
    ),
    Route(
        "/api/me/second-factor",
        {"currentPassword": "wrong"},
        status=403,
        required=("currentPassword",),
        texts={"currentPassword": 1024},
    ),
    Route("/api/me/second-factor/confirm", {"code": "123456"}, status=409, required=("code",), texts={"code": 40}),
    Route(
        "/api/me/second-factor/recovery-codes",
        {"currentPassword": "wrong", "code": "123456"},
        status=403,
        required=("currentPassword", "code"),
        texts={"currentPassword": 1024, "code": 40},
    ),
    Route(
        "/api/me/second-factor/remove",
        {"currentPassword": "wrong", "code": "123456"},
        status=403,
        required=("currentPassword", "code"),
        texts={"currentPassword": 1024, "code": 40},
    ),
    Route(
        "/api/admin/invitations",
        {"email": "{email}", "name": "Ana", "role": "member"},
        required=("email", "role"),
        texts={"name": 200},
        choices=("role",),
        also=("email",),
        wants_key=False,
    ),
    Route(
        "/api/wallet/payments",
        {"amount": "0.01", "orderId": "{order}", "description": "bread"},
        required=("amount",),
        texts={"orderId": 100, "description": 500},
        amount="amount",
    ),
    Route(
        "/api/wallet/holds",
        {"amount": "0.01", "orderId": "{order}", "description": "a room", "expiresAt": "2999-01-01T00:00:00Z"},
        required=("amount",),
        texts={"orderId": 100, "description": 500},
        amount="amount",
    ),
    Route("/api/wallet/holds/{hold}/capture", {"amount": "0.01"}, amount="amount", may_be_empty=True),
    Route("/api/orders", {"items": [{"productId": "{product}", "quantity": 1}]}, required=("items",)),
    Route(
        "/api/admin/wallets",
        {"userId": "{member}"},
        status=200,
        required=("userId",),
        identifiers=("userId",),
        also=("currency",),
    ),
    Route(
        "/api/admin/wallets/{wallet}",
        {"creditLimit": "5.00", "status": "active"},
        method="PATCH",
        status=200,
        choices=("status",),
        amount="creditLimit",
        allows="zero_or_more",
    ),
    Route(
        "/api/admin/wallets/{wallet}/deposits",
        {"amount": "0.01", "reference": "bank"},
        required=("amount",),
        texts={"reference": 200},
        amount="amount",
    ),
    Route(
        "/api/admin/wallets/{wallet}/payments",
        {"amount": "0.01", "orderId": "{order}", "description": "bread"},
        required=("amount",),
        texts={"orderId": 100, "description": 500},
        amount="amount",
    ),
    Route(
        "/api/admin/wallets/{wallet}/refunds",
        {"amount": "0.01", "paymentId": "{payment}"},
        required=("paymentId",),
        identifiers=("paymentId",),
        amount="amount",
    ),
    Route(
        "/api/admin/wallets/{wallet}/adjustments",
        {"amount": "0.01", "reason": "counted"},
        required=("amount", "reason"),
        texts={"reason": 500},
        amount="amount",
        allows="not_zero",
    ),
    Route(
        "/api/admin/credit-policies/{currency}",
        {"defaultLimit": "0.00", "maxLimit": None},
        method="PUT",
        status=200,
        required=("defaultLimit", "maxLimit"),
        amount="defaultLimit",
        allows="zero_or_more",
        also=("maxLimit",),
    ),
    Route(
        "/api/admin/transactions/bulk",
        {"items": [{"walletId": "{wallet}", "type": "deposit", "amount": "0.01"}]},
        required=("items",),
    ),
    Route(
        "/api/admin/api-keys",
        {"name": "till", "role": "service", "expiresAt": "{tomorrow}"},
        required=("name", "role", "expiresAt"),
        texts={"name": 100},
        choices=("role",),
        also=("expiresAt",),
        wants_key=False,
    ),
    Route(
        "/api/admin/members",
        {"email": "{email}", "name": "Ana", "role": "member"},
        required=("email", "role"),
        texts={"name": 200},
        choices=("role", "apiKeys"),
        also=("email",),
        wants_key=False,
    ),
    Route(
        "/api/admin/members/{other}",
        {"role": "auditor"},
        method="PATCH",
        status=200,
        required=("role",),
        choices=("role", "apiKeys"),
    ),
    Route(
        "/api/admin/webhooks",
        {"url": "https://localhost/hook", "description": "till", "types": [], "payload": "thin", "order": "none"},
        required=("url",),
        texts={"description": 200},
        choices=("payload", "order"),
        also=("url", "types"),
        wants_key=False,
    ),
    Route(
        "/api/admin/webhooks/{webhook}",
        {"url": "https://localhost/hook", "description": "till", "types": [], "payload": "thin", "order": "none"},
        method="PATCH",
        status=200,
        texts={"description": 200},
        choices=("payload", "order"),
        also=("url", "types"),
    ),
    Route(
        "/api/admin/webhooks/{webhook}/replay",
        {"from": "2000-01-01T00:00:00Z", "to": "2999-01-01T00:00:00Z", "types": []},
        required=("from", "to"),
        also=("from", "to", "types"),
        wants_key=False,
    ),
    Route(
        "/api/admin/tenants",
        {"id": "{new_slug}", "name": "Francs", "currency": "CHF", "settings": {"rateLimit": "600/minute"}},
        status=202,
        required=("id", "currency"),
        texts={"name": 200},
        also=("id", "currency", "currencies", "locale", "settings"),
        wants_key=False,
    ),
    Route(
        "/api/admin/tenants/{slug}",
        {"name": "A tenant", "status": "active"},
        method="PATCH",
        status=200,
        texts={"name": 200},
        choices=("status",),
        also=("currencies", "locale", "settings"),
    ),
)
WITHOUT_A_BODY = {
    ("POST", "/api/auth/logout"),  # Its body is optional, and it would end the session of the caller here.
    ("POST", "/api/wallet/holds/<uuid:hold_id>/void"),
    ("POST", "/api/admin/wallets/<uuid:wallet_id>/holds/<uuid:hold_id>/void"),
    ("POST", "/api/orders/<uuid:order_id>/cancel"),
    ("DELETE", "/api/admin/api-keys/<uuid:key_id>"),
    ("DELETE", "/api/admin/members/<uuid:user_id>"),
    ("DELETE", "/api/admin/invitations/<uuid:invitation_id>"),
    ("POST", "/api/admin/invitations/<uuid:invitation_id>/resend"),
    ("DELETE", "/api/me/sessions"),
    ("DELETE", "/api/admin/webhooks/<uuid:webhook_id>"),
    *(
        ("POST", f"/api/admin/webhooks/<uuid:webhook_id>/{verb}")
        for verb in ("enable", "disable", "rotate", "test", "events/<uuid:event_id>/resend")
    ),
    ("DELETE", "/api/me/sessions/<uuid:session_id>"),
}
POSTINGS = tuple(route for route in ROUTES if route.status == 201 and route.wants_key)


def over(routes: Iterable[Route]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("route", list(routes), ids=str)


OVER_ROUTES = over(ROUTES)
OVER_POSTINGS = over(POSTINGS)
OVER_TENANTS = pytest.mark.parametrize("slug", TENANTS)


class World:
    """An admin with a wallet and a payment in each tenant, and a superuser's view of the written rows."""

    def __init__(self, app: Flask, database: Database) -> None:
        people = People(app)
        self.api = Api(app)
        self.admin: Person = people.make(password_hash="no password has this hash", eur="admin", km="admin")
        self.other: Person = people.make(eur="member", km="member")
        self.wallet: dict[str, UUID] = {}
        self.payment: dict[str, str] = {}
        self.hold: dict[str, str] = {}
        self.product = Catalogue(database).product(EUR="0.01", BAM="0.01")[1]
        for slug in TENANTS:
            self.wallet[slug] = people.wallet(self.admin, slug, balance_minor=10_000)
            for found, path in ((self.payment, "/api/wallet/payments"), (self.hold, "/api/wallet/holds")):
                found[slug] = self.api.post(path, self.admin, slug, json={"amount": "1.00"}).json["id"]
        self._eye = database.as_superuser()
        self.webhook: dict[str, str] = {}
        for slug in TENANTS:
            Feed(app, slug).stamp()
            self._eye.execute(f"DELETE FROM {slug}_schema.webhook_endpoints")
            made = self.api.post("/api/admin/webhooks", self.admin, slug, json={"url": "https://localhost/hook"})
            self.webhook[slug] = made.json["id"]
        # What is sent to operators' routes is to be wrong, and not who sends it.
        self._eye.execute("UPDATE shared.users SET is_operator = true WHERE id = %s", (self.admin.user_id,))

    def fill(self, text: str, slug: str) -> str:
        told: dict[str, Any] = {"{wallet}": self.wallet[slug], "{payment}": self.payment[slug]}
        told |= {"{member}": self.admin.user_id, "{hold}": self.hold[slug], "{product}": self.product}
        told |= {"{webhook}": self.webhook[slug]}
        told |= {"{slug}": slug, "{new_slug}": f"n{uuid4().hex[:20]}"}
        told |= {"{order}": uuid4().hex, "{currency}": {"eur": "EUR", "km": "BAM"}[slug]}
        told |= {"{other}": self.other.user_id, "{email}": f"{uuid4().hex}@example.com"}
        told |= {"{tomorrow}": (datetime.now(UTC) + timedelta(days=1)).isoformat()}
        for name, value in told.items():
            text = text.replace(name, str(value))
        return text

    def forget_tenants(self) -> None:
        """No process here creates requested tenants, and the number of pending requests is limited."""
        self._eye.execute("DELETE FROM shared.provisionings")
        self._eye.execute("UPDATE shared.tenants SET name = slug")

    def body(self, route: Route, slug: str, **changed: Any) -> dict[str, Any]:
        filled: dict[str, Any] = json.loads(self.fill(json.dumps(route.body), slug))
        return filled | changed

    def send(self, route: Route, slug: str, **more: Any) -> TestResponse:
        headers = {"Idempotency-Key": uuid4().hex, "If-Match": "*", **more.pop("headers", {})}
        path = self.fill(route.path, slug)
        response = self.api.send(route.method, path, self.admin, slug, headers=headers, **more)
        if route.path.startswith("/api/admin/tenants") and response.status_code < 400:
            self.forget_tenants()
        return response

    def answer(self, route: Route, slug: str, **changed: Any) -> Answer:
        """The answer to the route's valid body with these fields changed. Escapes preserve surrogates."""
        return answer_of(self.send_text(route, slug, json.dumps(self.body(route, slug, **changed))))

    def send_text(self, route: Route, slug: str, text: str | bytes, **more: Any) -> TestResponse:
        return self.send(route, slug, data=text, content_type="application/json", **more)

    def all_that_is_written(self) -> list[Any]:
        """The number of rows of each table, without refusals in the audit log, and the wallets' state."""
        tables = ("wallets", "wallet_transactions", "ledger_entries", "holds", "orders", "order_payments")
        counted = [f"{slug}_schema.{table}" for slug in TENANTS for table in tables]
        counted += [f"{slug}_schema.audit_log WHERE refusal IS NULL AND action <> 'look'" for slug in TENANTS]
        counted += [f"{slug}_schema.{table}" for slug in TENANTS for table in ("webhook_endpoints", "webhook_replays")]
        counted += ["shared.users", "shared.memberships", "shared.tenants", "shared.sessions"]
        counted += ["shared.api_keys", "shared.provisionings", "shared.invitations"]
        counted += ["shared.account_mails", "shared.second_factors"]
        counts = ", ".join(f"(SELECT count(*) FROM {table})" for table in counted)
        rows = list(self._eye.execute(f"SELECT {counts}").fetchall())
        for slug in TENANTS:
            rows += self._eye.execute(f"TABLE {slug}_schema.wallets").fetchall()
        return sorted(rows, key=str)


@pytest.fixture(scope="module")
def world(app: Flask, database: Database) -> World:
    return World(app, database)


@pytest.fixture
def refused(world: World) -> Iterator[World]:
    """The world, which must be unchanged at the end of the test."""
    before = world.all_that_is_written()
    yield world
    assert world.all_that_is_written() == before


def test_every_route_that_takes_a_body_is_tried_here(app: Flask) -> None:
    rule_of = {
        "{wallet}": "<uuid:wallet_id>",
        "{hold}": "<uuid:hold_id>",
        "{currency}": "<currency>",
        "{slug}": "<slug>",
    }
    rule_of |= {"{other}": "<uuid:user_id>", "{webhook}": "<uuid:webhook_id>"}
    known = {(route.method, re.sub(r"\{\w+\}", lambda found: rule_of[found[0]], route.path)) for route in ROUTES}
    writing = {"POST", "PUT", "PATCH", "DELETE"}
    rules = [rule for rule in app.url_map.iter_rules() if rule.rule.startswith("/api/")]
    assert known | WITHOUT_A_BODY == {
        (method, rule.rule) for rule in rules for method in writing & (rule.methods or set())
    }


@OVER_ROUTES
@OVER_TENANTS
def test_the_body_without_a_fault_is_taken(world: World, route: Route, slug: str) -> None:
    response = world.send(route, slug, json=world.body(route, slug))
    assert response.status_code == route.status, response.text


# --- the body as a whole -------------------------------------------------------------------------------------------

UNREADABLE: dict[str, tuple[bytes, Answer]] = {
    "nothing": (b"", [400, "body_required"]),
    "white space": (b" \n", [400, "invalid_json"]),
    "no JSON": (b"amount=1", [400, "invalid_json"]),
    "half an object": (b'{"amount": "1.00"', [400, "invalid_json"]),
    "two objects": (b"{}{}", [400, "invalid_json"]),
    "single quotes": (b"{'amount': '1.00'}", [400, "invalid_json"]),
    "a comment": (b'{"amount": "1.00"} // please', [400, "invalid_json"]),
    "NaN": (b'{"amount": NaN}', [400, "invalid_json"]),
    "Infinity": (b'{"amount": -Infinity}', [400, "invalid_json"]),
    "a repeated key": (b'{"amount": "1.00", "amount": "9.00"}', [400, "invalid_json"]),
    "a key repeated by escapes": (b'{"amount": "1.00", "\\u0061mount": "9.00"}', [400, "invalid_json"]),
    "a key repeated deep down": (b'{"amount": {"a": 1, "a": 2}}', [400, "invalid_json"]),
    "deep brackets": (b"[" * 30_000, [400, "invalid_json"]),
    "deep braces": (b'{"amount":' * 6_000, [400, "invalid_json"]),
    "a number of 10,000 digits": (b'{"amount": ' + b"9" * 10_000 + b"}", [400, "invalid_json"]),
    "not UTF-8": (b'{"amount": "\xff"}', [400, "invalid_json"]),
    "overlong UTF-8": (b'{"amount": "\xc0\x80"}', [400, "invalid_json"]),
    "a surrogate in UTF-8": (b'{"amount": "\xed\xa0\x80"}', [400, "invalid_json"]),
    "UTF-16": ('{"amount": "1.00"}'.encode("utf-16"), [400, "invalid_json"]),
    "a byte order mark": (b"\xef\xbb\xbf{}", [400, "invalid_json"]),
    "a raw NUL": (b'{"amount": "\x00"}', [400, "invalid_json"]),
    "too much": (b'{"amount": "1.00"}' + b" " * 4_194_304, [413, "body_too_large"]),
    "an array": (b"[]", [422, ("body", "not_an_object")]),
    "an object in an array": (b'[{"amount": "1.00"}]', [422, ("body", "not_an_object")]),
    "a string": (b'"amount"', [422, ("body", "not_an_object")]),
    "null": (b"null", [422, ("body", "not_an_object")]),
    "true": (b"true", [422, ("body", "not_an_object")]),
    "a number": (b"1.5", [422, ("body", "not_an_object")]),
}


@OVER_ROUTES
@OVER_TENANTS
def test_a_body_that_is_no_json_object_is_refused(refused: World, route: Route, slug: str) -> None:
    cases = {what: case for what, case in UNREADABLE.items() if case[0] or route.wants_body}
    answers = {what: answer_of(refused.send_text(route, slug, text)) for what, (text, _) in cases.items()}
    assert answers == {what: answer for what, (_, answer) in cases.items()}


@OVER_ROUTES
@OVER_TENANTS
def test_a_right_body_of_another_media_type_is_refused(refused: World, route: Route, slug: str) -> None:
    text = json.dumps(refused.body(route, slug))
    for media_type in (None, "", "text/plain", "text/json", "application/x-www-form-urlencoded", "application/jsonp"):
        response = refused.send(route, slug, data=text, content_type=media_type)
        problem_of(response, 415, "unsupported_media_type")
    problem_of(refused.send(route, slug, data=refused.body(route, slug)), 415, "unsupported_media_type")


JSON_TOO = ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.api+json"]


@pytest.mark.parametrize("media_type", JSON_TOO)
@OVER_ROUTES
def test_a_right_body_may_say_more_of_its_media_type(world: World, media_type: str, route: Route) -> None:
    response = world.send(route, "eur", data=json.dumps(world.body(route, "eur")), content_type=media_type)
    assert response.status_code == route.status


class Broken(BytesIO):
    """A broken connection, as the server's own reader reports it."""

    def read(self, size: int | None = -1) -> bytes:
        raise OSError("chunk")


RIGHT = b'{"amount": "0.01"}'
CHUNKED = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
SENT: dict[str, tuple[dict[str, Any], Answer]] = {
    "whole": ({"CONTENT_LENGTH": str(len(RIGHT)), "wsgi.input": BytesIO(RIGHT)}, [201]),
    "chunked": ({**CHUNKED, "wsgi.input": BytesIO(RIGHT)}, [201]),
    "broken off": ({"CONTENT_LENGTH": "99", "wsgi.input": BytesIO(RIGHT)}, [400, "malformed_request"]),
    "broken chunks": ({**CHUNKED, "wsgi.input": Broken(RIGHT)}, [400, "malformed_request"]),
    "a length of none": ({"CONTENT_LENGTH": "0", "wsgi.input": BytesIO(RIGHT)}, [400, "body_required"]),
    "no length": ({"CONTENT_LENGTH": "", "wsgi.input": BytesIO(RIGHT)}, [400, "body_required"]),
    "no chunks": ({**CHUNKED, "wsgi.input": BytesIO()}, [400, "body_required"]),
    "a length that is no number": ({"CONTENT_LENGTH": "many", "wsgi.input": BytesIO(RIGHT)}, [400, "body_required"]),
    "a length that lies": ({"CONTENT_LENGTH": "65537", "wsgi.input": BytesIO(RIGHT)}, [413, "body_too_large"]),
    "chunks without end": ({**CHUNKED, "wsgi.input": BytesIO(b" " * 70_000)}, [413, "body_too_large"]),
    "chunks to the limit": ({**CHUNKED, "wsgi.input": BytesIO(RIGHT + b" " * (65_536 - len(RIGHT)))}, [201]),
    "more than the length": ({"CONTENT_LENGTH": str(len(RIGHT)), "wsgi.input": BytesIO(RIGHT + b"}")}, [201]),
}


@pytest.mark.parametrize("how", SENT)
def test_a_body_counts_whole_or_not_at_all(world: World, how: str) -> None:
    environment, expected = SENT[how]
    before = world.all_that_is_written()
    response = world.api.post(
        "/api/wallet/payments", world.admin, "eur", content_type="application/json", environ_overrides=environment
    )
    assert answer_of(response) == expected
    assert (world.all_that_is_written() == before) is (expected != [201])


@over(route for route in ROUTES if not route.may_be_empty)
@OVER_TENANTS
def test_an_empty_object_lacks_what_is_required(refused: World, route: Route, slug: str) -> None:
    expected = [(name, "required") for name in route.required] or [("body", "nothing_to_change")]
    assert sorted(faults_of(refused.send(route, slug, json={}))) == sorted(expected)


# Names the server's own objects have, in the API and inside: none may be set from outside.
NOT_TO_BE_SET = (
    *("tenantId", "tenant_id", "tenant", "walletId", "wallet_id", "userId", "user_id", "adminId", "admin_id", "id"),
    *("balance", "balance_minor", "balanceAfter", "available", "held", "creditUsed", "amount_minor", "currency"),
    *("type", "seq", "hash", "createdAt", "version", "role", "isOperator", "is_operator", "refund_of", "order_id"),
    *("idempotencyKey", "credit_limit", "__proto__", "__class__", "$where", "Amount", "amount ", "ámount"),
)


@OVER_ROUTES
@OVER_TENANTS
def test_a_field_the_route_does_not_know_is_refused(refused: World, route: Route, slug: str) -> None:
    names = set(NOT_TO_BE_SET) - route.fields - set(route.also)
    answers = {name: refused.answer(route, slug, **{name: "1"}) for name in names}
    assert answers == {name: refused_at(name, "unknown_field") for name in names}


# --- single fields -------------------------------------------------------------------------------------------------


@OVER_ROUTES
@OVER_TENANTS
def test_null_is_no_value_of_any_field(refused: World, route: Route, slug: str) -> None:
    answers = {name: refused.answer(route, slug, **{name: None}) for name in route.fields}
    assert answers == {name: refused_at(name, "required") for name in route.fields}


@OVER_ROUTES
@OVER_TENANTS
def test_a_value_of_another_type_is_refused(refused: World, route: Route, slug: str) -> None:
    expected = {name: refused_at(name, "not_a_string") for name in route.texts}
    expected |= {name: refused_at(name, "not_a_uuid") for name in route.identifiers}
    expected |= {name: refused_at(name, "unknown_choice") for name in route.choices}
    expected |= {name: refused_at(name, "amount_not_a_string") for name in route.fields - set(expected)}
    for value in (0, 1, 1.5, 1e300, True, False, [], ["1.00"], {}, {"amount": "1.00"}):
        answers = {name: refused.answer(route, slug, **{name: value}) for name in route.fields}
        assert answers == expected, value


@over(route for route in ROUTES if route.texts)
@OVER_TENANTS
def test_text_is_neither_empty_nor_too_long(refused: World, route: Route, slug: str) -> None:
    for name, max_length in route.texts.items():
        wrong = {
            "": "empty",
            "   ": "empty",
            "\u2003\u00a0\n": "empty",
            "x" * (max_length + 1): "too_long",
            "𝕏" * (max_length + 1): "too_long",
        }
        answers = {text: refused.answer(route, slug, **{name: text}) for text in wrong}
        assert answers == {text: refused_at(name, code) for text, code in wrong.items()}


@over(route for route in ROUTES if route.texts)
def test_text_of_the_greatest_length_is_taken(world: World, route: Route) -> None:
    for name, max_length in route.texts.items():
        body = world.body(route, "eur", **{name: uuid4().hex.ljust(max_length, "𝕏")})
        assert world.send(route, "eur", json=body).status_code == route.status


@over(route for route in ROUTES if route.texts)
@OVER_TENANTS
def test_control_characters_are_refused(refused: World, route: Route, slug: str) -> None:
    for name in route.texts:
        wrong = ["\x01", "\x07", "\b", "\x0b", "\x1b[31m", "\r\n", "\x1f"]
        answers = {text: refused.answer(route, slug, **{name: f"a{text}b"}) for text in wrong}
        assert answers == {text: refused_at(name, "control_character") for text in wrong}


@over(route for route in ROUTES if route.texts)
def test_the_control_characters_after_ascii_are_refused_too(refused: World, route: Route) -> None:
    """DEL, NEL and CSI, which a terminal obeys as it does ESC [."""
    for name in route.texts:
        wrong = ["\x7f", "\x80", "\x85", "\x9b31m"]
        answers = {text: refused.answer(route, "eur", **{name: f"a{text}b"}) for text in wrong}
        assert answers == {text: refused_at(name, "control_character") for text in wrong}


@over(route for route in ROUTES if route.fields)
@OVER_TENANTS
def test_what_postgresql_cannot_store_is_refused_in_every_field_and_name(
    refused: World, route: Route, slug: str
) -> None:
    for text in ("\x00", "a\x00b", "\ud800", "a\udfff", "\udc00\ud800"):
        answers = {name: refused.answer(route, slug, **{name: text}) for name in route.fields}
        assert answers == {name: refused_at(name, "nul_character") for name in route.fields}
        shown = text.encode("ascii", "backslashreplace").decode().replace("\x00", "\\x00")
        assert refused.answer(route, slug, **{text: "1"}) == refused_at(shown, "nul_character")
    for value in (["\x00"], {"a": "\x00"}, {"\x00": "a"}, [["\ud800"]]):
        statuses = {refused.answer(route, slug, **{name: value})[0] for name in route.fields}
        assert statuses == {422}


@over(route for route in ROUTES if route.identifiers)
@OVER_TENANTS
def test_what_is_no_uuid_is_refused(refused: World, route: Route, slug: str) -> None:
    for name in route.identifiers:
        wrong = ["", "x", "1", "z" * 36, "0" * 33, "00000000-0000-0000-0000", f"{uuid4()}' OR '1'='1", "../.."]
        answers = {text: refused.answer(route, slug, **{name: text}) for text in wrong}
        assert answers == {text: refused_at(name, "not_a_uuid") for text in wrong}


@over(route for route in ROUTES if route.identifiers)
def test_a_uuid_has_one_form(refused: World, route: Route) -> None:
    """The form of RFC 9562, as OpenAPI's format says, not every form that Python's UUID() accepts."""
    right = str(uuid4())
    arabic = right.translate({ord(str(digit)): chr(0x660 + digit) for digit in range(10)})
    wrong = [f"{{{right}}}", f"urn:uuid:{right}", right.replace("-", ""), arabic]
    for name in route.identifiers:
        answers = {text: refused.answer(route, "eur", **{name: text}) for text in wrong}
        assert answers == {text: refused_at(name, "not_a_uuid") for text in wrong}


@over(route for route in ROUTES if route.choices)
@OVER_TENANTS
def test_what_is_not_among_the_choices_is_refused(refused: World, route: Route, slug: str) -> None:
    for name in route.choices:
        wrong = ["", "Active", "active ", "deleted", "active\u200b"]
        answers = {text: refused.answer(route, slug, **{name: text}) for text in wrong}
        assert answers == {text: refused_at(name, "unknown_choice") for text in wrong}


# --- amounts -------------------------------------------------------------------------------------------------------

NOT_AMOUNTS = (
    *("", " ", " 1", "1 ", "1\n", "\t1", "+1", "--1", "-", ".", "1.", ".5", "1..5", "1.5.0", "1,5", "1_000", "1'000"),
    *("1e3", "1E3", "1e-2", "0x10", "0b1", "NaN", "nan", "sNaN", "Infinity", "-inf", "1/2", "½", "1%", "€1", "1 EUR"),
    *("00", "00.5", "01", "-01", "١٢", "１２", "۱", "𝟏", "Ⅻ", "1\u200b", "\u22121", "1٫5"),
    *("9" * 41, "9" * 10_000, "0." + "0" * 10_000, "1.00'; DROP TABLE wallets; --", "null", "true", "[]"),
)
# By what the field allows, since the last three lines mean something else to each.
WRONG_AMOUNTS: dict[str, dict[str, str]] = {
    allows: {
        **dict.fromkeys(NOT_AMOUNTS, "not_an_amount"),
        **dict.fromkeys(("1.005", "0.001", "12.3456789", "0.0000000001"), "too_many_fraction_digits"),
        **dict.fromkeys(("90000000000000000.0000000001",), "too_many_fraction_digits"),
        **dict.fromkeys(("92233720368547758.08", "99999999999999999999", "9" * 40), "amount_out_of_range"),
        **dict.fromkeys(("0", "0.00", "-0", "-0.00"), zero),
        **dict.fromkeys(("-1", "-0.01", "-99999999999999999999"), negative),
    }
    for allows, zero, negative in (
        ("positive", "amount_not_positive", "amount_not_positive"),
        ("not_zero", "amount_zero", ""),
        ("zero_or_more", "", "amount_negative"),
    )
}


@over(route for route in ROUTES if route.amount)
@OVER_TENANTS
def test_what_is_no_exact_amount_of_the_right_sign_is_refused(refused: World, route: Route, slug: str) -> None:
    wrong = {amount: code for amount, code in WRONG_AMOUNTS[route.allows].items() if code}
    answers = {amount: refused.answer(route, slug, **{str(route.amount): amount}) for amount in wrong}
    assert answers == {amount: refused_at(route.amount, code) for amount, code in wrong.items()}


@OVER_TENANTS
@pytest.mark.parametrize("what", ["deposits", "adjustments"])
def test_a_balance_beyond_bigint_is_refused(refused: World, what: str, slug: str) -> None:
    body = {"amount": "92233720368547758.07"} | ({"reason": "too much"} if what == "adjustments" else {})
    path = f"/api/admin/wallets/{refused.wallet[slug]}/{what}"
    problem_of(refused.api.post(path, refused.admin, slug, json=body), 422, "amount_out_of_range")


def test_all_faults_of_a_body_are_named_at_once(refused: World) -> None:
    body = {"amount": 1, "orderId": "", "description": 5, "balance": "1"}
    faults = faults_of(refused.api.post("/api/wallet/payments", refused.admin, "eur", json=body))
    assert sorted(faults) == [
        ("amount", "amount_not_a_string"),
        ("balance", "unknown_field"),
        ("description", "not_a_string"),
        ("orderId", "empty"),
    ]


# --- headers and paths ---------------------------------------------------------------------------------------------


@OVER_POSTINGS
@OVER_TENANTS
def test_money_does_not_move_without_an_idempotency_key(refused: World, route: Route, slug: str) -> None:
    path, body = refused.fill(route.path, slug), refused.body(route, slug)
    for headers in ({}, {"Idempotency-Key": ""}):
        response = refused.api.send(route.method, path, refused.admin, slug, headers=headers, json=body)
        problem_of(response, 400, "idempotency_key_required")


@OVER_POSTINGS
@OVER_TENANTS
def test_an_idempotency_key_is_so_many_visible_ascii_characters_at_most(
    refused: World, route: Route, slug: str
) -> None:
    body = refused.body(route, slug)
    wrong = ["x" * (MAX_KEY_LENGTH + 1), "a b", " a", "a ", "a\tb", "a,b", "é", "\x7f", "\x80"]
    answers = {key: answer_of(refused.send(route, slug, json=body, headers={"Idempotency-Key": key})) for key in wrong}
    assert answers == {key: refused_at("Idempotency-Key", "not_a_key") for key in wrong}


@OVER_POSTINGS
def test_the_longest_idempotency_key_is_taken(world: World, route: Route) -> None:
    key = (uuid4().hex + "!~").ljust(MAX_KEY_LENGTH, "x")
    response = world.send(route, "eur", json=world.body(route, "eur"), headers={"Idempotency-Key": key})
    assert response.status_code == 201


@OVER_TENANTS
def test_an_id_that_nothing_has_is_not_found(refused: World, slug: str) -> None:
    unknown = str(uuid4())
    for route in ROUTES:
        if "{wallet}" in route.path:
            path, body = route.path.replace("{wallet}", unknown), refused.body(route, slug)
            headers = {"Idempotency-Key": "k", "If-Match": '"1"'}
            response = refused.api.send(route.method, path, refused.admin, slug, headers=headers, json=body)
            problem_of(response, 404, "wallet_not_found")
    for path in (f"/api/admin/wallets/{unknown}", f"/api/admin/wallets/{unknown}/transactions"):
        problem_of(refused.api.get(path, refused.admin, slug), 404, "wallet_not_found")
    path = f"/api/wallet/transactions/{unknown}"
    problem_of(refused.api.get(path, refused.admin, slug), 404, "transaction_not_found")
    open_wallet = refused.api.post("/api/admin/wallets", refused.admin, slug, json={"userId": unknown})
    problem_of(open_wallet, 404, "member_not_found")
    path = f"/api/admin/wallets/{refused.wallet[slug]}/refunds"
    refund = refused.api.post(path, refused.admin, slug, json={"paymentId": unknown})
    problem_of(refund, 404, "payment_not_found")


@pytest.mark.parametrize("segment", ["x", "0", "{wallet}x", "{wallet}%00", "{wallet}'--", "{wallet}%2f..", "١", "%ff"])
def test_a_path_with_no_uuid_where_one_belongs_is_not_found(refused: World, segment: str) -> None:
    sent = refused.fill(segment, "eur")
    for path in (f"/api/admin/wallets/{sent}", f"/api/wallet/transactions/{sent}"):
        problem_of(refused.api.get(path, refused.admin, "eur"), 404, "not_found")
    path = f"/api/admin/wallets/{sent}/deposits"
    problem_of(refused.api.post(path, refused.admin, "eur", json={"amount": "1.00"}), 404, "not_found")


# --- a query where none belongs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/api/me", "/api/wallet", "/api/admin/wallets/{wallet}", "/api/wallet/transactions/{payment}"]
)
def test_a_query_to_a_route_that_takes_none_is_refused(refused: World, path: str) -> None:
    response = refused.api.get(refused.fill(path, "eur") + "?tenant=km", refused.admin, "eur")
    assert faults_of(response) == [("tenant", "unknown_field")]


@OVER_ROUTES
def test_a_query_beside_a_body_is_refused(refused: World, route: Route) -> None:
    """`POST …/payments?amount=5` must not look accepted."""
    response = refused.send(route, "eur", json=refused.body(route, "eur"), query_string={"limit": "5"})
    assert faults_of(response) == [("limit", "unknown_field")]


# --- anything at all -----------------------------------------------------------------------------------------------

UNDER_FUZZ = settings(
    max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ANY_TEXT = st.text(st.characters(), max_size=20)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)
NEARLY_RIGHT = st.sampled_from(["1.00", "-1.00", "0", "0.01", "active", "frozen", "{payment}", "{member}", "{wallet}"])
ANY_FIELD = st.sampled_from(sorted({name for route in ROUTES for name in route.fields}))
ANY_BODY = ANY_JSON | st.dictionaries(ANY_FIELD, ANY_JSON | NEARLY_RIGHT, max_size=4)


@UNDER_FUZZ
@given(route=st.sampled_from(ROUTES), slug=st.sampled_from(TENANTS), body=ANY_BODY)
def test_no_body_breaks_the_service(world: World, route: Route, slug: str, body: Any) -> None:
    sent = world.fill(json.dumps(body), slug)
    before = world.all_that_is_written()
    response = world.send_text(route, slug, sent)
    assert response.status_code < 500, sent
    if response.status_code >= 400:
        problem_of(response, response.status_code, response.get_json(force=True)["code"])
        assert world.all_that_is_written() == before
