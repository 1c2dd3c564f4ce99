"""The gateway of deploy/nginx before servers that answer what they were asked."""

import json
import re
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest
from flask import Flask

from app.tenancy import RESERVED_SLUGS
from scripts.support.demo.nginx import DEPLOYED, gateway
from tests.factories.nginx import needs_nginx, running_nginx
from tests.factories.ports import free_port

pytestmark = needs_nginx
STREAMS = ("/api/admin/events/stream", "/api/wallet/events")
INSIDE = {"/livez", "/readyz"}  # For the machines beside the service.
SECONDS = 10


class Asked(BaseHTTPRequestHandler):
    """Answers with its server's name and the request. Two paths fail, one streams."""

    protocol_version = "HTTP/1.1"
    server: "Upstream"

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked[f"{self.command} {self.path}"] += 1
        if self.path == "/api/wallet/broken":
            self.close_connection = True
            return
        if self.path == "/api/wallet/events":
            self.stream()
            return
        told = {"who": self.server.name, "path": self.path, "headers": dict(self.headers), "bytes": len(body)}
        self.respond({"Content-Length": str(len(json.dumps(told)))}, json.dumps(told).encode())

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def stream(self) -> None:
        self.respond({"Connection": "close", "Content-Type": "text/event-stream"}, b"data: first\n\n")
        was_read = self.server.first_was_read.wait(2)
        self.wfile.write(b"data: second\n\n" if was_read else b"data: nobody had the first\n\n")

    def respond(self, headers: dict[str, str], body: bytes) -> None:
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Upstream(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), Asked)
        self.name = name
        self.asked: Counter[str] = Counter()
        self.first_was_read = Event()
        Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


@pytest.fixture(scope="module")
def upstreams() -> Iterator[dict[str, Upstream]]:
    made = {name: Upstream(name) for name in ("service", "second", "streams", "main")}
    yield made
    for each in made.values():
        each.shutdown()
        each.server_close()


@contextmanager
def gateway_before(upstreams: dict[str, Upstream], folder: Path) -> Iterator[httpx.Client]:
    """The service runs as three processes, one of which is down."""
    port, down = free_port(), f"127.0.0.1:{free_port()}"
    http = gateway(
        listen=f"127.0.0.1:{port}",
        service=[down, upstreams["service"].address, upstreams["second"].address],
        streams=[upstreams["streams"].address],
        main=[upstreams["main"].address],
        log=folder / "access.log",
    )
    with running_nginx(folder, http, port) as url, httpx.Client(base_url=url, timeout=SECONDS) as client:
        yield client


