"""A consumer of webhooks: a real HTTPS server that keeps what it gets and answers as a test says."""

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import orjson

NAME = "hooks.example"
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes
    connection: tuple[str, int]

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> Any:
        return orjson.loads(self.body)


@dataclass(frozen=True)
class Reply:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"ok"
    seconds_before_each_byte: float = 0.0


@dataclass
class Consumer:
    """`answer` may be replaced; it gets each request as it comes."""

    port: int = 0
    scheme: str = "https"
    received: list[Received] = field(default_factory=list)
    answer: Callable[[Received], Reply] = field(default=lambda _: Reply())
    server_names: list[str | None] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def url(self, path: str = "/hook", host: str = NAME) -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    def take(self) -> list[Received]:
        """What came since the last call."""
        with self.lock:
            taken = list(self.received)
            self.received.clear()
        return taken


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    consumer: Consumer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        got = Received(self.path, headers, body, self.client_address)
        with self.consumer.lock:
            self.consumer.received.append(got)
        reply = self.consumer.answer(got)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self._send(reply)

    def _send(self, reply: Reply) -> None:
        pieces = [bytes([byte]) for byte in reply.body] if reply.seconds_before_each_byte else [reply.body]
        for piece in pieces:
            time.sleep(reply.seconds_before_each_byte)
            self.wfile.write(piece)
            self.wfile.flush()

    def log_message(self, *_: Any) -> None: ...


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None: ...  # A client that hangs up is what some tests want.


@contextmanager
def consumer_of_webhooks(certificate: Path | None) -> Iterator[Consumer]:
    """Serve on 127.0.0.1: HTTPS with this certificate, or plain HTTP without one."""
    consumer = Consumer()
    handler = type("Handler", (_Handler,), {"consumer": consumer})
    with _Server((HOST, 0), handler) as server:
        consumer.port = server.server_address[1]
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            context.sni_callback = lambda _, name, __: consumer.server_names.append(name)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        else:
            consumer.scheme = "http"
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield consumer
        server.shutdown()
