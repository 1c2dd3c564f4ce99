"""RabbitMQ from Debian's package, in a folder of its own, without an init system and without the wrapper in /usr/sbin,
which changes the user. Its epmd is a process of its own; RabbitMQ would start one that stays behind.
"""

import asyncio
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aio_pika
from aio_pika.exceptions import AMQPException

SERVER = next(iter(sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server"))), None)
EPMD = shutil.which("epmd")
MAX_MESSAGE_BYTES = 1 << 20
# A full queue of commands refuses its senders; the dead letters of all tenants lose the oldest.
COMMANDS_BOUND = {"delivery-limit": 20, "max-length-bytes": 100_000_000, "overflow": "reject-publish"}
DEAD_BOUND = {"max-length-bytes": 1_000_000_000, "overflow": "drop-head"}


@dataclass(frozen=True, slots=True)
class RabbitMQ:
    """A broker that is configured in `folder`, and not yet started."""

    folder: Path
    port: int
    epmd_port: int
    dist_port: int

    def url(self, user: str, password: str) -> str:
        return f"amqp://{user}:{password}@127.0.0.1:{self.port}/"

    @property
    def epmd_command(self) -> tuple[str, ...]:
        return (str(EPMD), "-address", "127.0.0.1", "-port", str(self.epmd_port))

    @property
    def command(self) -> tuple[str, ...]:
        return (str(SERVER),)

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(self.epmd_port),
            "RABBITMQ_NODENAME": f"wallet{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self.dist_port),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            # One scheduler, which sleeps when it has no work: the machine has few cores.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
        }

    @property
    def control(self) -> str:
        """The program that controls the running broker; it needs the environment too."""
        return str(SERVER and SERVER.with_name("rabbitmqctl"))

    def configure(self, definitions: Mapping[str, Any]) -> None:
        """Write the files of its configuration."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "enabled_plugins").write_text("[].\n")
        (self.folder / "definitions.json").write_text(json.dumps(definitions))
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            f"load_definitions = {self.folder}/definitions.json\n"
            "loopback_users = none\n"
            "disk_free_limit.absolute = 1MB\n"
            f"max_message_size = {MAX_MESSAGE_BYTES}\n"
            "log.console = true\nlog.console.level = warning\n"
        )


def has_exchange(url: str, name: str) -> bool:
    """Whether the broker at this URL has an exchange of this name."""

    async def ask() -> None:
        async with await aio_pika.connect(url) as connection:
            await (await connection.channel()).get_exchange(name)

    try:
        asyncio.run(ask())
    except (AMQPException, OSError):
        return False
    return True


def wallet_definitions(name: str, password: str) -> dict[str, Any]:
    """What the broker begins with: the wallet's own login, and a queue for the events of tenants that have no other.
    Without it, RabbitMQ would return them, and the relay would wait.
    """
    unrouted = "wallet.events.unrouted"
    bounded = {"x-max-length": 10_000}
    return {
        "vhosts": [{"name": "/"}],
        "users": [{"name": name, "password": password, "tags": ""}],
        "permissions": [{"user": name, "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}],
        "exchanges": [
            _exchange("wallet.events", "topic", {"alternate-exchange": unrouted}),
            _exchange(unrouted, "fanout"),
        ],
        "queues": [_queue(unrouted, bounded)],
        "bindings": [_binding(unrouted, unrouted, "")],
        "policies": [
            _policy("wallet-commands", r"^wallet\.commands\.[0-9a-f-]{36}$", COMMANDS_BOUND),
            _policy("wallet-commands-dead", r"^wallet\.commands\.dead$", DEAD_BOUND),
        ],
    }


def service_definitions(name: str, password: str, *, tenant_id: str, queue: str) -> dict[str, Any]:
    """A login that may read its tenant's events alone, in a queue of its own, and write commands of this tenant."""
    own = {"user": name, "vhost": "/"}
    write, read = rf"^({queue}|wallet\.commands\.{tenant_id})$", rf"^({queue}|wallet\.events)$"
    arguments = {"x-queue-type": "quorum", "x-single-active-consumer": True, "x-delivery-limit": 1_000_000}
    return {
        "users": [{"name": name, "password": password, "tags": ""}],
        "permissions": [{**own, "configure": f"^{queue}$", "write": write, "read": read}],
        "topic_permissions": [{**own, "exchange": "wallet.events", "write": "^$", "read": rf"^{tenant_id}\."}],
        "queues": [_queue(queue, arguments)],
        "bindings": [_binding("wallet.events", queue, f"{tenant_id}.#")],
    }


def _exchange(name: str, kind: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
    lasting = {"durable": True, "auto_delete": False, "internal": False}
    return {"name": name, "vhost": "/", "type": kind, **lasting, "arguments": arguments or {}}


def _queue(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "vhost": "/", "durable": True, "auto_delete": False, "arguments": arguments}


def _binding(exchange: str, queue: str, key: str) -> dict[str, Any]:
    to = {"destination": queue, "destination_type": "queue", "routing_key": key}
    return {"source": exchange, "vhost": "/", **to, "arguments": {}}


def _policy(name: str, pattern: str, definition: Mapping[str, Any]) -> dict[str, Any]:
    return {"vhost": "/", "name": name, "pattern": pattern, "apply-to": "queues", "definition": dict(definition)}
