"""Commands through a real RabbitMQ: from a sender's message to its acknowledgement, or to the dead letters."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from threading import Event, Thread
from typing import Any
from uuid import UUID

import aio_pika
import psycopg
import pytest
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import ChannelClosed, ChannelPreconditionFailed
from flask import Flask

from app.queue_commands import consumer as consumer_module
from app.queue_commands.consumer import consume
from app.queue_commands.messages import MAX_BYTES
from app.queue_commands.tenant_queue import COMMANDS, DEAD
from app.queue_commands.tenants import tenants_with_senders
from tenant_schemas.testing.plugin import Database
from tests.factories.brokers import DELIVERY_LIMIT, RabbitBroker, needs_rabbitmq
from tests.factories.command_queue import (
    PATIENCE_SECONDS,
    is_consumed,
    on_channel,
    publish,
    take,
    until,
    wait_for_queue,
)
from tests.factories.commands import Sender, command, make_sender

pytestmark = needs_rabbitmq


@contextmanager
def consuming(app: Flask, broker: RabbitBroker, choose: Callable[[], Mapping[UUID, str]]) -> Iterator[None]:
    """A consumer in a thread. Returns when it has ended."""
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
    started = Event()

    async def run() -> None:
        stop = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stop))
        started.set()
        await consume(app, broker.url, choose, stop, threads=2, refresh_seconds=0.2)

    thread = Thread(target=asyncio.run, args=(run(),))
    thread.start()
    started.wait(PATIENCE_SECONDS)
    try:
        for tenant_id in choose():
            wait_for_queue(broker.url, tenant_id)
        yield
    finally:
        loop, stop = loops[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


class Shop:
    """A service that sends commands about one wallet."""

    def __init__(
        self, app: Flask, broker: RabbitBroker, sender: Sender, connection: psycopg.Connection[Any], wallet_id: UUID
    ) -> None:
        self.app, self.broker, self.sender, self.wallet_id = app, broker, sender, wallet_id
        self._connection = connection

    def consuming(self, *slugs: str) -> Any:
        return consuming(self.app, self.broker, partial(tenants_with_senders, self.app, slugs or ["eur"]))

    def send(self, *bodies: bytes) -> None:
        publish(self.broker.url, self.sender.tenant_id, self.sender.user_id, bodies)

    def payment(self, amount: str) -> bytes:
        return command("payment", walletId=self.wallet_id, amount=amount)

    def balance(self) -> int:
        query = "SELECT balance_minor FROM eur_schema.wallets WHERE id = %s"
        ((balance,),) = self._connection.execute(query, (self.wallet_id,))
        return int(balance)


@pytest.fixture
def shop(
    app: Flask, rabbit_broker: RabbitBroker, sender: Sender, wallet_id: UUID, database: Database
) -> Iterator[Shop]:
    with database.as_superuser() as connection:
        yield Shop(app, rabbit_broker, sender, connection, wallet_id)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.queue_commands.tenant_queue.FAILURE_SECONDS", 0.01)
    monkeypatch.setattr(consumer_module, "RECONNECT_SECONDS", 0.05)


def test_commands_that_are_delivered_twice_are_paid_once_and_in_their_order(shop: Shop) -> None:
    bodies = [shop.payment("1.00") for _ in range(20)]
    with shop.consuming():
        shop.send(*bodies, *bodies, command("deposit", walletId=shop.wallet_id, amount="5.00"))
        until(lambda: shop.balance() == 8_500)  # The deposit is last, so all are through.


def test_what_is_no_command_goes_to_the_dead_letters_with_the_reason(shop: Shop) -> None:
    own, foreign = shop.sender, make_sender(shop.app, "km")
    reasons = {own.user_id: "not_a_command", None: "sender_unknown", foreign.user_id: "wrong_tenant"}
    with shop.consuming():
        for user_id, reason in reasons.items():
            publish(shop.broker.url, own.tenant_id, user_id, [b"nonsense"])
            dead = take(shop.broker.url, DEAD)
            assert (dead.body, dead.headers["x-reason"]) == (b"nonsense", reason)
            assert dead.headers["x-queue"] == f"{COMMANDS}.{own.tenant_id}"
            assert dead.headers["x-user-id"] == user_id


def test_a_command_that_always_fails_is_tried_a_few_times_and_then_dead(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker's policy ends it, and the next command is run."""
    tries: list[bytes] = []
    poison = shop.payment("1.00")
    real = consumer_module.handle

    def handle(app: Flask, tenant_id: UUID, user_id: str | None, body: bytes) -> Any:
        if body == poison:
            tries.append(body)
            raise RuntimeError("a fault of the service")
        return real(app, tenant_id, user_id, body)

    monkeypatch.setattr(consumer_module, "handle", handle)
    with shop.consuming():
        shop.send(poison, shop.payment("2.00"))
        dead = take(shop.broker.url, DEAD)
        until(lambda: shop.balance() == 9_800)
    assert len(tries) == DELIVERY_LIMIT + 1
    (death,) = dead.headers["x-death"]  # type: ignore[misc]
    assert (dead.body, death["reason"]) == (poison, "delivery_limit")  # type: ignore[call-overload,index]


