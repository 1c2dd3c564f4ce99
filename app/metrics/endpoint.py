"""`GET /metrics` for Prometheus: on a port of its own, or for a caller with the token. Everyone else gets the answer of
a path without a route. It is WSGI middleware and no route: no tenant, no limit and no slot delay it, and OpenAPI does
not name it.
"""

import hmac
import os
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from flask import Flask
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

from app.config import Settings
from app.metrics import observations
from app.metrics.definitions import REGISTRY

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

PATH: Final = "/metrics"
# Set by gunicorn.conf.py: the folder in which all processes of this gunicorn write their figures.
FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
_HEADERS: Final = [
    ("Content-Type", CONTENT_TYPE_PLAIN_0_0_4),
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
]


class MetricsEndpoint:
    """On METRICS_PORT it answers /metrics and nothing else. On another port it answers a request with the token, and
    passes all others on. With both settings, the port demands the token too.
    """

    def __init__(self, wsgi_app: "WSGIApplication", port: int, token: str) -> None:
        self._wsgi_app = wsgi_app
        self._port = str(port) if port else None
        self._token = token.encode()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        is_own_port = environ["SERVER_PORT"] == self._port and not _is_unix_socket(environ)
        if not is_own_port and environ["PATH_INFO"] != PATH:
            return self._wsgi_app(environ, start_response)
        is_asked = environ["PATH_INFO"] == PATH and environ["REQUEST_METHOD"] == "GET"
        if is_asked and self._may_read(environ, is_own_port=is_own_port):
            return _answer(start_response, "200 OK", exposition())
        return _answer(start_response, "404 NOT FOUND", b"") if is_own_port else self._wsgi_app(environ, start_response)

    def _may_read(self, environ: "WSGIEnvironment", *, is_own_port: bool) -> bool:
        if not self._token:
            return is_own_port
        given = environ.get("HTTP_AUTHORIZATION", "").encode("latin-1", "replace")
        return hmac.compare_digest(given, b"Bearer " + self._token)


def _is_unix_socket(environ: "WSGIEnvironment") -> bool:
    """Whether the request came by a Unix socket: then gunicorn takes SERVER_PORT from the client's Host header."""
    client: socket.socket | None = environ.get("gunicorn.socket")
    return client is not None and client.family == socket.AF_UNIX


def _answer(start_response: "StartResponse", status: str, body: bytes) -> Iterable[bytes]:
    start_response(status, [("Content-Length", str(len(body))), *_HEADERS])
    return [body]


def exposition() -> bytes:
    """The metrics in Prometheus' text format: of all processes of this gunicorn, or else of this process."""
    observations.move_observations()
    if FOLDER_VARIABLE not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


class _OfThisProcess:
    """The metrics of this process, for `prometheus_client`'s server."""

    def collect(self) -> Iterable[Metric]:
        observations.move_observations()
        return REGISTRY.collect()


def serve_metrics(port: int, host: str = "127.0.0.1") -> None:
    """Serve the metrics of a process that is no gunicorn, like the relay, by a daemon thread. Raises OSError if the
    port is in use.
    """
    observations.OBSERVATIONS.are_on = True
    start_http_server(port, host, _OfThisProcess())


def init_app(app: Flask, settings: Settings) -> None:
    """Serve the metrics of this application, if METRICS_PORT or METRICS_TOKEN is set. It wraps the application, so call
    it after everything else that does.
    """
    if settings.metrics_port or settings.metrics_token:
        endpoint = MetricsEndpoint(app.wsgi_app, settings.metrics_port, settings.metrics_token)
        app.wsgi_app = endpoint  # type: ignore[method-assign]
