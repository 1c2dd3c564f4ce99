"""A process has a number of slots, a tenant its share of them, and a slot is released exactly once, however its request
ends.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import wraps
from threading import Event
from typing import Any
from uuid import uuid4

import pytest

from app import limits
from app.auth.devices import Device
from app.limits.attempts import log_in_attempt, password_attempt
from app.limits.concurrency import (
    KNOWN_LOG_INS,
    LOG_INS,
    ConcurrencySlots,
    DeadlineExceeded,
    ReleaseSlot,
    TooManyConcurrentRequests,
)
from app.statements.streams import BoundStream
from tenant_schemas.flask import connections
from tests.app.limits.conftest import Make, World
from tests.factories.metrics import Growth

PATIENCE_SECONDS = 10


def taken(world: World, slug: str) -> int:
    slots: ConcurrencySlots = world.app.extensions[limits.EXTENSION].slots
    return slots.running(world.database.tenant(slug).id)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


def pay(world: World, slug: str) -> Any:
    return world.post(slug, "/api/wallet/payments", json={"amount": "1.00"})


def test_a_tenant_that_hangs_keeps_neither_the_spare_slots_nor_the_place_of_another_member(
    make: Make, threads: ThreadPoolExecutor
) -> None:
    world = make(request_concurrency=8)
    member = world.people.make(eur="member")
    for slug in ("eur", "km"):
        world.people.wallet(world.admin, slug, balance_minor=10_000)
    world.people.wallet(member, "eur", balance_minor=10_000)
    superuser = world.database.as_superuser()
    with superuser.transaction():
        superuser.execute("SELECT FROM eur_schema.wallets WHERE user_id = %s FOR UPDATE", (world.admin.user_id,))
        hanging: list[Future[Any]] = [threads.submit(pay, world, "eur") for _ in range(5)]
        wait_until(lambda: taken(world, "eur") == 5)
        growth = Growth(("wallet_limited_total", {"limit": "concurrency", "of": "caller"}))
        refused = world.get("eur")
        assert (refused.status_code, refused.json["code"]) == (429, "too_many_concurrent_requests")
        assert growth() == [1]
        assert refused.mimetype == "application/problem+json"
        assert refused.headers["Retry-After"] == "1"
        assert refused.json["detail"].startswith("You have too many requests in progress")
        other = [world.api.get("/api/wallet", member, "eur") for _ in range(5)]
        assert [each.status_code for each in other] == [200] * 5
        assert [pay(world, "km").status_code for _ in range(5)] == [201] * 5
        assert not any(each.done() for each in hanging)
    assert [each.result(PATIENCE_SECONDS).status_code for each in hanging] == [201] * 5
    assert (taken(world, "eur"), taken(world, "km")) == (0, 0)
    assert pay(world, "eur").status_code == 201


def test_a_request_waits_for_a_slot_and_is_answered_or_refused_when_its_time_is_over(
    make: Make, threads: ThreadPoolExecutor
) -> None:
    world = make(request_concurrency=1, request_queue=4, queue_seconds=5.0)
    world.people.wallet(world.admin, "eur", balance_minor=10_000)
    slots: ConcurrencySlots = world.app.extensions[limits.EXTENSION].slots
    superuser = world.database.as_superuser()
    with superuser.transaction():
        superuser.execute("SELECT FROM eur_schema.wallets FOR UPDATE")
        first = threads.submit(pay, world, "eur")
        wait_until(lambda: taken(world, "eur") == 1)
        second = threads.submit(world.get, "eur")
        wait_until(lambda: slots.waiting(world.database.tenant("eur").id) == 1)
        slots._wait_seconds = 0.05
        assert world.get("eur").status_code == 429
        slots._wait_seconds, slots._request_seconds = 5.0, 0.05
        assert world.get("eur").status_code == 429, "the deadline of the request ends its wait, too"
        assert not second.done()
    assert (first.result(PATIENCE_SECONDS).status_code, second.result(PATIENCE_SECONDS).status_code) == (201, 200)


def test_a_request_whose_time_is_over_before_it_runs_is_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(request_seconds=0.001)
    monkeypatch.setattr("app.users.standing.connections", slow(connections, 0.01))
    answer = world.get("eur")
    assert (answer.status_code, answer.json["code"]) == (503, "deadline_exceeded")
    assert answer.headers["Retry-After"] == "2"


def slow(call: Callable[[], Any], seconds: float) -> Callable[[], Any]:
    def later() -> Any:
        time.sleep(seconds)
        return call()

    return later


def test_a_refused_request_says_in_the_log_which_limit_it_was_and_whose(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    world = make(request_concurrency=1, caller_rate_limit="2/hour")
    tenant_id = world.database.tenant("eur").id
    with world.api.get("/api/admin/transactions.csv", world.admin, "eur", buffered=False):
        capsys.readouterr()
        assert world.get("eur").status_code == 429
        line = json.loads(capsys.readouterr().out)
        assert (line["limit"], line["limit_of"]) == ("concurrency of the process", str(tenant_id))
    assert world.get("eur").status_code == 429
    line = json.loads(capsys.readouterr().out)
    assert line["limit"] == "rate of the caller"
    assert line["limit_of"].endswith(str(world.admin.user_id))
    assert world.get("km").status_code == 200
    assert "limit" not in json.loads(capsys.readouterr().out)


def test_a_slot_comes_back_after_every_kind_of_answer(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(request_concurrency=1)
    member = world.people.make(eur="member")
    endpoint = next(rule.endpoint for rule in world.app.url_map.iter_rules() if rule.rule == "/api/wallet")

    @wraps(world.app.view_functions[endpoint])
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    answers = {
        200: lambda: world.get("eur"),
        403: lambda: world.api.get("/api/admin/wallets", member, "eur"),
        404: lambda: world.get("eur", f"/api/wallet/transactions/{uuid4()}"),
        409: lambda: world.post("eur", "/api/wallet/payments", json={"amount": "999.00"}),
        413: lambda: world.post("eur", "/api/wallet/payments", json={"amount": "1" * 70_000}),
        422: lambda: world.post("eur", "/api/wallet/payments", json={"amount": 1}),
    }
    for status, ask in answers.items():
        assert (ask().status_code, taken(world, "eur")) == (status, 0)
    assert world.api.send("HEAD", "/api/wallet", world.admin, "eur").status_code == 200
    assert taken(world, "eur") == 0
    monkeypatch.setitem(world.app.view_functions, endpoint, broken)
    assert (world.get("eur").status_code, taken(world, "eur")) == (500, 0)


def test_an_error_that_leaves_the_application_gives_the_slot_back(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(request_concurrency=1)

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(world.app, "finalize_request", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            world.get("eur")
        assert taken(world, "eur") == 0


def test_a_stream_keeps_its_slot_until_it_is_closed_also_halfway_and_gives_it_back_once(make: Make) -> None:
    world = make(request_concurrency=1)
    world.people.wallet(world.admin, "eur", balance_minor=10_000)
    for reads in (0, 1):
        stream = world.api.get("/api/admin/transactions.csv", world.admin, "eur", buffered=False)
        assert stream.status_code == 200
        pieces = stream.iter_encoded()
        for _ in range(reads):
            assert next(pieces)
        assert taken(world, "eur") == 1
        assert world.get("eur").json["code"] == "too_many_concurrent_requests"
        assert taken(world, "eur") == 1, "a refused request holds no slot and releases none"
        stream.close()
        stream.close()
        assert taken(world, "eur") == 0
        assert world.get("eur").status_code == 200


def test_a_stream_that_can_not_be_closed_gives_its_slot_back(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(request_concurrency=1)
    stream = world.api.get("/api/admin/transactions.csv", world.admin, "eur", buffered=False)
    close = BoundStream.close

    def close_and_fail(self: BoundStream) -> None:
        close(self)
        raise OSError

    monkeypatch.setattr(BoundStream, "close", close_and_fail)
    with pytest.raises(OSError):
        stream.close()
    assert taken(world, "eur") == 0


def test_a_response_in_pieces_ends_when_its_time_is_over_and_one_in_one_piece_does_not() -> None:
    def answer(pieces: list[bytes]) -> Iterator[bytes]:
        response = ReleaseSlot(lambda *_: pieces, stream_seconds=0.01)({}, lambda *_: print)
        time.sleep(0.02)
        return iter(response)

    assert list(answer([b"whole"])) == [b"whole"]
    pieces = answer([b"first", b"second"])
    assert next(pieces) == b"first"
    with pytest.raises(DeadlineExceeded):
        next(pieces)


def test_a_tenants_own_maximum_counts_from_the_next_request_on_and_so_does_its_end(make: Make) -> None:
    world = make()
    with world.api.get("/api/admin/transactions.csv", world.admin, "eur", buffered=False):
        assert world.get("eur").status_code == 200
        world.configure("eur", max_concurrent_requests=1)
        assert world.get("eur").status_code == 429
        world.configure("eur", max_concurrent_requests=None)
        assert world.get("eur").status_code == 200
        assert world.get("km").status_code == 200


def test_log_ins_wait_in_turns_by_address_and_leave_the_slots_of_tenants_alone(
    make: Make,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = make(request_concurrency=8, request_queue=16, queue_seconds=5.0)
    may_hash = Event()
    monkeypatch.setattr(
        sys.modules["app.auth.service"], "is_right", lambda *_: may_hash.wait(PATIENCE_SECONDS) and False
    )

    def log_in(address: str) -> Any:
        body = {"email": f"{uuid4()}@example.com", "password": "wrong"}
        environ = {"REMOTE_ADDR": address}
        return world.api.post("/api/auth/login", json=body, environ_base=environ)

    slots: ConcurrencySlots = world.app.extensions[limits.EXTENSION].slots
    flood = [threads.submit(log_in, "192.0.2.1") for _ in range(5)]
    wait_until(lambda: slots.running(LOG_INS) + slots.waiting(LOG_INS) == 5)
    assert slots.running(LOG_INS) == 1, "the second place is for another address"
    other = threads.submit(log_in, "192.0.2.2")
    wait_until(lambda: slots.running(LOG_INS) == 2)
    assert [world.get("eur").status_code for _ in range(5)] == [200] * 5
    wait_until(lambda: sum(each.done() for each in flood) == 4)
    refused = {(each.result().status_code, each.result().json["code"]) for each in flood if each.done()}
    assert refused == {(429, "too_many_concurrent_requests")}
    assert '"limit":"concurrency of the log-ins"' in capsys.readouterr().out
    may_hash.set()
    assert sorted(each.result(PATIENCE_SECONDS).status_code for each in (*flood, other)) == [401] * 2 + [429] * 4
    assert slots.running(LOG_INS) == 0


def test_a_user_with_many_devices_takes_one_turn_and_another_users_device_comes_in(
    make: Make, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over HTTP: each log-in without a device token makes a device."""
    world = make(request_concurrency=8, request_queue=16, queue_seconds=5.0)
    may_hash = Event()
    may_hash.set()
    monkeypatch.setattr(sys.modules["app.auth.service"], "is_right", lambda *_: may_hash.wait(PATIENCE_SECONDS))
    greedy, other = (world.people.make(password_hash="any", eur="member") for _ in range(2))

    def log_in(email: str, **more: str) -> Any:
        body = {"email": email, "password": "right", **more}
        return world.app.test_client(use_cookies=False).post("/api/auth/login", json=body)

    devices = [log_in(greedy.email).json["deviceToken"] for _ in range(4)]
    of_other = log_in(other.email).json["deviceToken"]
    slots: ConcurrencySlots = world.app.extensions[limits.EXTENSION].slots
    may_hash.clear()
    flood = [threads.submit(log_in, greedy.email, deviceToken=device) for device in devices]
    wait_until(lambda: slots.running(KNOWN_LOG_INS) + slots.waiting(KNOWN_LOG_INS) == 4)
    assert slots.running(KNOWN_LOG_INS) == 1, "the second place is for another user"
    answer = threads.submit(log_in, other.email, deviceToken=of_other)
    wait_until(lambda: slots.running(KNOWN_LOG_INS) == 2)
    may_hash.set()
    assert [each.result(PATIENCE_SECONDS).status_code for each in (answer, *flood)] == [200] * 5


def test_a_user_who_proves_the_password_again_and_logs_in_has_one_turn_together(make: Make) -> None:
    world = make(request_concurrency=8, queue_seconds=0.0)
    user_id, other = uuid4(), uuid4()
    with world.app.test_request_context(), password_attempt(user_id, uuid4()):
        with pytest.raises(TooManyConcurrentRequests), password_attempt(user_id, uuid4()):
            pass
        with pytest.raises(TooManyConcurrentRequests), log_in_attempt("", Device(uuid4(), user_id, b"")):
            pass
        with log_in_attempt("", Device(uuid4(), other, b"")):
            pass


def test_known_devices_have_slots_that_strangers_can_not_take(make: Make) -> None:
    slots: ConcurrencySlots = make(request_concurrency=8).app.extensions[limits.EXTENSION].slots
    with slots.log_in("192.0.2.1"), slots.log_in("192.0.2.2"):
        with pytest.raises(TooManyConcurrentRequests), slots.log_in("192.0.2.3"):
            pass
        with slots.known_log_in("a user"), slots.known_log_in("another"):
            assert slots.running(KNOWN_LOG_INS) == 2
    assert slots.running(LOG_INS) == slots.running(KNOWN_LOG_INS) == 0
