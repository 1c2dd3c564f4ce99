"""A message goes to the address that was checked, under the name of the URL, and its answer takes a bounded time and
memory.
"""

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pytest

from app.webhooks.addresses import AddressRules
from app.webhooks.sender import Answer, Failure, Sender
from tests.factories.certificates import self_signed
from tests.factories.ports import free_port
from tests.factories.webhooks import HOST, NAME, Consumer, Reply, consumer_of_webhooks

HEADERS = {"Content-Type": "application/json"}


def send(sender: Sender, url: str, body: bytes = b"{}") -> Answer:
    return sender.send(url, HEADERS, body)


def test_a_message_arrives_with_the_names_of_the_url(consumer: Consumer, hooks_sender: Sender) -> None:
    answer = send(hooks_sender, consumer.url("/hook?a=b"), b'{"a":1}')
    (got,) = consumer.take()
    assert (answer.status, answer.is_success, answer.text) == (200, True, "ok")
    assert (got.path, got.body, got.headers["host"]) == ("/hook?a=b", b'{"a":1}', f"{NAME}:{consumer.port}")
    assert consumer.server_names == [NAME]


def test_messages_of_a_channel_share_a_connection(consumer: Consumer, hooks_sender: Sender) -> None:
    channel = hooks_sender.open(consumer.url())
    assert not isinstance(channel, Answer)
    with channel:
        for _ in range(3):
            assert channel.send(HEADERS, b"{}").is_success
    assert len({got.connection for got in consumer.take()}) == 1


def test_a_name_that_leads_elsewhere_a_moment_later_is_not_asked_again(
    consumer: Consumer, hooks_sender: Sender
) -> None:
    """DNS rebinding: the first answer passes the check; connecting would get the second one."""
    asked: list[str] = []

    def rebound(host: str, _: int) -> list[str]:
        asked.append(host)
        return [HOST] if len(asked) == 1 else ["169.254.169.254"]

    channel = replace(hooks_sender, resolve=rebound).open(consumer.url())
    assert not isinstance(channel, Answer)
    with channel:
        assert channel.send(HEADERS, b"{}").is_success
    assert asked == [NAME]


def test_one_private_address_among_public_ones_refuses_all(consumer: Consumer, hooks_sender: Sender) -> None:
    strict = replace(hooks_sender, rules=AddressRules(), resolve=lambda *_: ["8.8.8.8", HOST])
    answer = send(strict, "https://hooks.example/")
    assert (answer.failure, answer.is_success) == (Failure.NO_ALLOWED_ADDRESS, False)
    assert consumer.take() == []


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_an_answer_and_is_not_followed(consumer: Consumer, hooks_sender: Sender, status: int) -> None:
    consumer.answer = lambda _: Reply(status, {"Location": consumer.url("/other")})
    answer = send(hooks_sender, consumer.url())
    assert (answer.status, answer.is_success) == (status, False)
    assert [got.path for got in consumer.take()] == ["/hook"]


def test_the_environments_proxy_is_not_used(
    consumer: Consumer, hooks_sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{HOST}:1")
    assert send(hooks_sender, consumer.url()).is_success


def test_of_a_long_answer_the_first_kilobyte_is_kept(consumer: Consumer, hooks_sender: Sender) -> None:
    consumer.answer = lambda _: Reply(500, {"Retry-After": "7"}, b"a\0\xff" + b"b" * 100_000)
    answer = send(hooks_sender, consumer.url())
    assert (answer.status, answer.retry_after, len(answer.text)) == (500, "7", 1024)
    assert answer.text.startswith("a\ufffd\ufffdb")


@contextmanager
def dripping(first: bytes) -> Iterator[int]:
    """A server that sends a byte of its answer now and then, for ever. Yields its port."""
    with socket.create_server((HOST, 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                try:
                    connection.sendall(first)
                    while True:
                        time.sleep(0.05)
                        connection.sendall(b"x")
                except OSError:
                    return

        Thread(target=drip, daemon=True).start()
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("first", "failure", "status"),
    [(b"HTTP/1.1 200 OK\r\nX: ", Failure.TIMED_OUT, None), (b"HTTP/1.1 200 OK\r\n\r\nfirst", None, 200)],
    ids=["headers", "body"],
)
def test_an_answer_that_drips_has_an_end(
    hooks_sender: Sender, first: bytes, failure: Failure | None, status: int | None
) -> None:
    started = time.monotonic()
    with dripping(first) as port:
        answer = send(replace(hooks_sender, answer_seconds=0.3), f"http://{NAME}:{port}/")
    assert (answer.failure, answer.status) == (failure, status)
    assert time.monotonic() - started < 2
    assert (status is None) or answer.text.startswith("firstx")


def test_a_certificate_must_be_of_the_name_and_trusted(
    consumer: Consumer, hooks_sender: Sender, tmp_path: Path
) -> None:
    untrusting = replace(hooks_sender, tls=ssl.create_default_context())
    assert send(untrusting, consumer.url()).failure == Failure.TLS_FAILED
    other = self_signed(tmp_path / "other.pem", "other.example")
    with consumer_of_webhooks(other) as impostor:
        trusting = replace(hooks_sender, tls=ssl.create_default_context(cafile=other))
        assert send(trusting, impostor.url()).failure == Failure.TLS_FAILED
        assert impostor.take() == []
    assert consumer.take() == []


def test_what_can_not_be_reached_says_why(hooks_sender: Sender) -> None:
    closed = f"https://{NAME}:{free_port()}/"
    assert send(hooks_sender, closed).failure == Failure.CONNECTION_FAILED

    def unknown(host: str, _: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, f"{host} is unknown")

    answer = send(replace(hooks_sender, resolve=unknown), "https://hooks.example/")
    assert (answer.failure, answer.text) == (Failure.NO_ALLOWED_ADDRESS, "")
    private = send(replace(hooks_sender, resolve=lambda *_: ["10.0.0.1"]), "https://hooks.example/")
    assert (private.failure, private.text) == (answer.failure, answer.text), "no tenant learns which names there are"


def test_a_resolver_that_hangs_has_an_end(hooks_sender: Sender) -> None:
    ended = Event()

    def hang(*_: object) -> list[str]:
        ended.wait(10)
        return [HOST]

    started = time.monotonic()
    answer = send(replace(hooks_sender, resolve=hang, resolve_seconds=0.1), "https://hooks.example/")
    assert answer.failure == Failure.NO_ALLOWED_ADDRESS
    assert time.monotonic() - started < 5
    ended.set()


def test_the_next_address_is_tried_if_none_answers_at_the_first(consumer: Consumer, hooks_sender: Sender) -> None:
    both = replace(hooks_sender, resolve=lambda *_: ["127.0.0.2", HOST])
    assert send(both, consumer.url()).is_success
    assert len(consumer.take()) == 1


def test_an_answer_without_a_status_line_is_a_failure(hooks_sender: Sender) -> None:
    with dripping(b"no http\r\n\r\n") as port:
        assert send(hooks_sender, f"http://{NAME}:{port}/").failure == Failure.CONNECTION_FAILED
