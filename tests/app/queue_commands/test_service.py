"""A command has one effect and one outcome, however often it comes; a refusal is kept, with its answer."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from flask import Flask

from app.events.feed import event_json
from app.ledger.service import post
from app.queue_commands.handler import DeadLetter
from app.queue_commands.service import LONGEST_TEXT, MOST_FAULTS, Outcome
from tenant_schemas.testing.plugin import Database
from tests.app.queue_commands.conftest import Handle, answers
from tests.factories.commands import SOURCE, Sender, command
from tests.factories.feed import Feed, in_tenant, movement
from tests.factories.people import People


def outcome_of(found: object) -> Outcome:
    assert isinstance(found, Outcome), found
    return found


@pytest.fixture
def rows(database: Database) -> Iterator[Any]:
    with database.as_superuser() as connection:
        yield lambda query, *parameters: connection.execute(query, parameters).fetchall()


def test_a_payment_is_posted_once_and_answered(send: Handle, wallet_id: UUID, feed: Feed, rows: Any) -> None:
    body = command("payment", "order-1", walletId=wallet_id, amount="3.20", orderId=uuid4())
    first, again = outcome_of(send(body)), outcome_of(send(body))
    assert (first.outcome, first.repeated, again.repeated) == ("completed", False, True)
    assert (again.subject_id, again.event_id) == (first.subject_id, first.event_id)
    posted = rows(
        "SELECT id, amount_minor, idempotency_key FROM eur_schema.wallet_transactions WHERE wallet_id = %s AND seq > 1",
        wallet_id,
    )
    assert posted == [(first.subject_id, -320, f"command:{SOURCE}:order-1")]
    told = {"walletId": str(wallet_id), "commandSource": SOURCE, "commandId": "order-1"}
    assert answers(feed.of(wallet_id)) == [
        ("wallet.payment.completed.v1", {**told, "transactionId": str(first.subject_id), "holdId": None, "code": None})
    ]


def test_a_refusal_is_kept_although_there_is_money_later(app: Flask, send: Handle, wallet_id: UUID, feed: Feed) -> None:
    body = command("payment", walletId=wallet_id, amount="250.00")
    first = outcome_of(send(body))
    assert (first.outcome, first.code) == ("refused", "insufficient_funds")
    with in_tenant(app):
        post(wallet_id, movement("deposit", 1_000_000))
    again = outcome_of(send(body))
    assert (again.outcome, again.code, again.repeated) == ("refused", "insufficient_funds", True)
    ((type_, data),) = answers(feed.of(wallet_id))
    assert (type_, data["code"]) == ("wallet.payment.refused.v1", "insufficient_funds")
    assert (data["available"], data["required"], data["shortfall"]) == ("100.00", "250.00", "150.00")


def test_a_thin_answer_names_its_command_by_source_and_id(send: Handle, wallet_id: UUID, feed: Feed) -> None:
    """Two services may use the same id. Why it was refused is not in it."""
    send(command("payment", "order-7", source="/other-shop", walletId=wallet_id, amount="250.00"))
    thin = orjson.loads(event_json(feed.of(wallet_id)[-1], "thin"))
    told = {"walletId": str(wallet_id), "commandSource": "/other-shop", "commandId": "order-7"}
    assert thin["data"] == told | {"holdId": None}


def test_of_many_deliveries_at_once_one_has_the_effect(send: Handle, wallet_id: UUID, rows: Any) -> None:
    paid = command("payment", walletId=wallet_id, amount="60.00")
    too_much = command("payment", walletId=wallet_id, amount="60.00")
    with ThreadPoolExecutor(8) as threads:
        found = [outcome_of(each) for each in threads.map(send, [paid, too_much] * 8)]
    assert len({each.event_id for each in found}) == 2
    assert sum(not each.repeated for each in found) == 2
    assert {each.outcome for each in found} == {"completed", "refused"}
    (balance,) = rows("SELECT balance_minor FROM eur_schema.wallets WHERE id = %s", wallet_id)
    assert balance == (4_000,)


def test_each_verb_has_its_effect(send: Handle, wallet_id: UUID, feed: Feed, rows: Any) -> None:
    def sent(verb: str, **data: Any) -> UUID:
        found = outcome_of(send(command(verb, walletId=wallet_id, **data)))
        assert found.outcome == "completed", found
        assert found.subject_id
        return found.subject_id

    sent("deposit", amount="10.00", reference="r")
    payment = sent("payment", amount="5.00", description="d")
    sent("refund", paymentId=payment, amount="1.00")
    sent("refund", paymentId=payment)
    hold = sent("hold", amount="20.00", description="h")
    captured = sent("capture", holdId=hold, amount="15.00")
    assert sent("void", holdId=hold) == hold
    movements = rows(
        "SELECT type, amount_minor, hold_id FROM eur_schema.wallet_transactions WHERE wallet_id = %s AND seq > 1"
        " ORDER BY seq",
        wallet_id,
    )
    assert movements == [
        ("deposit", 1_000, None),
        ("payment", -500, None),
        ("refund", 100, None),
        ("refund", 400, None),
        ("payment", -1_500, hold),
    ]
    assert rows("SELECT status, captured_minor FROM eur_schema.holds WHERE id = %s", hold) == [("voided", 1_500)]
    told = dict(answers(feed.of(wallet_id)))
    assert told["wallet.hold.completed.v1"]["holdId"] == str(hold)
    assert told["wallet.capture.completed.v1"]["transactionId"] == str(captured)
    assert told["wallet.capture.completed.v1"]["holdId"] == str(hold)


@pytest.mark.parametrize(
    ("verb", "told", "code"),
    [
        ("payment", {"amount": "1.005"}, "validation_failed"),
        ("payment", {"amount": "-1.00"}, "validation_failed"),
        ("payment", {}, "validation_failed"),
        ("payment", {"amount": "1.00", "tenant": "km"}, "validation_failed"),
        ("deposit", {"amount": "92233720368547758.07"}, "amount_out_of_range"),
        ("refund", {"paymentId": "00000000-0000-4000-8000-000000000000"}, "payment_not_found"),
        ("capture", {"holdId": "00000000-0000-4000-8000-000000000000"}, "hold_not_found"),
        ("void", {"holdId": "00000000-0000-4000-8000-000000000000"}, "hold_not_found"),
        ("hold", {"amount": "1.00", "expiresAt": "2020-01-01T00:00:00Z"}, "expiry_in_the_past"),
    ],
)
def test_what_the_api_refuses_is_refused_and_kept(
    send: Handle, wallet_id: UUID, verb: str, told: dict[str, str], code: str
) -> None:
    body = command(verb, walletId=wallet_id, **told)
    assert outcome_of(send(body)).code == code
    assert outcome_of(send(body)).repeated


def test_a_wallet_that_is_opened_later_makes_no_refused_command_run(send: Handle, people: People, feed: Feed) -> None:
    unknown = uuid4()
    found = outcome_of(send(command("payment", "to-nobody", walletId=unknown, amount="1.00")))
    assert (found.outcome, found.code) == ("refused", "wallet_not_found")
    feed.stamp()
    (event,) = [event for event in feed.read(limit=10_000) if event.id == found.event_id]
    assert (event.wallet_id, event.body["data"]["walletId"]) == (None, str(unknown))


def test_the_same_name_for_another_command_is_no_outcome(send: Handle, wallet_id: UUID, rows: Any) -> None:
    first = command("payment", "twice", walletId=wallet_id, amount="1.00")
    second = command("payment", "twice", walletId=wallet_id, amount="2.00")
    assert outcome_of(send(first)).outcome == "completed"
    found = send(second)
    assert isinstance(found, DeadLetter)
    assert found.reason == "command_id_reused"
    assert outcome_of(send(first)).repeated


def test_a_member_cannot_use_up_the_key_of_a_services_hold(app: Flask, send: Handle, people: People) -> None:
    """A member may guess the source and the id of a command."""
    member = people.make(eur="member")
    wallet_id = people.wallet(member, "eur", balance_minor=1_000)
    with in_tenant(app):
        for id_ in ("h1", "p1"):
            post(wallet_id, movement("payment", 1, f"command:{SOURCE}:{id_}"))
    assert outcome_of(send(command("hold", "h1", walletId=wallet_id, amount="1.00"))).outcome == "completed"
    assert outcome_of(send(command("payment", "p1", walletId=wallet_id, amount="1.00"))).outcome == "completed"


def test_the_audit_log_names_the_key_and_counts_refusals(
    send: Handle, sender: Sender, wallet_id: UUID, rows: Any
) -> None:
    send(command("payment", "good", walletId=wallet_id, amount="1.00"))
    send(command("hold", "held", walletId=wallet_id, amount="1.00"))
    for _ in range(2):
        send(command("payment", "bad", walletId=wallet_id, amount="999.00"))
    send(b"nonsense")
    entries = rows(
        "SELECT action, subject, refusal FROM eur_schema.audit_log WHERE actor_id = %s ORDER BY seq", sender.key_id
    )
    assert [(action, refusal) for action, _, refusal in entries] == [
        ("wallet.payment", None),
        ("hold.authorise", None),
        ("wallet.payment", "insufficient_funds"),
        ("wallet.command", "not_a_command"),
    ]
    assert entries[2][1] == "commands/bad"
    assert rows("SELECT * FROM eur_schema.ledger_audit_v4()") == []


def test_the_answer_to_a_command_with_many_faults_is_short(send: Handle, wallet_id: UUID) -> None:
    unheard = {"x" * 10 * number: "" for number in range(1, 100)}
    found = outcome_of(send(command("payment", walletId=wallet_id, **unheard)))
    assert found.detail
    assert len(found.detail["errors"]) == MOST_FAULTS
    assert max(len(text) for fault in found.detail["errors"] for text in fault.values()) == LONGEST_TEXT


def test_the_trace_of_a_command_goes_on_in_its_events(send: Handle, wallet_id: UUID, feed: Feed) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    body = orjson.loads(command("payment", walletId=wallet_id, amount="1.00")) | {"traceparent": trace}
    assert outcome_of(send(orjson.dumps(body))).outcome == "completed"
    outcome_of(send(command("payment", walletId=wallet_id, amount="1.00")))
    traces = [(event.type.split(".")[-2], event.body.get("traceparent")) for event in feed.of(wallet_id)][-4:]
    assert traces == [("posted", trace), ("completed", trace), ("posted", None), ("completed", None)]
