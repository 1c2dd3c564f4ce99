"""/metrics: who may read it, and that the figures of all workers are added up, also when one was killed."""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from flask import Flask
from werkzeug.test import Client, EnvironBuilder, run_wsgi_app

from app import create_app
from app.metrics.endpoint import serve_metrics
from tenant_schemas.testing.plugin import Database
from tests.conftest import settings_for
from tests.factories.served import free_port, served

TOKEN = "a-token-for-metrics"
WITH_TOKEN = {"Authorization": f"Bearer {TOKEN}"}
OWN_PORT = "http://wallet.example:9100"


@pytest.fixture(scope="module")
def app_with_port(database: Database) -> Flask:
    return create_app(settings_for(database, metrics_port=9100, metrics_token=""))


def test_the_public_port_answers_the_token_only(app: Flask) -> None:
    client = Client(app)
    assert b"# HELP wallet_http_request_seconds " in client.get("/metrics", headers=WITH_TOKEN).data
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Authorization": "Bearer é"}):
        assert client.get("/metrics", headers=headers).json["code"] == "not_found"
    assert client.post("/metrics", headers=WITH_TOKEN).status_code == 404


def test_the_public_port_answers_nobody_without_a_token_setting(app_with_port: Flask) -> None:
    for headers in ({}, WITH_TOKEN, {"Authorization": "Bearer "}, {"Host": "wallet.example:9100"}):
        assert (
            Client(app_with_port).get("/metrics", headers=headers, base_url="http://wallet.example").status_code == 404
        )


def test_its_own_port_answers_metrics_and_nothing_else(app_with_port: Flask) -> None:
    client = Client(app_with_port)
    assert client.get("/metrics", base_url=OWN_PORT).status_code == 200
    for path in ("/livez", "/openapi.json", "/api/wallet", "/metrics/"):
        assert client.get(path, base_url=OWN_PORT).status_code == 404


def test_a_unix_socket_is_never_its_own_port(app_with_port: Flask) -> None:
    """gunicorn takes the port of a request on a Unix socket from the Host header."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        environ = EnvironBuilder("/metrics", base_url=OWN_PORT).get_environ() | {"gunicorn.socket": ours}
        _, status, _ = run_wsgi_app(app_with_port, environ)
    assert status == "404 NOT FOUND"


def test_nothing_is_served_or_noted_without_a_setting(database: Database) -> None:
    app = create_app(settings_for(database, metrics_token=""))
    assert Client(app).get("/metrics", headers={"Authorization": "Bearer "}).status_code == 404


def test_another_process_serves_its_own_figures() -> None:
    port = free_port()
    serve_metrics(port)
    assert "\nwallet_events_stamped_total " in httpx.get(f"http://127.0.0.1:{port}/metrics").text


@pytest.fixture(scope="module")
def workers(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Path]]:
    """Two workers; the URL of the service, that of the metrics, and the folder for temporary files."""
    folder, port = tmp_path_factory.mktemp("workers"), free_port()
    options = ("--workers", "2", "--bind", f"127.0.0.1:{port}")
    with served(database, folder / "log", *options, METRICS_PORT=str(port), TMPDIR=str(folder)) as url:
        yield url, f"http://127.0.0.1:{port}/metrics", folder
    assert list(folder.glob("wallet-metrics-*")) == []


def figure(metrics_url: str, name: str) -> float:
    found = re.findall(rf"^{re.escape(name)} (\S+)$", httpx.get(metrics_url).text, re.MULTILINE)
    return float(found[0]) if found else 0.0


def wait_until(metrics_url: str, name: str, wanted: float) -> None:
    deadline = time.monotonic() + 10
    while figure(metrics_url, name) != wanted and time.monotonic() < deadline:
        time.sleep(0.1)
    assert figure(metrics_url, name) == wanted


def test_the_figures_of_all_workers_are_added_up_also_after_one_is_killed(workers: tuple[str, str, Path]) -> None:
    url, metrics_url, folder = workers
    counted = 'wallet_http_request_seconds_count{method="GET",route="/livez",status="2xx"}'
    open_connections = "wallet_pool_open"
    for _ in range(20):
        assert httpx.get(f"{url}/livez").status_code == 200
        assert httpx.get(f"{url}/readyz").status_code == 200
    wait_until(metrics_url, counted, 20)
    pids = {int(path.stem.rpartition("_")[2]) for path in folder.glob("wallet-metrics-*/gauge_livesum_*.db")}
    deadline = time.monotonic() + 10
    while figure(metrics_url, open_connections) < 1:  # The pools are looked at every second.
        assert time.monotonic() < deadline
        time.sleep(0.1)
    victim = next(iter(pids - {master_of(pids)}))
    os.kill(victim, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while list(folder.glob(f"wallet-metrics-*/gauge_livesum_{victim}.db")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not list(folder.glob(f"wallet-metrics-*/gauge_livesum_{victim}.db"))
    assert figure(metrics_url, counted) == 20


def master_of(pids: set[int]) -> int:
    """The parent of the others, which also opened a file when it imported the application."""
    parents = {int(subprocess.check_output(["ps", "-o", "ppid=", "-p", str(pid)])) for pid in pids}
    return (parents & pids or {0}).pop()
