"""A client that sends slowly or nothing holds no thread, and each request is read as gunicorn's own worker reads it."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Timer
from urllib.parse import urlsplit

import httpx
import pytest

from app.gunicorn_worker import BUFFER_BYTES, RECEIVE_SECONDS
from tenant_schemas.testing.plugin import Database
from tests.factories.served import served

WORKER = ("--worker-class", "app.gunicorn_worker.BufferedWorker", "--workers", "1", "--threads", "2")
HEAD = b"POST /api/auth/login HTTP/1.1\r\nHost: wallet.example\r\nContent-Type: application/json\r\n"
SMALL = HEAD + b'Content-Length: 14\r\n\r\n{"email": "x"}'
CHUNKED = HEAD + b'Transfer-Encoding: chunked\r\n\r\n7\r\n{"email\r\n7\r\n": "x"}\r\n0\r\n\r\n'
TRAILERS = CHUNKED[:-2] + b"X-Checksum: 1\r\n\r\n"
EXTENSION = CHUNKED.replace(b"\r\n0\r\n", b"\r\n00;last=yes\r\n")
UNFINISHED = (b"", b"GET /livez HTT", HEAD, SMALL[:-1], CHUNKED[:-6])


@pytest.fixture(scope="module")
def address(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    with served(database, tmp_path_factory.mktemp("served") / "log", *WORKER) as url:
        parts = urlsplit(url)
        yield str(parts.hostname), int(parts.port or 0)


def connect(address: tuple[str, int], sent: bytes = b"") -> socket.socket:
    connection = socket.create_connection(address, timeout=RECEIVE_SECONDS * 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(sent)
    return connection


def response_of(connection: socket.socket) -> bytes:
    response = b""
    while not response.endswith(b"}"):
        received = connection.recv(BUFFER_BYTES)
        if not received:
            break
        response += received
    return response


def status_of(address: tuple[str, int], sent: bytes) -> bytes:
    with connect(address, sent) as connection:
        return connection.recv(BUFFER_BYTES)[9:12]


def test_unfinished_requests_hold_no_thread_and_are_closed_when_their_time_is_over(address: tuple[str, int]) -> None:
    idle = [connect(address, UNFINISHED[number % len(UNFINISHED)]) for number in range(20)]
    started = time.monotonic()
    assert httpx.get(f"http://{address[0]}:{address[1]}/livez", timeout=RECEIVE_SECONDS / 2).status_code == 200
    assert [connection.recv(1) for connection in idle] == [b""] * len(idle)
    assert time.monotonic() - started < RECEIVE_SECONDS + 5
    for connection in idle:
        connection.close()


@pytest.mark.parametrize("request_", [SMALL, CHUNKED, TRAILERS, EXTENSION])
def test_a_request_that_comes_byte_by_byte_is_answered_as_if_it_came_at_once(
    address: tuple[str, int], request_: bytes
) -> None:
    with connect(address) as connection:
        for _ in range(2):
            for byte in request_:
                connection.sendall(bytes([byte]))
            slowly = response_of(connection)
            assert slowly.startswith(b"HTTP/1.1 422 ")
    assert status_of(address, request_) == b"422"


@pytest.mark.parametrize("first", [SMALL, CHUNKED, TRAILERS])
def test_two_requests_in_one_packet_are_both_answered(address: tuple[str, int], first: bytes) -> None:
    with connect(address, first + SMALL) as connection:
        responses = response_of(connection)
        while responses.count(b"HTTP/1.1 422 ") < 2:
            responses += response_of(connection)
        assert responses.count(b"HTTP/1.1 ") == 2


def test_bodies_and_headers_are_refused_as_by_gunicorns_own_worker(
    database: Database, address: tuple[str, int], tmp_path: Path
) -> None:
    requests = (
        HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: nonsense\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 14\r\nContent-Length: 15\r\n\r\n" + b'{"email": "x"}',
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n0\r\n\r\n",
        HEAD + b"X: " + b"x" * 9000 + b"\r\n\r\n",
        HEAD + b"X: x\r\n" * 200 + b"\r\n",
        HEAD + b"X_Tenant: eur\r\nContent-Length: 14\r\n\r\n" + b'{"email": "x"}',
        HEAD + b"Content-Length: 70000\r\n\r\n" + b" " * 70_000,
        b"nonsense\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    )
    with served(database, tmp_path / "log", "--worker-class", "gthread", "--threads", "2") as url:
        own = (str(urlsplit(url).hostname), int(urlsplit(url).port or 0))
        expected = [status_of(own, sent) for sent in requests]
    assert [status_of(address, sent) for sent in requests] == expected
    assert {b"400", b"413", b"422", b"431", b"200"} <= set(expected)


@pytest.mark.parametrize("request_", [SMALL, CHUNKED])
def test_a_client_that_waits_before_its_body_is_told_to_go_on(address: tuple[str, int], request_: bytes) -> None:
    head, _, body = request_.partition(b"\r\n\r\n")
    with connect(address, head + b"\r\nExpect: 100-continue\r\n\r\n") as connection:
        assert connection.recv(BUFFER_BYTES).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(body)
        assert response_of(connection)[9:12] == b"422"


def test_a_stop_waits_for_an_unfinished_request_and_not_long_for_an_idle_connection(
    database: Database, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        with served(database, tmp_path / "log", *WORKER) as url:
            address = (str(urlsplit(url).hostname), int(urlsplit(url).port or 0))
            idle, unfinished = (stack.enter_context(connect(address, sent)) for sent in (b"", SMALL[:-1]))
            assert httpx.get(f"{url}/livez").status_code == 200
            last_byte = Timer(0.5, unfinished.sendall, (SMALL[-1:],))
            last_byte.start()
            started = time.monotonic()
        assert time.monotonic() - started < RECEIVE_SECONDS - 1
        last_byte.join()
        assert response_of(unfinished)[9:12] == b"422"
        assert idle.recv(1) == b""


def test_clients_that_keep_an_ended_connection_open_stop_nothing(address: tuple[str, int]) -> None:
    """Answered for the last time, with a body that was not read, or with garbage instead of a request."""
    last = (
        b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n",
        b"nonsense\r\n\r\n",
    )
    kept = [connect(address, last[number % len(last)]) for number in range(30)]
    started = time.monotonic()
    for _ in range(5):
        assert httpx.get(f"http://{address[0]}:{address[1]}/livez", timeout=5).status_code == 200
    assert time.monotonic() - started < 4
    for connection in kept:
        answer = connection.recv(BUFFER_BYTES)
        assert answer[9:12] in {b"200", b"404", b"400", b"413"}
        while connection.recv(BUFFER_BYTES):
            pass  # The service closes it.
        connection.close()


def test_a_refused_request_with_a_body_keeps_its_connection(address: tuple[str, int]) -> None:
    refused = b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n" + b'{"email": "x"}'
    with connect(address) as connection:
        for _ in range(3):
            connection.sendall(refused)
            assert response_of(connection)[9:12] == b"404"


def test_what_only_looks_complete_holds_a_thread_for_a_moment(address: tuple[str, int]) -> None:
    unfinished = HEAD + b"Transfer-Encoding: chunked\r\n\r\n19\r\nab\r\n0\r\n\r\n"
    kept = [connect(address, unfinished) for _ in range(4)]
    started = time.monotonic()
    assert httpx.get(f"http://{address[0]}:{address[1]}/livez", timeout=RECEIVE_SECONDS).status_code == 200
    assert time.monotonic() - started < 4
    for connection in kept:
        connection.close()


MOVED = b"GET /public/api/me HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
FORWARDED = (
    b"SCRIPT_NAME: /public\r\n",
    b"Script-Name: /public\r\n",
    b"SCRIPT_NAME: /public\r\nPATH_INFO: /api/me\r\n",
    b"X-Forwarded-Prefix: /public\r\nX-Script-Name: /public\r\n",
)
SCHEMES = (
    b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off\r\nConnection: close\r\n\r\n"
)
BELIEVING = ("--forwarded-allow-ips", "*", "--forwarder-headers", "SCRIPT_NAME,PATH_INFO", "--header-map", "dangerous")
BELIEVING += ("--proxy-protocol", "v1", "--proxy-allow-from", "*")


@pytest.mark.parametrize("options", [(), (*WORKER, *BELIEVING)], ids=["no options", "believing"])
def test_no_forwarded_header_is_believed_from_this_machine_nor_over_a_unix_socket(
    database: Database, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """A proxy's rule about /api/ would not see that /public/api/me is /api/me. A believed proxy that names two schemes
    would get 400.
    """
    path = tmp_path / "socket"
    with served(
        database,
        tmp_path / "log",
        "--bind",
        f"unix:{path}",
        *options,
        FORWARDED_ALLOW_IPS="*",
        LOGIN_RATE_LIMIT="2/hour",
    ) as url:
        for family, place in (
            (socket.AF_INET, (str(urlsplit(url).hostname), int(urlsplit(url).port or 0))),
            (socket.AF_UNIX, str(path)),
        ):
            assert _status(family, place, MOVED.replace(b"/public", b"") + b"\r\n") == b"401"
            assert [_status(family, place, MOVED + sent + b"\r\n") for sent in FORWARDED] == [b"404"] * len(FORWARDED)
            assert _status(family, place, SCHEMES) == b"200"
            assert _status(family, place, b"PROXY TCP4 198.51.100.1 192.0.2.1 1 80\r\n" + SCHEMES) == b"400"
        address = (str(urlsplit(url).hostname), int(urlsplit(url).port or 0))
        spoofed = [_log_in_as(address, f"198.51.100.{number}".encode()) for number in range(3)]
        assert spoofed[2] == b"429", "they count for the address of the connection"


def _log_in_as(address: tuple[str, int], forged: bytes) -> bytes:
    head = HEAD + b"".join(
        name + b": " + forged + b"\r\n" for name in (b"X-Forwarded-For", b"Remote-Addr", b"X-Real-Ip")
    )
    body = b'{"email": "unknown@example.com", "password": "wrong"}'
    return status_of(address, head + b"Content-Length: %d\r\n\r\n" % len(body) + body)


def _status(family: int, place: tuple[str, int] | str, sent: bytes) -> bytes:
    with socket.socket(family) as connection:
        connection.settimeout(RECEIVE_SECONDS)
        connection.connect(place)
        connection.sendall(sent)
        return connection.recv(BUFFER_BYTES)[9:12]
