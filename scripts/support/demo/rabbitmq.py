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


def login(name: str, password: str, *, configure: str, write: str, read: str) -> dict[str, Any]:
    """The definitions of a user who may do this, each a regular expression of names."""
    rights = {"vhost": "/", "configure": configure, "write": write, "read": read}
    return {
        "vhosts": [{"name": "/"}],
        "users": [{"name": name, "password": password, "tags": ""}],
        "permissions": [{"user": name, **rights}],
    }
