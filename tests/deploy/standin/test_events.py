"""One reader for the queue and the webhook: what is no event of the wallet is refused, and nothing else."""

import json
from typing import Any

import pytest

from deploy.standin.events import MAX_BYTES, MAX_SEQ, Unreadable, read_event
from tests.deploy.standin.test_inbox import movement

DEEP = 100_000


def with_data(**more: Any) -> dict[str, Any]:
    return movement(1, data=movement(1)["data"] | more)


def without(event: dict[str, Any], *names: str) -> dict[str, Any]:
    data = {name: value for name, value in event["data"].items() if name not in names}
    return {name: value for name, value in (event | {"data": data}).items() if name not in names}


def nested(levels: int) -> dict[str, Any]:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return with_data(new=value)


EVENTS: dict[str, dict[str, Any]] = {
    "a movement": movement(1),
    "of a new type, with new members": with_data(new=[{"a": None}, 1.5, True, "é"]) | {"type": "new.v2", "new": {}},
    "of a hold": movement(1, type="hold.voided.v1", data={"walletId": "w", "holdId": "h", "amount": "1.00"}),
    "of a command that named no wallet": movement(1, type="wallet.void.refused.v1", data={"walletId": None}),
    "a test of a webhook": without(movement(1, type="webhook.test.v1", data={}), "feedid"),
    "the last movement": with_data(seq=MAX_SEQ),
}
TEXTS = ("id", "source", "type", "feedid")
OF_DATA = ("hash", "previousHash", "walletId")
REQUIRED = (*TEXTS, "specversion", "data", "seq", *OF_DATA)
# By the member that is wrong. Some of them stopped the consumer, or were answered with 500.
WRONG: dict[str, dict[str, Any]] = {
    **{f"{name} {value!r}": movement(1) | {name: value} for name in TEXTS for value in ([], 5, "")},
    **{f"without {name}": without(movement(1), name) for name in REQUIRED},
    **{f"data {value!r}": movement(1) | {"data": value} for value in (None, [], "text")},
    **{f"seq {value!r}": with_data(seq=value) for value in ("1", 1.0, True, None, 0, -1, MAX_SEQ + 1)},
    **{f"{name} {value!r}": with_data(**{name: value}) for name in OF_DATA for value in ({}, 5)},
    "a movement without its proof": without(
        movement(1, type="wallet.payment.posted.v1"), "seq", "hash", "previousHash"
    ),
    "deeper than the code that shows it": nested(200),
    "a lone surrogate": with_data(description="\ud800"),
    "a lone surrogate as a name": with_data(**{"\ud800": 1}),
    "infinite": with_data(new=float("inf")),
    "not a number": with_data(new=float("nan")),
}
BODIES: dict[str, bytes] = {
    **{text: text.encode() for text in ("", "{", "[]", "5", "null", "{}", '{"id": "1"}')},
    "not UTF-8": b"\xff",
    "UTF-16": json.dumps(movement(1)).encode("utf-16"),
    "deep lists": b"[" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "a long number": b'{"a": ' + b"9" * 5_000 + b"}",
    "an infinite number": b'{"a": 1e999}',
    "too long": json.dumps(movement(1, new="x" * MAX_BYTES)).encode(),
}


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_is_read_as_it_is(name: str) -> None:
    assert read_event(json.dumps(EVENTS[name]).encode()) == EVENTS[name]


@pytest.mark.parametrize("name", WRONG)
def test_an_event_with_a_wrong_member_is_unreadable(name: str) -> None:
    with pytest.raises(Unreadable):
        read_event(json.dumps(WRONG[name]).encode())


@pytest.mark.parametrize("name", BODIES)
def test_what_is_no_event_is_unreadable(name: str) -> None:
    with pytest.raises(Unreadable):
        read_event(BODIES[name])
