"""The stand-in's own routes: log-in, webhooks. `tests/scripts/test_demo.py` shows those that need the wallet."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from flask.testing import FlaskClient
from standardwebhooks import Webhook

from deploy.standin.commands import Commands
from deploy.standin.identity import Identity
from deploy.standin.inbox import Inbox
from tests.deploy.standin.test_inbox import ids, movement
from tests.factories.clients import python_client  # noqa: F401  The fixture.

SECRET = "whsec_" + "A" * 43 + "="
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path)


@pytest.fixture
def http(tmp_path: Path, inbox: Inbox, python_client: None) -> FlaskClient:  # noqa: F811
    from deploy.standin.app import create_app  # The typed client must be importable first.

    identity = Identity(tmp_path, "http://localhost:1", "wallet", {"a@example.com": CHEAP.hash("right")})
    commands = Commands("amqp://localhost:1", "none")
    app = create_app(
        identity=identity, inbox=inbox, commands=commands, wallet_url="http://localhost:1", tenant="eur", secret=SECRET
    )
    return app.test_client()


def deliver(http: FlaskClient, event: dict[str, Any], *, secret: str = SECRET, late_by: int = 0) -> int:
    body, at = json.dumps(event), datetime.now(UTC) - timedelta(seconds=late_by)
    signature = Webhook(secret).sign("m", at, body)
    headers = {"webhook-id": "m", "webhook-timestamp": str(int(at.timestamp()))}
    answer = http.post("/webhooks/wallet", data=body, headers=headers | {"webhook-signature": signature})
    return answer.status_code


def test_a_signed_webhook_is_stored_once_and_answered_each_time(http: FlaskClient, inbox: Inbox) -> None:
    assert [deliver(http, movement(1)), deliver(http, movement(1)), deliver(http, movement(2))] == [204] * 3
    assert ids(inbox, "webhook") == ["m2", "m1"]


def test_a_webhook_after_a_gap_is_refused_so_that_it_comes_again(http: FlaskClient, inbox: Inbox) -> None:
    assert [deliver(http, movement(seq)) for seq in (1, 3, 2, 3)] == [204, 409, 204, 204]
    assert ids(inbox, "webhook") == ["m3", "m2", "m1"]


def test_a_webhook_that_the_wallet_did_not_sign_is_refused(http: FlaskClient, inbox: Inbox) -> None:
    assert deliver(http, movement(1), secret="whsec_" + "B" * 43 + "=") == 401
    assert deliver(http, movement(1), late_by=3600) == 401
    for signature in ("", "v1", "v1,a,b", "v1,é"):
        headers = {"webhook-id": "m1", "webhook-timestamp": "1", "webhook-signature": signature}
        assert http.post("/webhooks/wallet", data=b"\xff", headers=headers).status_code == 401
    assert ids(inbox, "webhook") == []


@pytest.mark.parametrize("wrong", [{"id": []}, {"data": None}, {"data": {"previousHash": "a"}}])
def test_a_signed_webhook_that_is_no_event_is_refused(http: FlaskClient, inbox: Inbox, wrong: dict[str, Any]) -> None:
    """`test_events.py` has everything that is no event."""
    assert deliver(http, movement(1) | wrong) == 400
    assert ids(inbox, "webhook") == []


def test_only_a_logged_in_user_sees_a_wallet_and_commands(http: FlaskClient) -> None:
    wrong = {"email": "a@example.com", "password": "wrong"}
    assert http.post("/login", json=wrong).status_code == 401
    assert http.post("/login", json=wrong | {"password": "right"}).status_code == 200
    for path in ("/account", "/arrived/rabbitmq"):
        assert http.get(path, headers={"Authorization": "Bearer a.b.c"}).status_code == 401
    assert http.post("/commands/payments", json={"amount": "1.00"}).status_code == 401


@pytest.mark.parametrize("body", [[], "text", 5, {"email": {}, "password": []}])
def test_a_log_in_by_nonsense_is_refused(http: FlaskClient, body: Any) -> None:
    assert http.post("/login", json=body).status_code in {401, 422}


@pytest.mark.parametrize("body", [b'{"email": "a@example.com", "password": "\\ud800"}', b"[" * 100_000, b"\xff", b""])
def test_a_log_in_by_what_is_no_json_is_refused(http: FlaskClient, body: bytes) -> None:
    assert http.post("/login", data=body).status_code == 422


@pytest.mark.parametrize(
    "body",
    [
        *([], {}, {"amount": 3}, {"amount": None}, {"amount": "1.00", "times": 11}, {"amount": "1.00", "times": 0}),
        *({"amount": "1.00", "times": "2"}, {"amount": "1.00", "times": []}, {"amount": "1.00", "times": 1e308}),
        *({"amount": "1.00", "times": 2.0}, {"amount": "1.00", "times": True}, {"amount": "\ud800"}),
    ],
)
def test_a_command_of_nonsense_or_many_times_is_refused(http: FlaskClient, body: Any) -> None:
    token = http.post("/login", json={"email": "a@example.com", "password": "right"}).get_json()["accessToken"]
    answer = http.post("/commands/payments", json=body, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 422


def test_the_documents_of_a_provider_lead_to_its_keys(http: FlaskClient) -> None:
    described = http.get("/.well-known/openid-configuration").json
    assert described is not None
    assert described["jwks_uri"] == f"{described['issuer']}/keys"
    assert http.get("/keys").json
