"""The payers: over HTTP as cheaply as Python can, so that the machine's time goes to the service; and through the
service layer, with no HTTP.

Each payment is of one minor unit, by a random member, in the tenants alternately, under a key of its own.
"""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import randrange
from uuid import UUID, uuid4

from flask import Flask

from app import create_app
from app.config import Settings
from app.ledger.service import Movement, post_own
from app.money import format_minor
from tenant_schemas.flask import tenant_context
from tenant_schemas.tenant import Tenant

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
    """The service answered, and not with 201."""


class HttpClient:
    """One keep-alive connection, made anew for each slice: how connections fall to workers is part of the chance."""

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
        answer = self._answer()
        if answer[9:12] != CREATED:
            raise PaymentRefused(answer.decode(errors="replace"))
        return slug

    def _answer(self) -> bytes:
        """One answer, whole. The service always sends a Content-Length."""
        answer = b""
        needed = None
        while needed is None or len(answer) < needed:
            read = self._connection.recv(READ_BYTES)
            if not read:
                raise PaymentRefused(f"the connection was closed after {answer!r}")
            answer += read
            if needed is None and (end := answer.find(b"\r\n\r\n")) >= 0:
                length = answer[:end].lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
                needed = end + 4 + int(length)
        return answer


class ServiceClient:
    """The very call that the HTTP route makes, in an application context, and nothing else of a request."""

    def __init__(self, app: Flask, tenants: Sequence[Tenant], members: int) -> None:
        self._app = app
        self._tenants = tenants
        self._members = members
        self._name = uuid4().hex
        self._count = 0

    @contextmanager
    def session(self) -> Iterator[None]:
        with self._app.app_context():
            yield

    def pay(self) -> str:
        self._count += 1
        tenant = self._tenants[self._count % len(self._tenants)]
        key = f"{self._name}-{self._count}"
        movement = Movement(type="payment", amount_minor=AMOUNT_MINOR, idempotency_key=key)
        with tenant_context(tenant):
            post_own(member_id(randrange(self._members)), tenant.settings["currency"], movement)  # noqa: S311
        return tenant.slug


def member_id(number: int) -> UUID:
    """Members are numbered from 0, so that pgbench, which has no text but knows numbers, can name one at random."""
    return UUID(int=number)


def http_clients(port: int, tokens: Sequence[str], currencies: dict[str, str]) -> list[HttpClient]:
    """A process of its own for each: a client must never wait for another one's turn in the interpreter."""
    return [HttpClient(port, tokens, currencies)]


def service_clients(settings: Settings, tenants: Sequence[Tenant], members: int, threads: int) -> list[ServiceClient]:
    """The threads of one worker process, which share its application as gunicorn's do."""
    app = create_app(settings)
    return [ServiceClient(app, tenants, members) for _ in range(threads)]
