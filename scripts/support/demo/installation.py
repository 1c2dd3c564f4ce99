"""The whole installation of the demo in one folder: which processes, with which settings, in which order."""

import json
import os
import secrets
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from urllib.error import URLError
from urllib.request import urlopen

from argon2 import PasswordHasher

from scripts.build_clients import build_python
from scripts.seed_demo import PEOPLE
from scripts.support.api_description import api_description
from scripts.support.demo.admin import log_in
from scripts.support.demo.nginx import NGINX, gateway, nginx_command
from scripts.support.demo.processes import Processes
from scripts.support.demo.rabbitmq import EPMD, SERVER, RabbitMQ, has_exchange, service_definitions, wallet_definitions

TENANT = "eur"
AUDIENCE = "standin"
QUEUE = "standin"  # Of events, as deploy/standin/rabbitmq.py declares it too.
PYTHON = (sys.executable, "-m")
WALLET = (
    "wallet"  # The name and the password of the wallet's own login at the broker, which this machine alone reaches.
)
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
        self._start_database_and_broker()
        self._start_service()
        self._start_standin()
        self._start_gateway()

    def _start_database_and_broker(self) -> None:
        """Nothing waits for the broker here: it takes the longest to be ready."""
        run, broker, given = self.processes.start, self.broker, self.folder / "settings.json"
        run("database", (*PYTHON, "scripts.support.demo.database", given))
        broker.configure(wallet_definitions(WALLET, WALLET))
        run("epmd", broker.epmd_command)
        run("rabbitmq", broker.command, more=broker.environment)
        self._build_client()
        self.processes.wait_until(given.exists, "database")
        self.processes.environment |= json.loads(given.read_text())

    def _start_service(self) -> None:
        self._serve("service")
        self._serve("streams", "--streams")
        self.processes.wait_until(partial(is_ready, self.ports["service"]), "service")

    def _start_standin(self) -> None:
        """With what the tenant's admin and the broker's operator give to a service: a webhook, an API key, a login."""
        admin = log_in(self.ports["service"], TENANT, self.password)
        secret, key_id = admin.make_webhook(f"{self._local('standin')}/webhooks/wallet"), admin.make_api_key()
        # Not earlier: it would find no API key yet, and look again after a pause.
        self.processes.start("commands", (*PYTHON, "scripts.commands"))
        folder = self.folder / "standin"
        folder.mkdir()
        own = {
            "PYTHONPATH": str(self.folder / "client"),
            "STANDIN_DATA": str(folder),
            "STANDIN_ISSUER": self.url,
            "STANDIN_USERS": json.dumps(dict.fromkeys(PEOPLE, PasswordHasher().hash(self.password))),
            "WALLET_URL": self._local("service"),
            "WALLET_TENANT": TENANT,
            "WALLET_TENANT_ID": admin.tenant_id,
            "WALLET_AUDIENCE": AUDIENCE,
            "WALLET_WEBHOOK_SECRET": secret,
            "WALLET_BROKER_URL": self._make_broker_login(f"wk_{key_id.hex}", admin.tenant_id),
        }
        self.processes.start("relay", (*PYTHON, "scripts.relay"))
        self.processes.start("standin", (*PYTHON, "deploy.standin", "--port", str(self.ports["standin"])), more=own)
        self.processes.wait_until(partial(listens, self.ports["standin"]), "standin")
        self.processes.wait_until(partial(is_ready, self.ports["streams"]), "streams")
        commands = f"wallet.commands.{admin.tenant_id}"
        self.processes.wait_until(partial(has_exchange, self.broker.url(WALLET, WALLET), commands), "commands")

    def _make_broker_login(self, name: str, tenant_id: str) -> str:
        """What the broker's operator gives to a service. Returns the URL."""
        password, file = secrets.token_urlsafe(), self.folder / "login.json"
        file.write_text(json.dumps(service_definitions(name, password, tenant_id=tenant_id, queue=QUEUE)))
        self.processes.wait_until(partial(listens, self.ports["rabbitmq"]), "rabbitmq")
        command = (self.broker.control, "import_definitions", str(file))
        subprocess.run(
            command, env={**self.processes.environment, **self.broker.environment}, check=True, capture_output=True
        )
        return self.broker.url(name, password)

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
        "BROKER_URL": broker.url(WALLET, WALLET),
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


def free_ports(count: int) -> list[int]:
    """Ports that no process listens on now."""
    with ExitStack() as open_at_once:
        probes = [open_at_once.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
