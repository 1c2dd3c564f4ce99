"""Real brokers from Debian's packages, each in a folder of its own, without an init system.

The fixtures start each broker when the first test asks for it, and stop it when the tests end.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from scripts.support.demo.rabbitmq import SERVER, RabbitMQ
from tests.factories.ports import free_port
from tests.factories.processes import is_stopped

REDIS: Final = shutil.which("redis-server")
NATS: Final = shutil.which("nats-server", path="/usr/sbin:/usr/bin:/usr/local/bin")
PATIENCE_SECONDS: Final = 60
GUEST: Final = "guest"
# Of the queues of commands, by a policy as docs/operations.md has it.
DELIVERY_LIMIT: Final = 3

needs_rabbitmq = pytest.mark.skipif(SERVER is None, reason="on Debian: apt install rabbitmq-server")
needs_redis = pytest.mark.skipif(REDIS is None, reason="on Debian: apt install redis-server")
needs_nats = pytest.mark.skipif(NATS is None, reason="on Debian: apt install nats-server")


class Broker:
    """A broker's process and its folder. It can be killed and started again with what it had stored."""

    scheme: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        return {}

    def is_ready(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                env=os.environ | self.environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self.folder / "log").read_text()[-2000:])
            time.sleep(0.05)

    def kill(self) -> None:
        """End it as a power cut does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """It takes connections and bytes, and answers nothing."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not is_stopped(self._process.pid):
                assert time.monotonic() < deadline, "the broker does not stop"
                time.sleep(0.001)
            yield
        finally:
            os.killpg(self._process.pid, signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        """Signal the process and its children: RabbitMQ's start script waits for the server."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            os.killpg(process.pid, number)
            process.wait(PATIENCE_SECONDS)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.is_ready() and time.monotonic() < deadline:
            time.sleep(0.05)


class RedisBroker(Broker):
    scheme = "redis"

    def command(self) -> Sequence[str]:
        durable = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")
        return (str(REDIS), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), *durable)

    def is_ready(self) -> bool:
        try:
            with redis.Redis(port=self.port, retry=Retry(NoBackoff(), 0)) as client:
                return bool(client.ping())
        except redis.ConnectionError:  # Also while it loads what it has stored.
            return False


class NatsBroker(Broker):
    scheme = "nats"

    def command(self) -> Sequence[str]:
        return (str(NATS), "-js", "-sd", str(self.folder / "data"), "-a", "127.0.0.1", "-p", str(self.port))


class RabbitBroker(Broker):
    """Its epmd is a process of its own, so that none is left behind. `guest` is an administrator and an impersonator,
    who may publish under any `user-id`; other users are those of `users`.
    """

    scheme = "amqp"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._own = RabbitMQ(folder, self.port, epmd_port=free_port(), dist_port=free_port())
        self._epmd: subprocess.Popen[bytes] | None = None
        self._own.configure(self._definitions())

    def command(self) -> Sequence[str]:
        return self._own.command

    def environment(self) -> Mapping[str, str]:
        return self._own.environment

    def start(self) -> None:
        if self._epmd is None:
            self._epmd = subprocess.Popen(self._own.epmd_command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        super().start()

    def stop(self) -> None:
        super().stop()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()

    def control(self, *arguments: str) -> str:
        """`rabbitmqctl`; each call starts an Erlang machine and takes a second or two."""
        command = (self._own.control, *arguments)
        ran = subprocess.run(command, env=os.environ | self.environment(), capture_output=True, text=True, check=True)
        return ran.stdout

    def _definitions(self) -> dict[str, Any]:
        every = {"vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}
        return {
            "vhosts": [{"name": "/"}],
            "users": [{"name": GUEST, "password": GUEST, "tags": "administrator,impersonator"}],
            "permissions": [{"user": GUEST, **every}],
            "policies": [
                {
                    **{"vhost": "/", "name": "wallet-commands", "apply-to": "queues"},
                    "pattern": r"^wallet\.commands\.[0-9a-f-]{36}$",
                    "definition": {"delivery-limit": DELIVERY_LIMIT},
                }
            ],
        }


def _running(broker: Broker) -> Iterator[Any]:
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


@pytest.fixture(scope="session")
def rabbit_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitBroker]:
    """A RabbitMQ that tests share: each has queues of its own."""
    yield from _running(RabbitBroker(tmp_path_factory.mktemp("rabbitmq")))


@pytest.fixture(scope="session")
def redis_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisBroker]:
    """A Redis that tests share: each has tenants of its own."""
    yield from _running(RedisBroker(tmp_path_factory.mktemp("redis")))


@pytest.fixture(scope="session")
def nats_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsBroker]:
    """A NATS server with JetStream that tests share: each has tenants of its own."""
    yield from _running(NatsBroker(tmp_path_factory.mktemp("nats")))