def test_without_a_policy_the_consumer_itself_ends_it(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def handle(app: Flask, tenant_id: UUID, user_id: str | None, body: bytes) -> Any:
        raise RuntimeError("a fault of the service")

    monkeypatch.setattr(consumer_module, "handle", handle)
    monkeypatch.setattr("app.queue_commands.tenant_queue.MAX_DELIVERIES", 2)
    with shop.consuming():
        shop.send(b"poison")
        dead = take(shop.broker.url, DEAD)
    assert dead.headers["x-reason"] == "delivery_limit"
    assert dead.headers["x-detail"] == "RuntimeError: a fault of the service"


def test_the_broker_lets_a_sender_write_for_its_own_tenant_and_under_its_own_name_only(shop: Shop) -> None:
    other, name = make_sender(shop.app, "km"), shop.sender.user_id
    exchange = f"{COMMANDS}.{shop.sender.tenant_id}".replace(".", r"\.")
    shop.broker.control("add_user", name, "secret")
    shop.broker.control("set_permissions", name, "^$", f"^{exchange}$", "^$")
    url = shop.broker.url.replace("://", f"://{name}:secret@")
    with shop.consuming("eur", "km"):
        with pytest.raises(ChannelPreconditionFailed):
            publish(url, shop.sender.tenant_id, other.user_id, [shop.payment("1.00")])
        with pytest.raises(ChannelClosed, match="ACCESS_REFUSED"):
            publish(url, other.tenant_id, name, [shop.payment("2.00")])
        publish(url, shop.sender.tenant_id, name, [shop.payment("4.00")])
        until(lambda: shop.balance() == 9_600)


def test_a_queue_has_one_active_consumer_and_another_takes_over(shop: Shop) -> None:
    with shop.consuming():
        with shop.consuming():
            shop.send(*[shop.payment("1.00") for _ in range(5)])
        shop.send(*[shop.payment("1.00") for _ in range(5)])
        until(lambda: shop.balance() == 9_000)
    assert is_consumed(shop.broker.url, shop.sender.tenant_id)


def test_a_consumer_whose_connection_is_closed_connects_again_and_pays_once(shop: Shop) -> None:
    with shop.consuming():
        shop.send(*[shop.payment("0.10") for _ in range(200)])
        shop.broker.control("close_all_connections", "a test")
        until(lambda: shop.balance() == 8_000)
        shop.send(command("deposit", walletId=shop.wallet_id, amount="1.00"))
        until(lambda: shop.balance() == 8_100)


def dead_letters(url: str) -> int:
    async def count(channel: AbstractChannel) -> int:
        return (await channel.get_queue(DEAD)).declaration_result.message_count or 0

    return int(on_channel(url, count))


def purge_dead_letters(url: str) -> None:
    """Of messages that no test can read."""

    async def purge(channel: AbstractChannel) -> None:
        await (await channel.get_queue(DEAD)).purge()

    on_channel(url, purge)


class RawText(str):
    """Text that is sent as bytes that are not UTF-8."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return b"\xff\xfe"


class RawTime(datetime):
    """A time that is sent as 2^62 seconds."""

    def timestamp(self) -> float:
        return 2**62


POISON: Mapping[str, dict[str, Any]] = {
    "time": {"timestamp": RawTime.now(UTC)},
    "text": {"content_type": RawText("x")},
    "headers": {"headers": {"a": "x" * 130_800}},
}


@pytest.mark.parametrize("name", POISON)
def test_a_message_that_ends_the_connection_stops_its_own_tenant_alone_and_not_for_ever(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Properties that the library can't read, and headers that make a dead letter's frame too large."""
    other = make_sender(shop.app, "km")
    lost: list[str] = []
    monkeypatch.setattr(
        consumer_module.log, "warning", lambda event, **told: lost.append(told["tenant_id"]), raising=False
    )

    async def poison(channel: AbstractChannel) -> None:
        exchange = await channel.get_exchange(f"{COMMANDS}.{other.tenant_id}")
        await exchange.publish(aio_pika.Message(b"{}", user_id=other.user_id, **POISON[name]), "")

    with shop.consuming("eur", "km"):
        on_channel(shop.broker.url, poison)
        if name != "headers":
            until(lambda: bool(lost))
        shop.send(*[shop.payment("1.00") for _ in range(5)])
        until(lambda: shop.balance() == 9_500)
        publish(shop.broker.url, other.tenant_id, other.user_id, [b"after it"])
        until(lambda: dead_letters(shop.broker.url) == 2)
    purge_dead_letters(shop.broker.url)
    assert set(lost) == (set() if name == "headers" else {str(other.tenant_id)})


def test_a_dead_letter_has_no_header_of_the_sender_and_a_bounded_body(shop: Shop) -> None:
    async def send(channel: AbstractChannel) -> None:
        exchange = await channel.get_exchange(f"{COMMANDS}.{shop.sender.tenant_id}")
        headers = {"x-delivery-count": "many", "x-reason": "own", "colour": "red"}
        await exchange.publish(aio_pika.Message(b"x" * 300_000, user_id=shop.sender.user_id, headers=headers), "")

    with shop.consuming():
        on_channel(shop.broker.url, send)
        dead = take(shop.broker.url, DEAD)
    assert (len(dead.body), dead.headers["x-body-bytes"]) == (MAX_BYTES, 300_000)
    assert (dead.headers["x-reason"], "colour" in dead.headers) == ("not_a_command", False)
