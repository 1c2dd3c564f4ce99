"""The number of Python calls of a request, which no load of the machine changes. More calls are more CPU time."""

import sys
from collections.abc import Callable
from contextlib import closing
from types import FrameType
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from flask import Flask
from werkzeug.test import EnvironBuilder

from tests.factories.people import People, Person

# The most calls of each request, a little above those of today. Lower them with the calls; a rise needs a reason.
MOST_PAYMENT_CALLS: Final = 459
MOST_WALLET_CALLS: Final = 973
# Dicts that other tests have filled compare keys whose hashes collide.
COMPARISON: Final = UUID.__eq__.__code__
# The first requests prepare statements and fill caches.
FIRST_REQUESTS: Final = 6
COUNTED_REQUESTS: Final = 6


@pytest.fixture
def member(people: People) -> Person:
    person = people.make(eur="member")
    people.wallet(person, "eur", balance_minor=1_000_000)
    return person


def calls_of(app: Flask, make_environ: Callable[[], dict[str, Any]], status: str) -> int:
    """The calls of one request. The least of several is counted: others may include a clean-up."""
    counts = [_count(app, make_environ(), status) for _ in range(FIRST_REQUESTS + COUNTED_REQUESTS)]
    return min(counts[FIRST_REQUESTS:])


def _count(app: Flask, environ: dict[str, Any], status: str) -> int:
    count = 0

    def note(frame: FrameType, event: str, _: Any) -> None:
        nonlocal count
        count += event == "call" and frame.f_code is not COMPARISON

    statuses: list[str] = []
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        with closing(app(environ, lambda status, *_: statuses.append(status))) as answer:
            body = b"".join(answer)
    finally:
        sys.setprofile(before)
    assert statuses == [status], body
    return count


def environ_of(person: Person, method: str, path: str, **more: Any) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {person.token}", "X-Tenant": "eur", "Idempotency-Key": uuid4().hex}
    return EnvironBuilder(path, method=method, headers=headers, **more).get_environ()


def test_a_payment_makes_few_calls(app: Flask, member: Person) -> None:
    body = {"amount": "1.25", "orderId": "order-1", "description": "a payment"}

    def pay() -> dict[str, Any]:
        return environ_of(member, "POST", "/api/wallet/payments", json=body | {"orderId": uuid4().hex})

    assert calls_of(app, pay, "201 CREATED") <= MOST_PAYMENT_CALLS


def test_a_look_at_a_wallet_makes_few_calls(app: Flask, member: Person) -> None:
    def look() -> dict[str, Any]:
        return environ_of(member, "GET", "/api/wallet")

    assert calls_of(app, look, "200 OK") <= MOST_WALLET_CALLS
