"""A valid request for every route, and the roles that the route admits. A route without a sample fails the suite."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from flask import Flask
from werkzeug.test import TestResponse

from app.auth.passwords import hash_password
from tenant_schemas.testing.plugin import Database
from tests.factories.api import ID_OF_NOTHING, Api
from tests.factories.catalogue import Catalogue
from tests.factories.feed import Feed
from tests.factories.people import People

TENANTS = ("eur", "km")
OTHER = {"eur": "km", "km": "eur"}
CURRENCY = {"eur": "EUR", "km": "BAM"}
PASSWORD = "a password that is long enough"
BASE_DOMAIN = "wallet.example"  # as in tests/conftest.py

# All callers of a route, from the tenant's side.
ROLES = ("member", "admin", "auditor", "service", "operator", "stranger")
ANYONE = frozenset({*ROLES, "anonymous"})
USERS = frozenset(ROLES) - {"service"}
OPERATORS = frozenset({"operator"})
MEMBERS = frozenset({"member", "admin"})
READERS = frozenset({"admin", "auditor", "service", "operator"})
TELLERS = frozenset({"admin", "service", "operator"})
ADMINS = frozenset({"admin", "operator"})
OF_A_TENANT = (MEMBERS, READERS, TELLERS, ADMINS)


@dataclass(frozen=True)
class Sample:
    """Placeholders such as {wallet}, in path and body, are filled with an object of each tenant of the World below."""

    method: str
    rule: str
    who: frozenset[str]
    path: str | None = None  # the rule itself if it has no parameters
    json: dict[str, Any] | None = None
    query: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.method} {self.rule.removeprefix('/api/')}"

    @property
    def text(self) -> str:
        return json.dumps([self.path or self.rule, self.json])

    @property
    def names_something(self) -> bool:
        """Whether it names an object that belongs to a tenant."""
        return any(name in self.text for name in OWNED)


def soon() -> str:
    return (datetime.now(UTC) + timedelta(days=1)).isoformat()


OWNED = (
    *("{wallet}", "{payment}", "{hold}", "{order}", "{key}", "{leaver}", "{member}", "{document}", "{invitation}"),
    *("{webhook}", "{deleted_webhook}", "{replay}"),
)
_FACTOR = "/api/me/second-factor"
_INVITATION = "/api/admin/invitations/<uuid:invitation_id>"
_DOCUMENT = "documents/<uuid:document_id>"
_WALLET = "/api/admin/wallets/<uuid:wallet_id>"
_WEBHOOK = "/api/admin/webhooks/<uuid:webhook_id>"
_FORMS = ("", ".csv", ".pdf")
_YEARS = {"from": "2000-01-01T00:00:00Z", "to": "2999-01-01T00:00:00Z"}


def _of_wallet(verb: str) -> dict[str, str]:
    return {"rule": f"{_WALLET}/{verb}", "path": f"/api/admin/wallets/{{wallet}}/{verb}"}


def _of_webhook(verb: str) -> dict[str, str]:
    return {"rule": f"{_WEBHOOK}/{verb}", "path": f"/api/admin/webhooks/{{webhook}}/{verb}"}


# This machine: the name resolves at once, and the address is refused.
HOOK = {"url": "https://localhost/hook"}
SAMPLES = (
    Sample("GET", "/livez", ANYONE),
    Sample("GET", "/readyz", ANYONE),
    Sample("GET", "/openapi.json", ANYONE),
    Sample("GET", "/docs/", ANYONE),
    Sample("GET", "/problems/", ANYONE),
    Sample("GET", "/problems/<code>", ANYONE, "/problems/busy"),
    Sample("GET", "/docs/start.js", ANYONE),
    Sample("GET", "/docs/<path:path>", ANYONE, "/docs/swagger-ui.css"),
    Sample("GET", "/.well-known/jwks.json", ANYONE),
    Sample("POST", "/api/auth/login", ANYONE, json={"email": "{email}", "password": PASSWORD}),
    Sample("POST", "/api/auth/refresh", ANYONE, json={"refreshToken": "unknown"}),
    Sample("POST", "/api/auth/logout", ANYONE),
    Sample("POST", "/api/auth/password", USERS, json={"currentPassword": "wrong", "newPassword": PASSWORD}),
    Sample("POST", "/api/auth/password/forgotten", ANYONE, json={"email": "{email}"}),
    Sample("POST", "/api/auth/password/reset", ANYONE, json={"token": "unknown", "newPassword": PASSWORD}),
    Sample("POST", "/api/auth/email/confirm", ANYONE, json={"token": "unknown"}),
    Sample("POST", "/api/auth/invitations/accept", ANYONE, json={"token": "unknown", "password": PASSWORD}),
    Sample("GET", "/api/admin/tenants", OPERATORS),
    Sample("POST", "/api/admin/tenants", OPERATORS, json={"id": "{slug}", "currency": "EUR"}),
    Sample(
        "GET",
        "/api/admin/tenants/provisionings/<uuid:provisioning_id>",
        OPERATORS,
        "/api/admin/tenants/provisionings/{provisioning}",
    ),
    Sample("GET", "/api/admin/tenants/<slug>", OPERATORS, "/api/admin/tenants/{slug}"),
    Sample("PATCH", "/api/admin/tenants/<slug>", OPERATORS, "/api/admin/tenants/{slug}", json={"name": "{slug}"}),
    Sample("GET", "/api/me", USERS),
    Sample("PATCH", "/api/me", USERS, json={"name": "Test Person"}),
    Sample("POST", "/api/me/email", USERS, json={"newEmail": "new@example.com", "currentPassword": "wrong"}),
    Sample("GET", "/api/me/sessions", USERS),
    Sample("DELETE", "/api/me/sessions", USERS),
    Sample("DELETE", "/api/me/sessions/<uuid:session_id>", USERS, f"/api/me/sessions/{ID_OF_NOTHING}"),
    Sample("GET", _FACTOR, USERS),
    Sample("POST", _FACTOR, USERS, json={"currentPassword": "wrong"}),
    Sample("POST", f"{_FACTOR}/confirm", USERS, json={"code": "123456"}),
    Sample("POST", f"{_FACTOR}/recovery-codes", USERS, json={"currentPassword": "wrong", "code": "123456"}),
    Sample("POST", f"{_FACTOR}/remove", USERS, json={"currentPassword": "wrong", "code": "123456"}),
    Sample("GET", "/api/wallet", MEMBERS),
    Sample("GET", "/api/wallets", MEMBERS),
    Sample("GET", "/api/wallet/events", MEMBERS),
    Sample("GET", "/api/admin/events/stream", READERS),
    Sample("GET", "/api/wallet/transactions", MEMBERS),
    Sample("GET", "/api/wallet/transactions/<uuid:transaction_id>", MEMBERS, "/api/wallet/transactions/{payment}"),
    Sample("GET", "/api/wallet/balance", MEMBERS),
    *(Sample("GET", f"/api/wallet/statement{form}", MEMBERS, query=_YEARS) for form in _FORMS),
    Sample("GET", f"/api/wallet/{_DOCUMENT}", MEMBERS, "/api/wallet/documents/{document}"),
    Sample("GET", f"/api/wallet/{_DOCUMENT}/content", MEMBERS, "/api/wallet/documents/{document}/content"),
    Sample("GET", f"/api/admin/{_DOCUMENT}", READERS, "/api/admin/documents/{document}"),
    Sample("GET", f"/api/admin/{_DOCUMENT}/content", READERS, "/api/admin/documents/{document}/content"),
    Sample("POST", "/api/wallet/payments", MEMBERS, json={"amount": "0.01"}),
    Sample("GET", "/api/wallet/holds", MEMBERS),
    Sample("GET", "/api/wallet/holds/<uuid:hold_id>", MEMBERS, "/api/wallet/holds/{hold}"),
    Sample("POST", "/api/wallet/holds", MEMBERS, json={"amount": "0.01"}),
    Sample(
        "POST",
        "/api/wallet/holds/<uuid:hold_id>/capture",
        MEMBERS,
        "/api/wallet/holds/{hold}/capture",
        json={"amount": "0.01"},
    ),
    Sample("POST", "/api/wallet/holds/<uuid:hold_id>/void", MEMBERS, "/api/wallet/holds/{hold}/void"),
    Sample("GET", "/api/products", MEMBERS),
    Sample("GET", "/api/products/<uuid:product_id>", MEMBERS, "/api/products/{product}"),
    Sample("GET", "/api/orders", MEMBERS),
    Sample("POST", "/api/orders", MEMBERS, json={"items": [{"productId": "{product}", "quantity": 1}]}),
    Sample("GET", "/api/orders/<uuid:order_id>", MEMBERS, "/api/orders/{order}"),
    Sample("POST", "/api/orders/<uuid:order_id>/cancel", MEMBERS, "/api/orders/{order}/cancel"),
    Sample("GET", "/api/admin/wallets", READERS),
    Sample("POST", "/api/admin/wallets", ADMINS, json={"userId": "{member}"}),
    Sample("GET", _WALLET, READERS, "/api/admin/wallets/{wallet}"),
    Sample("PATCH", _WALLET, ADMINS, "/api/admin/wallets/{wallet}", json={"status": "active"}),
    Sample("GET", who=READERS, **_of_wallet("transactions")),
    Sample("GET", who=READERS, **_of_wallet("balance")),
    Sample("GET", who=READERS, **_of_wallet("holds")),
    Sample("GET", who=READERS, **_of_wallet("orders")),
    Sample("GET", who=READERS, **_of_wallet("credit-limits")),
    *(Sample("GET", who=READERS, query=_YEARS, **_of_wallet(f"statement{form}")) for form in _FORMS),
    Sample("POST", who=TELLERS, json={"amount": "0.01"}, **_of_wallet("deposits")),
    Sample("POST", who=TELLERS, json={"amount": "0.01"}, **_of_wallet("payments")),
    Sample("POST", who=TELLERS, json={"amount": "0.01", "paymentId": "{payment}"}, **_of_wallet("refunds")),
    Sample("POST", who=ADMINS, json={"amount": "0.01", "reason": "a test"}, **_of_wallet("adjustments")),
    Sample(
        "POST",
        f"{_WALLET}/holds/<uuid:hold_id>/void",
        ADMINS,
        "/api/admin/wallets/{wallet}/holds/{hold}/void",
    ),
    Sample("GET", "/api/admin/holds", READERS),
    Sample("GET", "/api/admin/holds/<uuid:hold_id>", READERS, "/api/admin/holds/{hold}"),
    Sample("GET", "/api/admin/orders", READERS),
    Sample("GET", "/api/admin/orders/<uuid:order_id>", READERS, "/api/admin/orders/{order}"),
    Sample("GET", "/api/admin/settings", READERS),
    Sample("GET", "/api/admin/transactions", READERS, query={"count": "true"}),
    Sample("GET", "/api/admin/transactions/<uuid:transaction_id>", READERS, "/api/admin/transactions/{payment}"),
    Sample("GET", "/api/admin/transactions.csv", READERS),
    Sample(
        "POST",
        "/api/admin/transactions/bulk",
        TELLERS,
        json={"items": [{"walletId": "{wallet}", "type": "deposit", "amount": "0.01"}]},
    ),
    Sample("GET", "/api/admin/trial-balance", READERS),
    Sample("GET", "/api/admin/credit-policies", READERS),
    Sample(
        "PUT",
        "/api/admin/credit-policies/<currency>",
        ADMINS,
        "/api/admin/credit-policies/{currency}",
        json={"defaultLimit": "0.00", "maxLimit": None},
    ),
    Sample("GET", "/api/admin/credit-policy-changes", READERS),
    Sample("GET", "/api/admin/credit-report", READERS),
    Sample("GET", "/api/admin/credit-report/wallets", READERS),
    Sample("GET", "/api/admin/audit-log", READERS),
    Sample("GET", "/api/admin/events", READERS),
    Sample("GET", "/api/admin/api-keys", ADMINS),
    Sample(
        "POST",
        "/api/admin/api-keys",
        ADMINS,
        json={"name": "a robot", "role": "service", "expiresAt": soon()},
    ),
    Sample("GET", "/api/admin/api-keys/<uuid:key_id>", ADMINS, "/api/admin/api-keys/{key}"),
    Sample("DELETE", "/api/admin/api-keys/<uuid:key_id>", ADMINS, "/api/admin/api-keys/{key}"),
    Sample("GET", "/api/admin/invitations", ADMINS),
    Sample("POST", "/api/admin/invitations", ADMINS, json={"email": "invited@example.com", "role": "member"}),
    Sample("GET", _INVITATION, ADMINS, "/api/admin/invitations/{invitation}"),
    Sample("DELETE", _INVITATION, ADMINS, "/api/admin/invitations/{invitation}"),
    Sample("POST", f"{_INVITATION}/resend", ADMINS, "/api/admin/invitations/{invitation}/resend"),
    Sample("GET", "/api/admin/members", READERS),
    Sample("GET", "/api/admin/members/<uuid:user_id>", READERS, "/api/admin/members/{member}"),
    Sample("POST", "/api/admin/members", ADMINS, json={"email": "person@example.com", "role": "member"}),
    Sample(
        "PATCH",
        "/api/admin/members/<uuid:user_id>",
        ADMINS,
        "/api/admin/members/{member}",
        json={"role": "member"},
    ),
    Sample("DELETE", "/api/admin/members/<uuid:user_id>", ADMINS, "/api/admin/members/{leaver}"),
    Sample("GET", "/api/admin/webhooks", ADMINS),
    Sample("POST", "/api/admin/webhooks", ADMINS, json=HOOK),
    Sample("GET", _WEBHOOK, ADMINS, "/api/admin/webhooks/{webhook}"),
    Sample("PATCH", _WEBHOOK, ADMINS, "/api/admin/webhooks/{webhook}", json={"payload": "full"}),
    Sample("DELETE", _WEBHOOK, ADMINS, "/api/admin/webhooks/{deleted_webhook}"),
    *(Sample("POST", who=ADMINS, **_of_webhook(verb)) for verb in ("enable", "disable", "rotate", "test")),
    *(Sample("GET", who=ADMINS, **_of_webhook(list_)) for list_ in ("attempts", "parked")),
    Sample("POST", who=ADMINS, json=_YEARS, **_of_webhook("replay")),
    Sample(
        "POST",
        f"{_WEBHOOK}/events/<uuid:event_id>/resend",
        ADMINS,
        "/api/admin/webhooks/{webhook}/events/{payment}/resend",
    ),
    Sample("GET", f"{_WEBHOOK}/replays/<uuid:replay_id>", ADMINS, "/api/admin/webhooks/{webhook}/replays/{replay}"),
)
OF_TENANTS = [sample for sample in SAMPLES if sample.who in OF_A_TENANT]


class Side:
    """One tenant with a person of each role and an object of each kind."""

    def __init__(self, app: Flask, database: Database, slug: str, product: UUID, provisioning: UUID) -> None:
        people, api = People(app), Api(app)
        self.slug = slug
        self.member = people.make(password_hash=hash_password(PASSWORD), **{slug: "member"})
        self.leaver = people.make(**{slug: "member"})
        self.admin = people.make(**{slug: "admin"})
        self.auditor = people.make(**{slug: "auditor"})
        self.wallet = people.wallet(self.member, slug, balance_minor=100_000)
        made = {}
        self.service = self._key(api, "service")
        for what, path, body in (
            ("payment", "/api/wallet/payments", {"amount": "1.00"}),
            ("hold", "/api/wallet/holds", {"amount": "1.00"}),
            ("order", "/api/orders", {"items": [{"productId": str(product), "quantity": 1}]}),
        ):
            made[what] = api.post(path, self.member, slug, json=body).json["id"]
        self.things: dict[str, Any] = made | {
            "wallet": self.wallet,
            "member": self.member.user_id,
            "leaver": self.leaver.user_id,
            "key": self._key(api, "auditor")["id"],
            "invitation": self._made(api, "invitations", {"email": f"{uuid4().hex}@example.com", "role": "member"}),
            "product": product,
            "currency": CURRENCY[slug],
            "email": self.member.email,
            "slug": slug,
            "provisioning": provisioning,
            "webhook": self._made(api, "webhooks", HOOK),
            "deleted_webhook": self._made(api, "webhooks", HOOK),
        }
        Feed(app, slug).stamp()
        self.things["replay"] = self._made(api, f"webhooks/{self.things['webhook']}/replay", _YEARS)

    def _key(self, api: Api, role: str) -> dict[str, Any]:
        body = {"name": "a robot", "role": role, "expiresAt": soon()}
        answer = api.post("/api/admin/api-keys", self.admin, self.slug, json=body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json)

    def _made(self, api: Api, what: str, body: dict[str, Any]) -> str:
        answer = api.post(f"/api/admin/{what}", self.admin, self.slug, json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json["id"])

    def token_of(self, role: str) -> str:
        return str(self.service["key"] if role == "service" else getattr(self, role).token)


class World:
    """Both tenants, an operator, a user without membership, and a superuser's view of the written rows."""

    def __init__(self, app: Flask, database: Database) -> None:
        self.api = Api(app)
        people = People(app)
        product = Catalogue(database).product(EUR="0.01", BAM="0.01")[1]
        self.people = people
        self.operator, self.stranger = people.make(is_operator=True), people.make()
        self.eye = database.as_superuser()
        provisioning = uuid4()
        self.eye.execute(
            "INSERT INTO shared.provisionings (id, slug, name, settings, status, error, requested_by, finished_at)"
            " VALUES (%s, 'failed', '', '{}', 'failed', 'a test', %s, now())",
            (provisioning, self.operator.user_id),
        )
        for slug in TENANTS:  # A tenant has fifty at most.
            self.eye.execute(f"DELETE FROM {slug}_schema.webhook_endpoints".encode())
        self.sides = {slug: Side(app, database, slug, product, provisioning) for slug in TENANTS}
        for side in self.sides.values():
            side.things["document"] = self._document(side)

    def _document(self, side: Side) -> UUID:
        """A finished document that the member asked for."""
        made = self.eye.execute(
            f"INSERT INTO {side.slug}_schema.documents"
            " (wallet_id, requested_by, period_start, period_end, movements, status, content, finished_at)"
            " VALUES (%s, %s, now(), now(), 1, 'done', '%%PDF', now()) RETURNING id".encode(),
            (side.wallet, side.member.user_id),
        )
        ((document_id,),) = made.fetchall()
        return UUID(str(document_id))

    def token_of(self, role: str, slug: str) -> str | None:
        if role == "anonymous":
            return None
        if role in {"operator", "stranger"}:
            return str(getattr(self, role).token)
        return self.sides[slug].token_of(role)

    def fill(self, text: str, slug: str) -> str:
        """Fill the placeholders with this tenant's objects."""
        for name, value in self.sides[slug].things.items():
            text = text.replace(f"{{{name}}}", str(value))
        return text

    def with_unknown_ids(self, text: str) -> str:
        """Fill the placeholders with unknown ids."""
        for name in OWNED:
            text = text.replace(name, str(uuid4()))
        return text

    def send(self, sample: Sample, role: str, slug: str, *, things_of: str | None = None, **more: Any) -> TestResponse:
        """Send the sample as this role in this tenant, with the objects of `things_of`: another tenant, or
        `unknown`.
        """
        of = things_of or slug
        text = self.with_unknown_ids(sample.text) if of == "unknown" else sample.text
        path, body = json.loads(self.fill(text, slug if of == "unknown" else of))
        headers = {"Idempotency-Key": uuid4().hex, "X-Tenant": slug}
        if sample.method in {"PATCH", "PUT"}:
            headers["If-Match"] = self.version(slug) if "/wallets/" in sample.rule else "*"
        token = self.token_of(role, slug)
        if token and role != "service" and sample.rule == "/api/auth/logout":  # It ends the session it is asked in.
            person = getattr(self if role in {"operator", "stranger"} else self.sides[slug], role)
            token = self.people.token(person.user_id)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        headers = {name: value for name, value in (headers | more.pop("headers", {})).items() if value is not None}
        path = more.pop("path", path)
        return self.api.client.open(
            path, method=sample.method, headers=headers, json=body, query_string=sample.query, **more
        )

    def version(self, slug: str) -> str:
        query = f"SELECT version FROM {slug}_schema.wallets WHERE id = %s"
        ((version,),) = self.eye.execute(query.encode(), (self.sides[slug].wallet,)).fetchall()
        return f'"{version}"'

    def all_of(self, slug: str) -> list[Any]:
        """A hash of each table of the tenant and of its rows in `shared`."""
        tables = "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY tablename"
        schema = f"{slug}_schema"
        parts = [f"{schema}.{name} r" for (name,) in self.eye.execute(tables, (schema,)).fetchall()]
        own = f"(SELECT id FROM shared.tenants WHERE slug = '{slug}')"
        parts += [
            f"shared.{name} r WHERE r.tenant_id = {own}"
            for name in ("memberships", "api_keys", "sessions", "invitations")
        ]
        parts.append(f"shared.tenants r WHERE r.slug = '{slug}'")
        sums = ", ".join(f"(SELECT sum(hashtextextended(r::text, 0)::numeric) FROM {part})" for part in parts)
        return list(self.eye.execute(f"SELECT {sums}".encode()).fetchall())
