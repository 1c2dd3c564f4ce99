"""Serve the API with gunicorn. `make run` runs this.

Without DATABASE_URL it first starts the embedded PostgreSQL server, migrates it, provisions the tenants eur and km and
creates demo data; then it starts a relay (`python -m scripts.relay`) too, and prints the address and commands to try.
With DATABASE_URL it only serves. Ctrl-C finishes running requests, then stops gunicorn, the relay and the embedded
server.

With --streams the process has room for 300 event streams in each worker, and is meant for these only: a gateway sends
it the paths that end in /events and /events/stream.

Examples:
    python -m scripts.serve --port 8080
    python -m scripts.serve --port 8081 --workers 1 --streams

Exit codes: gunicorn's own (0 after Ctrl-C); 1 the embedded server could not be migrated; 2 bad arguments or settings,
or the port is in use.
"""

import ctypes
import fcntl
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO
from urllib.error import URLError
from urllib.request import urlopen

import rich_click as click

from app.config import DEFAULT_CONCURRENCY, ROOT, Settings, data_dir, embedded_server
from app.db import admin_engine
from app.tenancy import MIGRATIONS
from scripts.create_roles import create_roles
from scripts.seed_demo import TENANTS, demo_password, seed
from scripts.support.console import BAD_ARGUMENTS, FAILED, exit_with, settings_or_exit
from scripts.support.script import Script
from tenant_schemas.lifecycle.provision import provision
from tenant_schemas.migrations.runner import migrate
from tenant_schemas.registry import all_tenants, change_settings

HOST = "127.0.0.1"
THREADS = 128
STREAMS = 300
READY_SECONDS = 30
STOP_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
PR_SET_PDEATHSIG = 1  # prctl(2)
DRAIN_SECONDS = 30


@click.command(cls=Script, help=__doc__)
@click.option("--host", default=HOST, show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    envvar="PORT",
    show_envvar=True,
    type=click.IntRange(1, 65535),
    default=8000,
    show_default=True,
    help="Port to listen on.",
)
@click.option(
    "--workers",
    envvar="WEB_WORKERS",
    show_envvar=True,
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Worker processes.",
)
@click.option(
    "--threads",
    envvar="WEB_THREADS",
    show_envvar=True,
    type=click.IntRange(1),
    default=THREADS,
    show_default=True,
    help="Threads of each worker process. Few of them run at once (REQUEST_CONCURRENCY); the others wait.",
)
@click.option("--streams", is_flag=True, help=f"Hold up to {STREAMS} event streams in each worker (EVENT_STREAMS).")
def main(*, host: str, port: int, workers: int, threads: int, streams: bool) -> None:
    refuse_taken_port(host, port, "PORT")
    settings = settings_or_exit()
    if settings.metrics_port == port:
        exit_with(f"METRICS_PORT and PORT are both {port}. Set METRICS_PORT to another port.", BAD_ARGUMENTS)
    if settings.metrics_port:
        refuse_taken_port(host, settings.metrics_port, "METRICS_PORT")
    if settings.is_embedded:
        prepare(settings)
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    defaults = _mail_folder(settings)
    if streams:
        threads, defaults = threads + STREAMS, {**defaults, "EVENT_STREAMS": str(STREAMS)}
    server = start_gunicorn(host, port, workers, threads, defaults=defaults, metrics_port=settings.metrics_port)
    relay = _start_relay() if settings.is_embedded and not streams else None
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: server.terminate())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    if wait_until_ready(server, host, port) and settings.is_embedded:
        for folder in _mail_folder(settings).values():
            print(f"Mails to users are written to {folder}")
        _print_commands_to_try(f"http://{host}:{port}")
    status = server.wait()
    if relay is not None:
        relay.terminate()
        relay.wait()
    sys.exit(status)


