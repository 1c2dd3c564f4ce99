"""Reads what others sent. Both receivers of events, the queue and the webhook, read them here: what passes can be
proven, stored and shown, and no content of a message stops the next one.
"""

import json
from typing import Any

MAX_BYTES = 1 << 20
MAX_DEPTH = 20
MAX_SEQ = 2**63 - 1  # Of an integer in the database.
PROOF = ("seq", "hash", "previousHash")


class Unreadable(ValueError):
    """The body is not what it should be. It would not be so the next time either."""


def read_event(body: bytes) -> dict[str, Any]:
    """An event of the wallet. The members that this application uses have their types; others are taken as they are.
    Raises Unreadable.
    """
    event = read_object(body)
    data = event.get("data")
    if event.get("specversion") != "1.0" or not isinstance(data, dict):
        raise Unreadable("the body is no CloudEvent 1.0 with data")
    _demand_texts(event, "source", "id", "type")
    if data.get("walletId") is not None:
        _demand_texts(data, "walletId")
    if str(event["type"]).endswith(".posted.v1") or not data.keys().isdisjoint(PROOF):
        _demand_proof(event, data)
    return event


def read_object(body: bytes) -> dict[str, Any]:
    """A JSON object in UTF-8. Raises Unreadable, also for a value that could not be written again: nested deeply, NaN,
    infinite, a lone surrogate.
    """
    if len(body) > MAX_BYTES:
        raise Unreadable(f"the body is longer than {MAX_BYTES} bytes")
    try:
        found = json.loads(body.decode())
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"the body is no JSON in UTF-8: {error}") from None
    if not isinstance(found, dict) or not _is_flat(found):
        raise Unreadable(f"the body is no JSON object of at most {MAX_DEPTH} levels")
    return found


def _demand_texts(members: dict[str, Any], *names: str) -> None:
    for name in names:
        if not isinstance(members.get(name), str) or not members[name]:
            raise Unreadable(f"{name} is no text")


def _demand_proof(event: dict[str, Any], data: dict[str, Any]) -> None:
    _demand_texts(event, "feedid")
    _demand_texts(data, "walletId", "hash", "previousHash")
    if type(data.get("seq")) is not int or not 1 <= data["seq"] <= MAX_SEQ:
        raise Unreadable("seq is no positive integer")


def _is_flat(value: Any) -> bool:
    """Whether it has at most MAX_DEPTH levels: less than the code that stores and shows it can go down."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _members(outer)]
        if not level:
            return True
    return False


def _members(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
