"""The whole installation of the demo in one folder: which processes, with which settings, in which order."""

import json
import os
import socket
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, cast
from urllib.error import URLError
from urllib.request import Request, urlopen

from argon2 import PasswordHasher

from scripts.build_clients import build_python
from scripts.seed_demo import PEOPLE
from scripts.support.api_description import api_description
from scripts.support.demo.nginx import NGINX, gateway, nginx_command
from scripts.support.demo.processes import Processes
from scripts.support.demo.rabbitmq import EPMD, SERVER, RabbitMQ, definitions

TENANT = "eur"
AUDIENCE = "standin"
PYTHON = (sys.executable, "-m")
# Names and passwords of the broker's users. The broker listens on this machine only.
BROKER_USERS = {"wallet": "wallet", "standin": "standin"}
# What the processes keep of the environment: no setting, so that the demo is the same everywhere.
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE")


def missing_packages() -> list[str]:
    """Debian's packages that the demo needs and that are not installed."""
    needed = {"nginx-light": NGINX, "rabbitmq-server": SERVER and EPMD}
    return [name for name, program in needed.items() if not program]


@dataclass(slots=True)
class Installation:
    """Everything lies in `folder`. `port` is the gateway's, the only one that a user of the demo needs."""

    folder: Path
    port: int
    password: str
    processes: Processes
    ports: dict[str, int]
    broker: RabbitMQ

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def start(self) -> None:
        """Start all processes, and wait until they are ready. Raises Stopped, or Failed."""
        self._start_broker()
        self._start_service()
        self._start_workers()
        self._start_standin()
        self._start_gateway()

    def _start_broker(self) -> None:
        """It takes the longest to be ready, and nothing waits for it here."""
        run, broker = self.processes.start, self.broker
        broker.configure(definitions(BROKER_USERS))
        run("epmd", broker.epmd_command)
        run("rabbitmq", broker.command, more=broker.environment)

    def _start_service(self) -> None:
        """It makes the database, the tenants and the demo's people; the other processes need them."""
        self._serve("service")
        self._build_client()
        self.processes.wait_until(partial(is_ready, self.ports["service"]), "service")

    def _start_workers(self) -> None:
        run = self.processes.start
        self._serve("streams", "--streams")
        run("relay", (*PYTHON, "scripts.relay"))
        run("commands", (*PYTHON, "scripts.commands"))
        self.processes.wait_until(partial(is_ready, self.ports["streams"]), "streams")
        self.processes.wait_until(partial(listens, self.ports["rabbitmq"]), "rabbitmq")

    def _start_standin(self) -> None:
        folder = self.folder / "standin"
        folder.mkdir()
        own = {
            "PYTHONPATH": str(self.folder / "client"),
            "STANDIN_DATA": str(folder),
            "STANDIN_ISSUER": self.url,
            "STANDIN_USERS": json.dumps(dict.fromkeys(PEOPLE, PasswordHasher().hash(self.password))),
            "WALLET_URL": self._local("service"),
            "WALLET_TENANT": TENANT,
            "WALLET_AUDIENCE": AUDIENCE,
            "WALLET_WEBHOOK_SECRET": self._make_webhook(),
            "WALLET_BROKER_URL": self.broker.url("standin", BROKER_USERS["standin"]),
        }
        self.processes.start("standin", (*PYTHON, "deploy.standin", "--port", str(self.ports["standin"])), more=own)
        self.processes.wait_until(partial(listens, self.ports["standin"]), "standin")

    def _start_gateway(self) -> None:
        service, streams, main = (f"127.0.0.1:{self.ports[name]}" for name in ("service", "streams", "standin"))
        log = self.folder / "access.log"
        http = gateway(listen=f"127.0.0.1:{self.port}", service=[service], streams=[streams], main=[main], log=log)
        self.processes.start("gateway", nginx_command(self.folder / "nginx", http))
        self.processes.wait_until(partial(listens, self.port), "gateway")

    def _serve(self, name: str, *options: str) -> None:
        port = str(self.ports[name])
        self.processes.start(name, (*PYTHON, "scripts.serve", "--port", port, "--workers", "1", *options))

    def _build_client(self) -> None:
        """The typed client, as `make clients` makes it."""
        description = self.folder / "openapi.json"
        description.write_bytes(api_description())
        build_python(description, self.folder / "client")

    def _make_webhook(self) -> str:
        """An endpoint for the stand-in, made by the tenant's admin. Returns its secret."""
        port = self.ports["service"]
        admin = {"email": "admin@example.com", "password": self.password}
        token = post(port, "/api/auth/login", admin)["accessToken"]
        target = {"url": f"{self._local('standin')}/webhooks/wallet"}
        made = post(port, f"/api/{TENANT}/admin/webhooks", target, Authorization=f"Bearer {token}")
        return str(made["secret"])

    def _local(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"


def installation(folder: Path, port: int, password: str, stop: Event) -> Installation:
    """An installation that is not yet started. Setting `stop` ends its start."""
    names = ("service", "streams", "standin", "rabbitmq", "epmd", "distribution")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    broker = RabbitMQ(folder / "rabbitmq", ports["rabbitmq"], ports["epmd"], ports["distribution"])
    own = {
        "DATA_DIR": str(folder / "data"),
        "DEMO_PASSWORD": password,
        "BROKER_URL": broker.url("wallet", BROKER_USERS["wallet"]),
        "OIDC_ISSUER": f"http://localhost:{port}",
        "OIDC_AUDIENCE": AUDIENCE,
        "TRUSTED_PROXIES": "1",
        "WEBHOOK_ALLOW_HTTP": "true",
        "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
        "LOG_LEVEL": "warning",
    }
    kept = {name: value for name, value in os.environ.items() if name in KEPT}
    return Installation(folder, port, password, Processes(folder, kept | own, stop), ports, broker)


def is_ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            return True
    except (URLError, OSError):
        return False


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def post(port: int, path: str, body: dict[str, str], **headers: str) -> dict[str, Any]:
    sent = {"Content-Type": "application/json", **headers}
    request = Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), sent)
    with urlopen(request, timeout=30) as answer:  # noqa: S310  The scheme is in the line above.
        return cast(dict[str, Any], json.load(answer))


def free_ports(count: int) -> list[int]:
    """Ports that no process listens on now."""
    with ExitStack() as open_at_once:
        probes = [open_at_once.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