@contextmanager
def _preparation_lock() -> Iterator[None]:
    """A file lock: two runs on one data folder prepare it one after the other."""
    with (data_dir() / "prepare.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def prepare(settings: Settings) -> None:
    """Prepare an embedded server: create roles, migrate, provision the demo tenants and seed them. A step that was done
    before is skipped. Exits 1 if it can't be migrated.
    """
    with _preparation_lock():
        _prepare(settings)


def _prepare(settings: Settings) -> None:
    create_roles(embedded_server(data_dir()).superuser_url(), settings)
    engine = admin_engine(settings.admin_database_url)
    failed = [outcome for outcome in migrate(engine, MIGRATIONS) if outcome.has_failed]
    if failed:
        exit_with("\n".join(f"{outcome.schema_name}: {outcome.error}" for outcome in failed), FAILED)
    with engine.begin() as connection:
        existing = {tenant.slug: tenant for tenant in all_tenants(connection)}
        for slug in existing.keys() & TENANTS.keys():  # An older version may have provisioned them with fewer settings.
            tenant = existing[slug]
            missing = {name: value for name, value in TENANTS[slug].items() if name not in tenant.settings}
            change_settings(connection, tenant.id, missing)
    if not existing:  # If there are tenants, the demo's may have been renamed or dropped on purpose.
        for slug, tenant_settings in TENANTS.items():
            provision(
                engine,
                MIGRATIONS,
                slug=slug,
                name=f"Demo {tenant_settings['currency']}",
                settings=tenant_settings,
                tenant_secret=settings.tenant_secret,
            )
    if not existing or existing.keys() >= TENANTS.keys():
        seed(settings)


def refuse_taken_port(host: str, port: int, variable: str) -> None:
    """Exit 2 if no process can listen there now. `variable` is the setting to change."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            fault = f"Can't listen on {host}:{port}: {error.strerror}"
            exit_with(f"{fault}. Set {variable} to another port.", BAD_ARGUMENTS)


def start_gunicorn(
    host: str,
    port: int,
    workers: int,
    threads: int,
    log: IO[bytes] | None = None,
    *,
    defaults: dict[str, str] | None = None,
    metrics_port: int = 0,
) -> subprocess.Popen[bytes]:
    """Start gunicorn, with `defaults` for settings that the environment does not have. It has its own session, so that
    Ctrl-C reaches this process only, which sends gunicorn SIGTERM: drain and stop.
    """
    ports = [port, metrics_port] if metrics_port else [port]
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "gunicorn", "wsgi:app"),
            *(option for each in ports for option in ("--bind", f"{host}:{each}")),
            *("--worker-class", "app.gunicorn_worker.BufferedWorker"),
            *("--workers", str(workers), "--threads", str(threads)),
            # At other log levels gunicorn logs header lines of requests, which may contain a token.
            *("--graceful-timeout", str(DRAIN_SECONDS), "--log-level", "error"),
        ],
        cwd=ROOT,
        env=request_settings(threads) | (defaults or {}) | os.environ,
        stdout=log,
        start_new_session=True,
        preexec_fn=stop_with_parent,  # noqa: PLW1509  No thread runs yet.
    )


def _start_relay() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.relay"],
        cwd=ROOT,
        start_new_session=True,
        preexec_fn=stop_with_parent,  # noqa: PLW1509  No thread runs yet.
    )


def request_settings(threads: int) -> dict[str, str]:
    """How many requests of a worker run and wait at once. A waiting request holds a thread, so an eighth of the threads
    stays free for requests that do neither yet.
    """
    running = max(1, min(threads // 2, DEFAULT_CONCURRENCY))
    return {"REQUEST_CONCURRENCY": str(running), "REQUEST_QUEUE": str(max(0, threads - running - threads // 8))}


def stop_with_parent() -> None:
    """In the child: unblock the signals, and (on Linux) get SIGTERM if the parent is killed."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def wait_until_ready(server: subprocess.Popen[bytes], host: str, port: int) -> bool:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urlopen(f"http://{host}:{port}/readyz", timeout=5):
                return True
        except (URLError, OSError):
            time.sleep(0.1)
    return False


def _mail_folder(settings: Settings) -> dict[str, str]:
    """Where the demo's mails go, if no setting says so."""
    is_open = settings.is_embedded and not settings.smtp_url and not settings.mail_folder
    return {"MAIL_FOLDER": str(data_dir() / "mail")} if is_open else {}


def _print_commands_to_try(url: str) -> None:
    body = shlex.quote(json.dumps({"email": "member@example.com", "password": demo_password()}))
    extract = "python3 -c 'import json, sys; print(json.load(sys.stdin)[\"accessToken\"])'"
    print(
        f"""
Serving {url} with the tenants eur and km. API documentation: {url}/docs
Try these commands in another shell (Ctrl-C here stops both servers):

TOKEN=$(curl -s {url}/api/auth/login -H 'Content-Type: application/json' -d {body} | {extract})
curl -s {url}/api/wallet -H "Authorization: Bearer $TOKEN" -H 'X-Tenant: eur'
curl -s {url}/api/km/wallet/payments -H "Authorization: Bearer $TOKEN" -H "Idempotency-Key: $(date +%s)" """
        """-H 'Content-Type: application/json' -d '{"amount": "1.50"}'
""",
        flush=True,
    )


if __name__ == "__main__":
    main()
