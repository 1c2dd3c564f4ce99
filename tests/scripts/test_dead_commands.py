"""`python -m scripts.dead_commands` shows why commands are dead, and runs them in the name of their senders."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from flask import Flask

from app.queue_commands.messages import MAX_BYTES
from app.queue_commands.tenant_queue import COMMANDS, DEAD, declare_dead_letters
from tenant_schemas.testing.plugin import Database
from tests.app.queue_commands.test_consumer import RawText
from tests.factories.brokers import RabbitBroker, needs_rabbitmq
from tests.factories.command_queue import on_channel
from tests.factories.commands import Sender, command, make_sender
from tests.factories.people import People
from tests.factories.ports import free_port
from tests.factories.script_runner import Run, script_runner

SCRIPT = "dead_commands"


@pytest.fixture
def dead(
    rabbit_broker: RabbitBroker, database: Database, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Run, RabbitBroker]]:
    """The script, and a broker without dead letters."""
    monkeypatch.setenv("BROKER_URL", rabbit_broker.url)
    purge(rabbit_broker.url)
    yield script_runner(database, monkeypatch), rabbit_broker
    purge(rabbit_broker.url)


def purge(url: str) -> None:
    async def work(channel: AbstractChannel) -> None:
        await declare_dead_letters(channel)
        await (await channel.get_queue(DEAD)).purge()

    on_channel(url, work)


def bury(url: str, *letters: tuple[Sender, bytes, str], body_bytes: int | None = None) -> None:
    """As the consumer buries: the sender by whose word the broker took it, the body, the reason."""

    async def work(channel: AbstractChannel) -> None:
        exchange = await channel.get_exchange(DEAD)
        for sender, body, reason in letters:
            headers: dict[str, Any] = {
                **{"x-queue": f"{COMMANDS}.{sender.tenant_id}", "x-reason": reason, "x-detail": "a detail"},
                **{"x-user-id": sender.user_id, "x-body-bytes": body_bytes or len(body)},
            }
            await exchange.publish(aio_pika.Message(body, headers=headers), "")

    on_channel(url, work)


def shown(run: Run, *arguments: str, exit_code: int = 0) -> list[dict[str, Any]]:
    done = run(SCRIPT, *arguments, "--json")
    assert done.exit_code == exit_code, done.output
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def balance(database: Database, wallet_id: UUID) -> int:
    with database.as_superuser() as connection:
        query = "SELECT balance_minor FROM eur_schema.wallets WHERE id = %s"
        return int(connection.execute(query, (wallet_id,)).fetchall()[0][0])


@needs_rabbitmq
def test_a_chosen_command_is_run_once_and_its_letter_goes(
    dead: tuple[Run, RabbitBroker], app: Flask, people: People, database: Database
) -> None:
    (run, broker), id_ = dead, uuid4().hex
    sender, wallet_id = make_sender(app), people.wallet(people.make(eur="member"), "eur", balance_minor=1_000)
    failed, nonsense = command("payment", id_, walletId=wallet_id, amount="1.00"), b"nonsense \x1b[31m\xff"
    too_much = command("payment", walletId=wallet_id, amount="999.00")
    letters = [(body, "delivery_limit") for body in (failed, too_much, failed)] + [(nonsense, "not_a_command")]
    bury(broker.url, *((sender, *letter) for letter in letters))

    listed = shown(run)
    assert [each["reason"] for each in listed] == [reason for _, reason in letters]
    assert listed[0]["command"] == f"/shop {id_} wallet.payment.requested.v1"
    assert (listed[0]["letter"], listed[0]["body"]) == (listed[2]["letter"], failed.decode())
    assert (listed[0]["tenant"], listed[0]["sender"]) == (str(sender.tenant_id), sender.user_id)

    ran = shown(run, "--reason", "delivery_limit", "--run")
    assert [each["now"] for each in ran] == ["completed", "refused insufficient_funds", "completed"]
    assert balance(database, wallet_id) == 900
    (left,) = shown(run)
    assert shown(run, "--letter", left["letter"], "--run", exit_code=1)[0]["now"].startswith("not run: not_a_command")
    assert "\x1b" not in run(SCRIPT).output
    assert shown(run, "--letter", left["letter"], "--delete")[0]["now"] == "deleted"
    assert shown(run) == []


@needs_rabbitmq
def test_a_letter_is_its_senders_by_the_brokers_word_alone(
    dead: tuple[Run, RabbitBroker], app: Flask, people: People, database: Database
) -> None:
    """The broker itself has buried it, with the headers of its sender, who names another one and another queue."""
    run, broker = dead
    own, stranger = make_sender(app), make_sender(app, "km")
    wallet_id = people.wallet(people.make(eur="member"), "eur", balance_minor=1_000)
    forged = {"x-user-id": own.user_id, "x-queue": f"{COMMANDS}.{own.tenant_id}", "x-reason": "delivery_limit"}

    async def work(channel: AbstractChannel) -> None:
        name = f"{COMMANDS}.{stranger.tenant_id}"
        arguments = {"x-dead-letter-exchange": DEAD, "x-expires": 60_000}
        queue = await channel.declare_queue(name, auto_delete=True, arguments=arguments)
        body = command("payment", walletId=wallet_id, amount="1.00")
        message = aio_pika.Message(body, headers=forged, user_id=stranger.user_id)
        await channel.default_exchange.publish(message, queue.name)
        taken = await queue.get(timeout=10)
        await taken.reject(requeue=False)  # type: ignore[union-attr]
        await queue.delete(if_empty=False)

    on_channel(broker.url, work)
    (ran,) = shown(run, "--reason", "rejected", "--run")
    assert (ran["sender"], ran["tenant"]) == (stranger.user_id, str(stranger.tenant_id))
    assert ran["now"] == "refused wallet_not_found"
    assert balance(database, wallet_id) == 1_000


@needs_rabbitmq
def test_a_cut_letter_is_not_run(dead: tuple[Run, RabbitBroker], app: Flask) -> None:
    run, broker = dead
    bury(broker.url, (make_sender(app), b"x" * MAX_BYTES, "not_a_command"), body_bytes=MAX_BYTES + 1)
    assert "the body is cut" in shown(run, "--reason", "not_a_command", "--run", exit_code=1)[0]["now"]
    assert len(shown(run)) == 1


@needs_rabbitmq
def test_a_letter_that_cannot_be_decoded_is_told_after_those_before_it(
    dead: tuple[Run, RabbitBroker], app: Flask
) -> None:
    run, broker = dead
    bury(broker.url, (make_sender(app), b"before it", "not_a_command"))

    async def poison(channel: AbstractChannel) -> None:
        await (await channel.get_exchange(DEAD)).publish(aio_pika.Message(b"{}", content_type=RawText("x")), "")

    on_channel(broker.url, poison)
    done = run(SCRIPT, "--json")
    assert (done.exit_code, "can't be decoded" in done.stderr) == (1, True)
    assert [each["body"] for each in json.loads(done.stdout)] == ["before it"]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "told"),
    [
        (("--run",), 2, "Choose dead letters"),
        (("--letter", "a", "--run", "--delete"), 2, "Choose dead letters"),
        ((), 1, "The connection to the broker failed"),
    ],
)
def test_a_wrong_choice_and_a_broker_that_is_away_are_told(
    database: Database, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], exit_code: int, told: str
) -> None:
    monkeypatch.setenv("BROKER_URL", f"amqp://127.0.0.1:{free_port()}")
    done = script_runner(database, monkeypatch)(SCRIPT, *arguments)
    assert (done.exit_code, told in done.output) == (exit_code, True), done.output
