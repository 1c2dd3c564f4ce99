"""Serve the API with gunicorn: what `make run` does.

With no DATABASE_URL it first starts the embedded PostgreSQL, migrates it, provisions `eur` and `km` and seeds demo
data. With DATABASE_URL it only serves. Ctrl-C lets running requests end, then stops both servers.
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
from urllib.error import URLError
from urllib.request import urlopen

import rich_click as click

from app.config import ROOT, Settings, data_dir, embedded_server
from app.db import admin_engine
from app.tenancy import MIGRATIONS
from scripts.create_roles import create_roles
from scripts.seed_demo import TENANTS, demo_password, seed
from scripts.support.console import BAD_ARGUMENTS, FAILED, settings_or_exit, stop
from tenant_schemas.lifecycle.provision import provision
from tenant_schemas.migrations.runner import migrate
from tenant_schemas.registry import all_tenants, change_settings

HOST = "127.0.0.1"
READY_SECONDS = 30
PR_SET_PDEATHSIG = 1  # prctl(2)
DRAIN_SECONDS = 30


@click.command(help=__doc__)
@click.option("--host", default=HOST, show_default=True, help="The address to listen on.")
@click.option("--port", envvar="PORT", type=click.IntRange(1, 65535), default=8000, show_default=True)
@click.option("--workers", envvar="WEB_WORKERS", type=click.IntRange(1), default=2, show_default=True)
@click.option("--threads", envvar="WEB_THREADS", type=click.IntRange(1), default=4, show_default=True)
def main(host: str, port: int, workers: int, threads: int) -> None:
    _refuse_taken_port(host, port)
    settings = settings_or_exit()
    if settings.is_embedded:
        with _alone():
            _prepare(settings)
    stop_signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals)
    server = _start_gunicorn(host, port, workers, threads)
    for number in stop_signals:
        signal.signal(number, lambda *_: server.terminate())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stop_signals)
    if _wait_until_ready(server, host, port) and settings.is_embedded:
        _print_what_to_try(f"http://{host}:{port}")
    sys.exit(server.wait())


@contextmanager
def _alone() -> Iterator[None]:
    """Two runs on one folder prepare it one after the other."""
    with (data_dir() / "prepare.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _prepare(settings: Settings) -> None:
    """Bring the embedded server to where the demo can be served; every step is skipped if it was done."""
    create_roles(embedded_server(data_dir()).superuser_url(), settings)
    engine = admin_engine(settings.admin_database_url)
    failed = [outcome for outcome in migrate(engine, MIGRATIONS) if outcome.has_failed]
    if failed:
        stop("\n".join(f"{outcome.schema_name}: {outcome.error}" for outcome in failed), FAILED)
    with engine.begin() as connection:
        known = {tenant.slug: tenant for tenant in all_tenants(connection)}
        for slug in known.keys() & TENANTS.keys():  # The demo's settings grow, and an older run made the tenants.
            tenant = known[slug]
            missing = {name: value for name, value in TENANTS[slug].items() if name not in tenant.settings}
            change_settings(connection, tenant.id, missing)
    if not known:  # Once there are tenants, they may have been renamed or dropped since.
        for slug, told in TENANTS.items():
            provision(
                engine,
                MIGRATIONS,
                slug=slug,
                name=f"Demo {told['currency']}",
                settings=told,
                tenant_secret=settings.tenant_secret,
            )
    if not known or known.keys() >= TENANTS.keys():
        seed(settings)


def _refuse_taken_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            stop(f"Can't listen on {host}:{port}: {error.strerror}. Set PORT to another one.", BAD_ARGUMENTS)


def _start_gunicorn(host: str, port: int, workers: int, threads: int) -> subprocess.Popen[bytes]:
    """In a session of its own, so that Ctrl-C reaches it once, through us, as «drain and stop»."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "gunicorn", "wsgi:app", "--bind", f"{host}:{port}"),
            *("--worker-class", "gthread", "--workers", str(workers), "--threads", str(threads)),
            # Below «error» gunicorn logs header lines as they came, and there may be a token in one.
            *("--graceful-timeout", str(DRAIN_SECONDS), "--log-level", "error"),
        ],
        cwd=ROOT,
        # Half of the threads are always there for the other tenants.
        env={"TENANT_CONCURRENCY": str(max(1, threads // 2))} | os.environ,
        start_new_session=True,
        preexec_fn=_stop_with_parent,  # noqa: PLW1509  No thread runs yet.
    )


def _stop_with_parent() -> None:
    """In the child: take signals as usual, and (on Linux) be told to stop if the parent is killed."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_until_ready(server: subprocess.Popen[bytes], host: str, port: int) -> bool:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urlopen(f"http://{host}:{port}/readyz", timeout=5):
                return True
        except (URLError, OSError):
            time.sleep(0.1)
    return False


def _print_what_to_try(url: str) -> None:
    body = shlex.quote(json.dumps({"email": "member@example.com", "password": demo_password()}))
    pick = "python3 -c 'import json, sys; print(json.load(sys.stdin)[\"accessToken\"])'"
    print(
        f"""
Serving {url} with the tenants eur and km; the API's page is {url}/docs
Try these in another shell (Ctrl-C here stops both servers):

TOKEN=$(curl -s {url}/api/auth/login -H 'Content-Type: application/json' -d {body} | {pick})
curl -s {url}/api/wallet -H "Authorization: Bearer $TOKEN" -H 'X-Tenant: eur'
curl -s {url}/api/km/wallet/payments -H "Authorization: Bearer $TOKEN" -H "Idempotency-Key: $(date +%s)" """
        """-H 'Content-Type: application/json' -d '{"amount": "1.50"}'
""",
        flush=True,
    )


if __name__ == "__main__":
    main()
