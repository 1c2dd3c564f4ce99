"""Clients that pay over HTTP, with as little Python as possible, so that the machine's time goes to the service.

Each payment is of one minor unit, from a random member's wallet, in the tenants in turn, with a new idempotency key.
"""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import randrange
from uuid import UUID, uuid4

from app.money import format_minor

HOST = "127.0.0.1"
TIMEOUT_SECONDS = 30
READ_BYTES = 65_536
CREATED = b"201"
AMOUNT_MINOR = 1
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


def member_id(number: int) -> UUID:
    """Members are numbered from 0, so that a pgbench script, which has numbers but no strings, can choose one."""
    return UUID(int=number)


def http_clients(port: int, tokens: Sequence[str], currencies: dict[str, str]) -> list[HttpClient]:
    """One client for each process: in threads of one process they would wait for each other's interpreter lock."""
    return [HttpClient(port, tokens, currencies)]
