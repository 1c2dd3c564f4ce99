"""Sends a webhook over HTTP to an address that was checked, and reads the beginning of the answer.

The name is resolved here, all its addresses are checked, and the connection goes to one of them: a name that resolves
to another address a moment later is not asked again. TLS and the Host header have the name. Redirects are not followed,
and no proxy of the environment is used.
"""

import ssl
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from http.client import HTTPResponse
from io import BufferedReader, RawIOBase
from socket import socket
from threading import Thread
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)

from app.version import VERSION
from app.webhooks.addresses import AddressRefused, AddressRules, Resolver, Target, resolve_name

log = structlog.get_logger(__name__)

RESOLVE_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 20.0  # for the whole answer, from the end of the request on
SHOWN_BYTES: Final = 1024
TRIED_ADDRESSES: Final = 2
USER_AGENT: Final = f"schema-wallet/{VERSION}"


class Failure(StrEnum):
    """Why there is no answer."""

    NO_ALLOWED_ADDRESS = "no_allowed_address"
    CONNECTION_FAILED = "connection_failed"
    TLS_FAILED = "tls_failed"
    TIMED_OUT = "timed_out"
    EVENTS_TRIMMED = "events_trimmed"  # nothing was sent: the feed no longer had the events


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of an endpoint, or the reason why there is none."""

    duration_ms: int
    status: int | None = None
    failure: Failure | None = None
    text: str = ""
    retry_after: str | None = None

    @property
    def is_success(self) -> bool:
        return self.status is not None and 200 <= self.status < 300  # noqa: PLR2004


class _TimedReader(RawIOBase):
    """The bytes of one answer, until its deadline. A socket's own time-out begins anew with each byte."""

    def __init__(self, raw: RawIOBase, own: socket, seconds: float) -> None:
        self._raw, self._socket, self._deadline = raw, own, monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - monotonic()
        if left <= 0:
            raise TimeoutError("The answer took too long.")
        self._socket.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedAnswer(HTTPResponse):
    """An answer whose whole time is what the socket allows for each read."""

    def __init__(self, sock: socket, *arguments: Any, **named: Any) -> None:
        super().__init__(sock, *arguments, **named)
        seconds = sock.gettimeout() or ANSWER_SECONDS
        self.fp: BufferedReader = BufferedReader(_TimedReader(self.fp.detach(), sock, seconds))


class _Connection(HTTPConnection):
    response_class = _TimedAnswer


class _TlsConnection(HTTPSConnection):
    response_class = _TimedAnswer


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


@dataclass(frozen=True, slots=True)
class Sender:
    """How this process sends webhooks. Thread-safe."""

    rules: AddressRules
    resolve: Resolver = resolve_name
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    answer_seconds: float = ANSWER_SECONDS
    resolve_seconds: float = RESOLVE_SECONDS

    def open(self, url: str, *, connections: int = 1) -> "Channel | Answer":
        """Resolve and check the URL, in `resolve_seconds` at most. The channel that it returns sends to the checked
        addresses only; if there is none, the failure. Close the channel.

        The tenant sees one failure for all reasons, or it could find out which names the installation's network has.
        The log has the reason.
        """
        started = monotonic()
        try:
            target = self.rules.target(url)
            addresses = self.rules.addresses(target, self._resolve_in_time)
        except (AddressRefused, OSError, UnicodeError) as error:
            log.warning(
                "webhook_address_refused", host=urlsplit(url).hostname, reason=str(error) or type(error).__name__
            )
            return _failed(started, Failure.NO_ALLOWED_ADDRESS)
        return Channel(target, [self._pool(target, address, connections) for address in addresses[:TRIED_ADDRESSES]])

    def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send one message, over a connection of its own."""
        channel = self.open(url)
        if isinstance(channel, Answer):
            return channel
        with channel:
            return channel.send(headers, body)

    def _resolve_in_time(self, host: str, port: int) -> Sequence[str]:
        """Raises TimeoutError. The system's resolver can't be interrupted: a thread of its own waits for its end."""
        found: Future[Sequence[str]] = Future()
        Thread(
            target=_resolve_into, args=(found, self.resolve, host, port), name="webhook-resolver", daemon=True
        ).start()
        try:
            return found.result(self.resolve_seconds)
        except TimeoutError:
            raise TimeoutError(f"{host} did not resolve in {self.resolve_seconds:g} s.") from None

    def _pool(self, target: Target, address: str, connections: int) -> HTTPConnectionPool:
        timeout = Timeout(connect=CONNECT_SECONDS, read=self.answer_seconds)
        if target.scheme == "http":
            return _Pool(address, target.port, timeout=timeout, maxsize=connections)
        return _TlsPool(
            address,
            target.port,
            timeout=timeout,
            maxsize=connections,
            ssl_context=self.tls,
            server_hostname=target.host,
        )


class Channel:
    """Connections to the checked addresses of one URL, which are used again. Thread-safe."""

    def __init__(self, target: Target, pools: Sequence[HTTPConnectionPool]) -> None:
        self._target, self._pools = target, pools

    def __enter__(self) -> "Channel":
        return self

    def __exit__(self, *_: object) -> None:
        for pool in self._pools:
            pool.close()

    def send(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """POST the body. Another address is tried only if no connection was made to the one before."""
        started = monotonic()
        answer = _failed(started, Failure.CONNECTION_FAILED)
        for pool in self._pools:
            try:
                return self._post(pool, headers, body, started)
            except NewConnectionError:
                answer = _failed(started, Failure.CONNECTION_FAILED)
            except ConnectTimeoutError:
                answer = _failed(started, Failure.TIMED_OUT)
            except (ReadTimeoutError, TimeoutError):
                return _failed(started, Failure.TIMED_OUT)
            except (SSLError, ssl.SSLError) as error:
                return _failed(started, Failure.TLS_FAILED, str(error))
            except (HTTPError, OSError) as error:
                return _failed(started, Failure.CONNECTION_FAILED, type(error).__name__)
        return answer

    def _post(self, pool: HTTPConnectionPool, headers: Mapping[str, str], body: bytes, started: float) -> Answer:
        sent = {"Host": self._target.authority, "User-Agent": USER_AGENT, **headers}
        response = pool.urlopen(
            "POST", self._target.path, body, sent, retries=False, redirect=False, preload_content=False
        )
        try:
            text = _beginning_of(response)
        finally:
            response.close()
        return Answer(
            duration_ms=_milliseconds_since(started),
            status=response.status,
            text=text,
            retry_after=response.headers.get("Retry-After"),
        )


def _resolve_into(found: Future[Sequence[str]], resolve: Resolver, host: str, port: int) -> None:
    try:
        found.set_result(resolve(host, port))
    except Exception as error:  # noqa: BLE001 - the caller of the thread gets it
        found.set_exception(error)


def _beginning_of(response: BaseHTTPResponse) -> str:
    """The first kilobyte of the body. If that is all of it, urllib3 keeps the connection. The status has arrived, so a
    body that breaks off is no failure.
    """
    shown = b""
    with suppress(HTTPError, OSError):
        while len(shown) < SHOWN_BYTES and (read := response.read1(SHOWN_BYTES - len(shown), decode_content=False)):
            shown += read
    return shown.decode(errors="replace").replace("\0", "\ufffd")


def _failed(started: float, failure: Failure, text: str = "") -> Answer:
    shown = text.encode(errors="replace")[:SHOWN_BYTES].decode(errors="ignore")
    return Answer(duration_ms=_milliseconds_since(started), failure=failure, text=shown)


def _milliseconds_since(started: float) -> int:
    return round((monotonic() - started) * 1000)
