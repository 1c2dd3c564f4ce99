"""The setting OTEL: off, nothing is traced; on, spans go to the collector that OpenTelemetry's variables name."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import Queue

import pytest
from flask import Flask
from werkzeug.test import Client

from app import create_app, tracing
from app.config import ConfigurationError
from app.tracing import delivery_span
from tenant_schemas.testing.plugin import Database
from tenant_schemas.tracing import TRACING
from tests.conftest import settings_for


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> Iterator["Queue[bytes]"]:
    """The bodies that a collector gets."""
    bodies: Queue[bytes] = Queue()

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.put(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        monkeypatch.setattr(TRACING, "tracer", None)
        yield bodies
        server.shutdown()


def test_spans_reach_the_collector(database: Database, collected: "Queue[bytes]") -> None:
    app = create_app(settings_for(database, otel=True))
    assert Client(app).get("/livez").status_code == 200
    body = collected.get(timeout=10)
    assert b"GET /livez" in body
    assert b"wallet" in body


def test_off_nothing_is_traced(app: Flask) -> None:
    assert TRACING.tracer is None
    with delivery_span("webhook", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01") as span:
        assert span is None


def test_without_the_extra_the_application_does_not_start(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match="install the extra `otel`"):
        create_app(settings_for(database, otel=True))
    assert TRACING.tracer is None
