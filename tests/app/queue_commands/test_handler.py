"""What becomes of a message: the broker's credentials say whose it is, and never its body."""

from collections.abc import Iterator
from uuid import UUID, uuid4

import orjson
import pytest
from flask import Flask

from app.api_keys.service import revoke_key
from app.auth.actors import Actor, ActorKind
from app.db import db
from app.queue_commands.handler import DeadLetter, Wait, handle
from app.queue_commands.service import Outcome
from tenant_schemas.testing.plugin import Database
from tests.app.queue_commands.conftest import Handle
from tests.factories.application import running
from tests.factories.commands import Sender, command, make_sender
from tests.factories.feed import in_tenant
from tests.factories.people import People
from tests.factories.telemetry import TRACE_ID, TRACEPARENT, sample, traced_spans, traces


def reason_of(found: object) -> str:
    assert isinstance(found, DeadLetter), found
    return found.reason


@pytest.mark.parametrize(
    "user_id", [None, "", "guest", f"wk_{'0' * 32}", "wk_00000000-0000-4000-8000-000000000000", f"wk_{'0' * 32}_secret"]
)
def test_a_message_without_the_name_of_a_valid_key_is_buried(app: Flask, sender: Sender, user_id: str | None) -> None:
    body = command("payment", walletId=uuid4(), amount="1.00")
    assert reason_of(handle(app, sender.tenant_id, user_id, body)) == "sender_unknown"


def test_a_key_of_another_tenant_reaches_no_wallet_of_this_one(app: Flask, sender: Sender, wallet_id: UUID) -> None:
    """Neither in this tenant's queue nor by naming its wallet in the own queue."""
    stranger = make_sender(app, "km")
    body = command("payment", walletId=wallet_id, amount="1.00")
    assert reason_of(handle(app, sender.tenant_id, stranger.user_id, body)) == "wrong_tenant"
    found = handle(app, stranger.tenant_id, stranger.user_id, body)
    assert isinstance(found, Outcome)
    assert found.code == "wallet_not_found"


def test_a_revoked_key_and_an_auditors_key_send_nothing(app: Flask, sender: Sender, wallet_id: UUID) -> None:
    body = command("payment", walletId=wallet_id, amount="1.00")
    auditor = make_sender(app, role="auditor")
    assert reason_of(handle(app, auditor.tenant_id, auditor.user_id, body)) == "sender_unknown"
    with in_tenant(app):
        revoke_key(sender.key_id, actor=Actor(ActorKind.USER, sender.keeper_id, request_id="test"))
        db.session.commit()
    assert reason_of(handle(app, sender.tenant_id, sender.user_id, body)) == "sender_unknown"


@pytest.fixture
def limited_app(database: Database) -> Iterator[Flask]:
    with running(database, caller_rate_limit="2/hour") as app:
        yield app


def test_commands_beyond_the_rate_of_their_caller_wait(limited_app: Flask, people: People) -> None:
    sender = make_sender(limited_app)
    wallet_id = people.wallet(people.make(eur="member"), "eur", balance_minor=1_000)

    def send() -> Outcome | DeadLetter | Wait:
        body = command("payment", walletId=wallet_id, amount="1.00")
        return handle(limited_app, sender.tenant_id, sender.user_id, body)

    assert [type(send()) for _ in range(2)] == [Outcome, Outcome]
    found = send()
    assert isinstance(found, Wait)
    assert 3_500 < found.seconds <= 3_600


def test_commands_of_a_tenant_that_is_not_served_wait(fresh_database: Database) -> None:
    with running(fresh_database) as app:
        sender = make_sender(app)
        with fresh_database.as_superuser() as connection:
            connection.execute("UPDATE shared.tenants SET status = 'suspended' WHERE slug = 'eur'")
        found = handle(app, sender.tenant_id, sender.user_id, command("void"))
        assert isinstance(found, Wait)


def test_commands_wait_for_a_locked_wallet(send: Handle, wallet_id: UUID, database: Database, app: Flask) -> None:
    """A statement's time-out is a passing condition, and nothing is kept of it."""
    sender = make_sender(app)
    body = command("payment", walletId=wallet_id, amount="1.00")
    with running(database, statement_timeout_ms=100) as hurried, database.as_superuser() as connection:
        connection.autocommit = False
        connection.execute("SELECT FROM eur_schema.wallets WHERE id = %s FOR UPDATE", (wallet_id,))
        found = handle(hurried, sender.tenant_id, sender.user_id, body)
        assert isinstance(found, Wait)
        connection.rollback()
    then = handle(app, sender.tenant_id, sender.user_id, body)
    assert isinstance(then, Outcome)
    assert (then.outcome, then.repeated) == ("completed", False)


def test_commands_are_counted_by_their_outcome_and_belong_to_their_senders_trace(send: Handle, wallet_id: UUID) -> None:
    def counted() -> list[float]:
        outcomes = ("completed", "refused", "repeated")
        return [sample("wallet_commands_total", type="payment", outcome=outcome) for outcome in outcomes]

    told = orjson.loads(command("payment", walletId=wallet_id, amount="1.00"))
    before, body = counted(), orjson.dumps(told | {"traceparent": TRACEPARENT})
    with traced_spans() as exporter:
        send(body)
    assert traces(exporter, "command") == [TRACE_ID]
    send(body)
    send(command("payment", walletId=uuid4(), amount="1.00"))
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [1, 1, 1]