@pytest.fixture(scope="module")
def client(upstreams: dict[str, Upstream], tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with gateway_before(upstreams, tmp_path_factory.mktemp("gateway")) as client:
        yield client


def who(client: httpx.Client, path: str) -> str:
    name = str(client.get(path).json()["who"])
    return "service" if name == "second" else name


def with_slug(path: str) -> str:
    return path.replace("/api/", "/api/eur_2/", 1)


def test_every_route_of_the_service_is_reached_in_both_spellings(client: httpx.Client, app: Flask) -> None:
    rules = {re.sub(r"<[^>]*>", "x", rule.rule) for rule in app.url_map.iter_rules()}
    paths = sorted(rules - {*STREAMS} - INSIDE)
    assert len(paths) > 60
    assert {"/docs/x", "/problems/x"} < set(paths)
    assert [path for path in (*paths, *map(with_slug, paths)) if who(client, path) != "service"] == []


def test_the_gateway_names_the_first_segments_that_no_slug_may_have() -> None:
    (named,) = re.findall(r"\(([a-z|]+)\)\(/\|\$\)", (DEPLOYED / "snippets" / "wallet-server.conf").read_text())
    assert set(named.split("|")) == RESERVED_SLUGS


def test_the_rest_is_the_main_applications(client: httpx.Client) -> None:
    others = ("/", "/login", "/.well-known/openid-configuration", "/metrics", "/livez", "/readyz", "/api", "/api/shop")
    alike = ("/api/walletish", "/api/eur/shop/wallet", "/shop/api/wallet", "/API/wallet", "/docs2", "/api/EUR/wallet")
    assert [path for path in (*others, *alike) if who(client, path) != "main"] == []


def test_streams_are_of_the_stream_process_and_arrive_piece_by_piece(
    client: httpx.Client, upstreams: dict[str, Upstream]
) -> None:
    assert {who(client, path) for path in (STREAMS[0], *map(with_slug, STREAMS))} == {"streams"}
    with client.stream("GET", STREAMS[1]) as answer:
        lines = (line for line in answer.iter_lines() if line)
        assert next(lines) == "data: first"
        upstreams["streams"].first_was_read.set()
        assert next(lines) == "data: second"


def test_forged_headers_about_the_client_are_replaced(client: httpx.Client) -> None:
    names = ("For", "Proto", "Host", "Port", "Prefix", "Server", "Ssl")
    forged = {f"X-Forwarded-{name}": "forged" for name in names} | {"Forwarded": "for=forged", "X-Real-IP": "forged"}
    forged |= {"Script_Name": "forged", "X_Forwarded_For": "forged", "X-Request-Id": "forged id"}
    forged |= dict.fromkeys(("traceparent", "tracestate", "baggage"), "forged")
    for path in ("/api/wallet", "/shop", with_slug(STREAMS[1])):
        got = {name.lower(): value for name, value in client.get(path, headers=forged).json()["headers"].items()}
        assert "forged" not in " ".join(got.values()), path
        assert (got["x-forwarded-for"], got["x-forwarded-proto"]) == ("127.0.0.1", "http")
        assert got["host"] == client.base_url.netloc.decode()
        assert re.fullmatch("[0-9a-f]{32}", got["x-request-id"])


def test_a_callers_own_request_id_is_passed_on_and_logged_without_the_query(
    upstreams: dict[str, Upstream], tmp_path: Path
) -> None:
    with gateway_before(upstreams, tmp_path) as client:
        asked = client.get("/api/admin/members?q=secret", headers={"X-Request-Id": "shop-17.b"}).json()
    assert asked["headers"]["X-Request-Id"] == "shop-17.b"
    assert asked["path"] == "/api/admin/members?q=secret"
    logged = (tmp_path / "access.log").read_text()
    assert "shop-17.b" in logged
    assert "secret" not in logged


def test_a_request_reaches_a_process_that_lives_and_a_payment_is_never_sent_twice(
    upstreams: dict[str, Upstream], tmp_path: Path
) -> None:
    def asked(method: str) -> int:
        return sum(upstreams[name].asked[f"{method} /api/wallet/broken"] for name in ("service", "second"))

    for method, times in (("POST", 1), ("GET", 2)):
        with gateway_before(upstreams, tmp_path) as client:
            assert [client.post("/api/wallet/payments", json={}).status_code for _ in range(4)] == [200] * 4
            assert client.request(method, "/api/wallet/broken").status_code == 502
            assert asked(method) == times


def test_bodies_are_limited_before_they_are_received(client: httpx.Client) -> None:
    assert client.post("/api/admin/transactions/bulk", content=bytes(4 * 1024**2)).json()["bytes"] == 4 * 1024**2
    assert client.post("/api/admin/transactions/bulk", content=bytes(4 * 1024**2 + 1)).status_code == 413
    assert client.post("/shop", content=bytes(1024**2 + 1)).status_code == 413


def test_a_path_that_leads_out_of_a_location_is_not_taken_for_another(client: httpx.Client) -> None:
    """nginx chooses by the decoded path and passes on what came; the service decodes, and knows no `..`."""
    port = client.base_url.port
    assert port is not None
    for raw, expected in (
        (b"/docs/../api/eur/shop", b'"main"'),
        (b"/api/%61dmin/wallets", b'"se'),
        (b"/api//wallet", b'"se'),
    ):
        with socket.create_connection(("127.0.0.1", port), SECONDS) as plain:
            plain.sendall(b"GET " + raw + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: plain.recv(65536), b""))
        assert b'"who": ' + expected in answer
        assert raw in answer
