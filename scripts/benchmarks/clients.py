"""Clients that pay over HTTP, with as little Python as possible, so that the machine's time goes to the service.

Each payment is of one minor unit, from a random member's wallet, in the tenants in turn, with a new idempotency key.
"""

import json
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from http import HTTPStatus
from http.client import HTTPConnection
from random import randrange
from threading import Event
from uuid import UUID, uuid4

from app.money import format_minor

HOST = "127.0.0.1"
TIMEOUT_SECONDS = 30
READ_BYTES = 65_536
CREATED = b"201"
AMOUNT_MINOR = 1
TOO_MANY_REQUESTS = "HTTP/1.1 429 "
REFUSED = "refused"
RETRY_SECONDS = 0.1
_REQUEST = (
    b"POST /api/wallet/payments HTTP/1.1\r\nHost: %b\r\nAuthorization: Bearer %b\r\nX-Tenant: %b\r\n"
    b"Idempotency-Key: %b-%d\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
)


class PaymentRefused(Exception):
    """The service answered a payment with another status than 201."""


class HttpClient:
    """One keep-alive connection, new in each slice, because it is random which worker process accepts it."""

    def __init__(self, port: int, tokens: Sequence[str], currencies: dict[str, str]) -> None:
        self._port = port
        self._host = f"{HOST}:{port}".encode()
        self._tokens = [token.encode() for token in tokens]
        self._tenants = [
            (slug, slug.encode(), b'{"amount":"%b"}' % format_minor(AMOUNT_MINOR, currency).encode())
            for slug, currency in currencies.items()
        ]
        self._name = uuid4().hex.encode()
        self._count = 0

    @contextmanager
    def session(self) -> Iterator[None]:
        with socket.create_connection((HOST, self._port), TIMEOUT_SECONDS) as self._connection:
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield

    def pay(self) -> str:
        self._count += 1
        slug, tenant, body = self._tenants[self._count % len(self._tenants)]
        token = self._tokens[randrange(len(self._tokens))]  # noqa: S311
        parts = (self._host, token, tenant, self._name, self._count, len(body), body)
        self._connection.sendall(_REQUEST % parts)
        response = self._read_response()
        if response[9:12] != CREATED:
            raise PaymentRefused(response.decode(errors="replace"))
        return slug

    def _read_response(self) -> bytes:
        """One complete response. The service always sends a Content-Length."""
        response = b""
        needed = None
        while needed is None or len(response) < needed:
            read = self._connection.recv(READ_BYTES)
            if not read:
                raise PaymentRefused(f"the connection was closed after {response!r}")
            response += read
            if needed is None and (end := response.find(b"\r\n\r\n")) >= 0:
                length = response[:end].lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
                needed = end + 4 + int(length)
        return response


class RefusableHttpClient(HttpClient):
    """A client whose payments may get 429. They count as REFUSED, not as the tenant's."""

    def pay(self) -> str:
        try:
            return super().pay()
        except PaymentRefused as refusal:
            if not str(refusal).startswith(TOO_MANY_REQUESTS):
                raise
            return REFUSED


class RequestLoop:
    """Sends the same request again and again over one connection, with a new idempotency key each time."""

    def __init__(
        self,
        port: int,
        method: str,
        path: str,
        tenant: str = "",
        *,
        token: str = "",
        body: dict[str, str] | None = None,
    ) -> None:
        self._port = port
        self._request = (method, path, json.dumps(body) if body else None)
        self._headers = {"Content-Type": "application/json", "X-Tenant": tenant, "Authorization": f"Bearer {token}"}
        if not token:
            self._headers = {"Content-Type": "application/json"}

    def run(self, stopped: Event) -> Counter[str]:
        """Send until stopped; returns the number of answers by status. After 429 it waits a tenth of a second, though
        the service tells it to wait longer.
        """
        answers: Counter[str] = Counter()
        connection = HTTPConnection(HOST, self._port, timeout=TIMEOUT_SECONDS)
        with closing(connection):
            while not stopped.is_set():
                connection.request(*self._request, headers=self._headers | {"Idempotency-Key": uuid4().hex})
                response = connection.getresponse()
                response.read()
                answers[str(response.status)] += 1
                if response.status == HTTPStatus.TOO_MANY_REQUESTS:
                    stopped.wait(RETRY_SECONDS)
        return answers


def member_id(number: int) -> UUID:
    """Members are numbered from 0, so that a pgbench script, which has numbers but no strings, can choose one."""
    return UUID(int=number)


def http_clients(port: int, tokens: Sequence[str], currencies: dict[str, str]) -> list[HttpClient]:
    """One client for each process: in threads of one process they would wait for each other's interpreter lock."""
    return [HttpClient(port, tokens, currencies)]


def refusable_http_clients(port: int, tokens: Sequence[str], currencies: dict[str, str]) -> list[RefusableHttpClient]:
    return [RefusableHttpClient(port, tokens, currencies)]
