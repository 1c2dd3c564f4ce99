"""`python -m scripts.relay` as a process: it says what it lacks, shows its metrics, and drains before it ends."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from time import monotonic, sleep
from urllib.request import urlopen
from uuid import UUID

import pytest
import redis
from flask import Flask

from app.brokers.publisher import EVENTS
from app.ledger.service import post
from app.webhooks.addresses import AddressRules
from app.webhooks.sender import Sender
from tenant_schemas.testing.plugin import Database
from tests.factories.brokers import RedisBroker, needs_redis
from tests.factories.feed import in_tenant, movement
from tests.factories.hooked import Hooked, hooked_tenant
from tests.factories.ports import free_port
from tests.factories.script_runner import Run, environment
from tests.factories.webhooks import HOST, consumer_of_webhooks

PATIENCE_SECONDS = 20


@contextmanager
def relay(database: Database, broker: RedisBroker, metrics_port: int) -> Iterator[subprocess.Popen[bytes]]:
    variables = environment(database) | {
        "RELAY_DATABASE_URL": database.url(database.roles.relay),
        "BROKER_URL": broker.url,
        "WEBHOOK_ALLOW_HTTP": "true",
        "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
    }
    command = [sys.executable, "-m", "scripts.relay", "--metrics-port", str(metrics_port)]
    with subprocess.Popen(command, env=os.environ | variables, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = monotonic() + PATIENCE_SECONDS
    while not holds():
        assert monotonic() < deadline
        sleep(0.05)


class HangingEndpoint:
    """A server that takes connections and never answers, until it is closed."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.setblocking(False)
        self._taken: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}/hook"

    def was_asked(self) -> bool:
        with suppress(BlockingIOError):
            self._taken.append(self._server.accept()[0])
        return bool(self._taken)

    def close(self) -> None:
        for each in (self._server, *self._taken):
            each.close()


@pytest.fixture
def hanging() -> Iterator[HangingEndpoint]:
    with closing(HangingEndpoint()) as endpoint:
        yield endpoint


@pytest.fixture
def hooked(fresh_app: Flask, fresh_database: Database) -> Iterator[Hooked]:
    sender = Sender(AddressRules.of(["127.0.0.0/8"], allow_http=True))
    with hooked_tenant(fresh_app, fresh_database, sender) as hooked:
        yield hooked


def in_stream(broker: RedisBroker, hooked: Hooked) -> int:
    """How many events the broker has of the tenant."""
    tenant_id = hooked.database.tenant(hooked.slug).id
    with redis.Redis(port=broker.port) as client:
        return int(client.xlen(f"{EVENTS}:{tenant_id}"))


def pay(hooked: Hooked, wallet_id: UUID) -> None:
    with in_tenant(hooked.app, hooked.slug):
        post(wallet_id, movement("payment", 1))


def test_without_its_login_it_exits_2_and_says_which(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RELAY_DATABASE_URL", raising=False)
    done = run("relay")
    assert done.exit_code == 2
    assert "RELAY_DATABASE_URL is not set" in done.output


def test_without_the_library_of_the_broker_it_exits_2_and_says_which(
    run: Run, fresh_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELAY_DATABASE_URL", fresh_database.url(fresh_database.roles.relay))
    monkeypatch.setenv("BROKER_URL", "amqp://mq.example")
    for module in ("aio_pika", "app.brokers.rabbitmq"):
        monkeypatch.setitem(sys.modules, module, None)
    done = run("relay")
    assert done.exit_code == 2
    assert "schema-wallet[rabbitmq]" in done.output


def test_with_a_taken_port_for_metrics_it_exits_2(
    run: Run, fresh_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELAY_DATABASE_URL", fresh_database.url(fresh_database.roles.relay))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("relay", "--metrics-port", str(port))
    assert done.exit_code == 2
    assert f"port {port}" in done.output


@needs_redis
def test_an_endpoint_that_hangs_delays_nothing_else_and_the_end_only_until_it_has_answered(
    hooked: Hooked, hanging: HangingEndpoint, redis_broker: RedisBroker
) -> None:
    """The tenant's own events are numbered and published, and the other tenant's are delivered too."""
    other, port = Hooked(hooked.app, hooked.database, "km"), free_port()
    wallet_id, other_wallet_id = hooked.wallet(), other.wallet()
    webhook_id = hooked.webhook(hanging.url)
    with consumer_of_webhooks(None) as consumer, relay(hooked.database, redis_broker, port) as process:
        other.webhook(consumer.url(host=HOST))
        pay(hooked, wallet_id)
        wait_until(hanging.was_asked)
        pay(hooked, wallet_id)
        pay(other, other_wallet_id)
        wait_until(lambda: len(consumer.received) == 1)
        wait_until(lambda: (in_stream(redis_broker, hooked), in_stream(redis_broker, other)) == (4, 3))
        with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            assert b"\nwallet_events_stamped_total 3.0\n" in answer.read()
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        hanging.close()
        assert process.wait(PATIENCE_SECONDS) == 0
    assert hooked.rows("SELECT endpoint_id, outcome FROM webhook_attempts") == [(webhook_id, "failed")]
    assert hooked.rows("SELECT count(*) FROM webhook_endpoints WHERE lease_until > clock_timestamp()") == [(0,)]
