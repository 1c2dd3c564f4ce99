"""Only a CloudEvent of a known type is a command; everything else in a queue is a dead letter."""

from typing import Any

import orjson
import pytest

from app.queue_commands.errors import NotACommand
from app.queue_commands.messages import MAX_BYTES, read_command

RIGHT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "order-1",
    "source": "/shop",
    "type": "wallet.payment.requested.v1",
    "data": {"walletId": "w", "amount": "1.00"},
}


def test_a_command_is_named_by_source_and_id() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    found = read_command(orjson.dumps({**RIGHT, "traceparent": trace, "time": "ignored"}))
    assert (found.source, found.id, found.verb, found.data) == ("/shop", "order-1", "payment", RIGHT["data"])
    assert found.traceparent == trace
    assert read_command(orjson.dumps({**RIGHT, "traceparent": "'; DROP"})).traceparent is None


def test_the_fingerprint_is_of_what_is_asked_for() -> None:
    def fingerprint(**changed: Any) -> bytes:
        return read_command(orjson.dumps({**RIGHT, **changed})).fingerprint

    assert fingerprint() == fingerprint(data={"amount": "1.00", "walletId": "w"}, time="2026-01-01T00:00:00Z")
    assert fingerprint() != fingerprint(data={"amount": "1.00", "walletId": "x"})
    assert fingerprint() != fingerprint(type="wallet.deposit.requested.v1")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"\xff",
        b"[]",
        b"null",
        b"[" * 20_000,
        b'{"id": "1", "id": "2"}',
        b'{"id": "\\u0000"}',
        b" " * (MAX_BYTES + 1),
    ],
)
def test_what_is_no_json_object_is_no_command(body: bytes) -> None:
    with pytest.raises(NotACommand):
        read_command(body)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("specversion", "0.3"),
        ("specversion", None),
        ("id", ""),
        ("id", 1),
        ("id", "a:b"),  # Else `command:a:b:c` would be the key of two commands.
        ("id", "x" * 101),
        ("id", "order 1"),
        ("source", ""),
        ("source", "x" * 101),
        ("source", "/shöp"),
        ("source", None),
        ("type", "wallet.payment.posted.v1"),
        ("type", "wallet.adjustment.requested.v1"),
        ("type", "wallet.payment.requested.v2"),
        ("type", None),
        ("data", []),
        ("data", None),
    ],
)
def test_a_wrong_attribute_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(NotACommand, match="CloudEvent" if name == "specversion" else f"`{name}`"):
        read_command(orjson.dumps({**RIGHT, name: value}))
