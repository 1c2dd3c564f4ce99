"""schemathesis against the served OpenAPI, as each caller: no 5xx, and each answer matches its description.

It generates valid and invalid requests from the description, the same in every run. `SCHEMATHESIS_EXAMPLES=200`
generates more of them.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app import create_app
from app.auth.passwords import hash_password
from app.config import ROOT
from app.tenancy import MIGRATIONS
from tenant_schemas.flask import EXTENSION
from tenant_schemas.testing.plugin import Database, copy_of, make_tenant
from tests.conftest import settings_for
from tests.factories.api import Api
from tests.factories.catalogue import Catalogue
from tests.factories.people import People, Person
from tests.factories.served import served

pytestmark = pytest.mark.changes_roles

EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES")
PASSWORD = "correct horse battery staple"
CURRENCIES = {"eur": "EUR", "km": "BAM"}
PLENTY = {
    "TENANT_RATE_LIMIT": "999999999/day",
    "LOGIN_RATE_LIMIT": "999999999/day",
    "CALLER_RATE_LIMIT": "999999999/day",
    **dict.fromkeys(
        (
            *("MAIL_RATE_LIMIT", "ACCOUNT_RATE_LIMIT", "INVITATION_RATE_LIMIT", "SECOND_FACTOR_RATE_LIMIT"),
            *("ACCOUNT_MAIL_LIMIT", "SECOND_FACTOR_DAILY_LIMIT"),
            *("LOGIN_FAILURE_LIMIT", "ACCOUNT_FAILURE_LIMIT", "REFRESH_RATE_LIMIT"),
        ),
        "999999999/day",
    ),
    "TENANT_CONCURRENCY": "1000",
    "EVENT_STREAMS": "1000",
    "STREAM_SECONDS": "0.05",  # Event streams have no other end.
}

CONFIG = """
base-url = "{url}"
hooks = "tests.schemathesis_hooks"
continue-on-failure = true
warnings = false

[headers]
{headers}

[[operations]]
include-path = "/api/auth/logout"
headers = {{ Authorization = "Bearer {last_token}" }}
[[operations]]
include-path = "/api/auth/login"
[operations.parameters]
"body.email" = {{ dictionary = "email", probability = 0.8 }}

# What a description can't say: an amount's digits, a currency of this very tenant, a cursor that was given out, …
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "304", "401", "403", "404", "409", "412", "422"{tenant_required}]
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "409", "412", "413", "415", "422", "428"]
[checks.missing_required_header]
expected-statuses = ["400", "401", "403", "404", "422", "428"]

# The findings of an earlier run must not change the requests of this one.
[cache]
enabled = false
[generation]
max-examples = {examples}
deterministic = true
database = "none"

{dictionaries}
"""


@dataclass(frozen=True, slots=True)
class World:
    """A served application with two tenants, and a third one to configure."""

    app: Flask
    people: People
    api: Api
    database: Database
    url: str
    product: str
    folder: Path


@pytest.fixture(scope="module")
def world(template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("schemathesis")
    with copy_of(template) as database:
        make_tenant(database, MIGRATIONS, "spare", {"currency": "EUR"})
        _, product = Catalogue(database).product(EUR="1.00", BAM="2.00")
        app = create_app(settings_for(database, token_seconds=86_400))
        threads = ("--worker-class", "gthread", "--threads", "2")
        with served(database, folder / "log", *threads, **PLENTY) as url:
            yield World(app, People(app), Api(app), database, url, str(product), folder)
        app.extensions[EXTENSION].close()


def of_a_member(world: World, slug: str, member: Person, admin: Person) -> dict[str, str]:
    """An object of each kind that a request can name."""
    wallet = world.people.wallet(member, slug, balance_minor=100_000_000)
    # An earlier run may have made as many as a tenant may have.
    world.database.as_superuser().execute(f"DELETE FROM {slug}_schema.webhook_endpoints".encode())
    items = {"items": [{"productId": world.product, "quantity": 1}]}
    made = {
        "transactionId": world.api.post("/api/wallet/payments", member, slug, json={"amount": "1.00"}),
        "holdId": world.api.post("/api/wallet/holds", member, slug, json={"amount": "500.00"}),
        "orderId": world.api.post("/api/orders", member, slug, json=items),
        "keyId": make_key(world, slug, admin),
        "webhookId": world.api.post("/api/admin/webhooks", admin, slug, json={"url": HOOK}),
    }
    assert {answer.status_code for answer in made.values()} == {201}
    ids = {name: answer.json["id"] for name, answer in made.items()}
    return {**ids, "walletId": str(wallet), "userId": str(member.user_id)}


def make_key(world: World, slug: str, admin: Person) -> Any:
    until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    told = {"name": "schemathesis", "role": "service", "expiresAt": until}
    return world.api.post("/api/admin/api-keys", admin, slug, json=told)


# This machine: the name resolves at once, and the address is refused.
HOOK = "https://localhost/hook"
_PROVISIONING = """
    INSERT INTO shared.provisionings (slug, name, settings, requested_by, status, finished_at)
    VALUES ('made', 'made', '{}', %s, 'done', now()) RETURNING id"""


def config_of(world: World, role: str, slug: str | None, examples: int) -> str:
    """The settings of one run: the caller, and the objects that requests can name."""
    home = slug or "eur"
    password_hash = hash_password(PASSWORD)
    admin, other = (world.people.make(password_hash=password_hash, **{home: each}) for each in ("admin", "member"))
    roles = {home: role} if role in {"member", "admin", "auditor"} else {}
    caller = world.people.make(password_hash=password_hash, **roles)
    login = world.api.post("/api/auth/login", json={"email": other.email, "password": PASSWORD})
    superuser = world.database.as_superuser()
    superuser.execute("UPDATE shared.users SET is_operator = %s WHERE id = %s", (role == "operator", caller.user_id))
    ((provisioning,),) = superuser.execute(_PROVISIONING, (caller.user_id,))
    ids = of_a_member(world, home, caller if role == "member" else other, admin)
    token = make_key(world, home, admin).json["key"] if role == "service" else caller.token
    headers = {"Authorization": f"Bearer {token}"} | ({"X-Tenant": slug} if slug else {})
    named: dict[str, list[str]] = {name: [value] for name, value in ids.items()}
    named |= {"productId": [world.product], "currency": [CURRENCIES[home]], "tenantId": ["spare"]}
    named |= {"provisioningId": [str(provisioning)], "url": [HOOK]}
    named |= {"email": [caller.email], "password": [PASSWORD], "refresh_token": [login.json["refreshToken"]]}
    named |= {"version": ['"1"', '"2"', "*"], "amount": ["1.00", "0.01", "2.50"]}
    return CONFIG.format(
        url=world.url,
        headers="\n".join(f"{name} = {json.dumps(value)}" for name, value in headers.items()),
        tenant_required="" if slug else ', "400"',
        last_token=world.people.token(caller.user_id),
        examples=examples,
        dictionaries=dictionaries(named),
    )


# The source of schemathesis' values, four times of five.
IDS = ("walletId", "transactionId", "holdId", "orderId", "userId", "keyId", "webhookId", "provisioningId")
PLACES = {
    **{f"path.{name}": name for name in (*IDS, "productId", "currency", "tenantId")},
    **{f"body.{name}": "password" for name in ("password", "currentPassword", "newPassword")},
    **{"query.currency": "currency", "body.currency": "currency", "header.If-Match": "version"},
    **{"body.amount": "amount", "body.items[*].amount": "amount", "body.paymentId": "transactionId"},
    **{"body.userId": "userId", "body.items[*].walletId": "walletId", "body.items[*].productId": "productId"},
    **{"query.userId": "userId", "query.walletId": "walletId", "query.actorId": "userId"},
    **{"query.minAmount": "amount", "query.maxAmount": "amount"},
    **{"body.refreshToken": "refresh_token", "body.url": "url", "path.eventId": "transactionId"},
}


def dictionaries(named: dict[str, list[str]]) -> str:
    values = (f"[dictionaries.{name}]\nvalues = {json.dumps(values)}" for name, values in named.items())
    places = (f'"{place}" = {{ dictionary = "{name}", probability = 0.8 }}' for place, name in PLACES.items())
    return "\n".join((*values, "[parameters]", *places))


def run(world: World, role: str, slug: str | None, *options: str, examples: int) -> Counter[str]:
    """Run schemathesis as this caller. Returns how often each operation answered with each status."""
    name = f"{role}-{slug}"
    config, account = world.folder / f"{name}.toml", world.folder / f"{name}.json"
    config.write_text(config_of(world, role, slug, int(EXAMPLES or examples)))
    command = [Path(sys.executable).with_name("schemathesis"), "--config-file", config, "--no-color", "run"]
    environment = os.environ | {"SCHEMATHESIS_RUN": name, "SCHEMATHESIS_ACCOUNT": str(account)}
    done = subprocess.run(
        [*command, f"{world.url}/openapi.json", *options],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return Counter(json.loads(account.read_text()))


def reached(told: Counter[str]) -> set[str]:
    """The operations that succeeded at least once."""
    return {operation for operation, _, status in (each.rpartition(" ") for each in told) if status.startswith("2")}


# Each operation, with the callers that it admits, and the number of operations that must succeed at least once, which
# proves that the requests are valid.
DEEP = {
    "member of km": ("member", "km", "^/api/(wallets?|orders|products|me|auth)", 20),
    "admin of eur": ("admin", "eur", "^/api/admin/(?!tenants)", 36),
    "operator": ("operator", None, "^/api/(admin/tenants|admin/wallets$|me)", 6),
}


@pytest.mark.parametrize(("role", "slug", "paths", "at_least"), DEEP.values(), ids=DEEP)
def test_an_operation_answers_what_is_described_whatever_is_sent(
    world: World, role: str, slug: str | None, paths: str, at_least: int
) -> None:
    told = run(world, role, slug, "--include-path-regex", paths, examples=3)
    assert len(reached(told)) >= at_least, sorted(reached(told))


# The callers of all operations, admitted or not. In CI each calls one tenant; by hand all call both.
WIDE = [("member", "eur"), ("admin", "km"), ("auditor", "eur"), ("service", "km"), ("operator", "eur")]
OTHERS = [("member", "km"), ("admin", "eur"), ("auditor", "km"), ("service", "eur"), ("operator", "km")]


@pytest.mark.parametrize(("role", "slug"), [*WIDE, *OTHERS] if EXAMPLES else WIDE)
def test_everybody_gets_what_is_described_from_all_operations(world: World, role: str, slug: str) -> None:
    told = run(world, role, slug, *(() if EXAMPLES else ("--phases", "fuzzing")), examples=2)
    assert reached(told)
