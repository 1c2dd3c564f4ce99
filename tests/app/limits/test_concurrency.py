"""A tenant has so many slots in each process, and a slot comes back exactly once, however its request ends."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import wraps
from typing import Any
from uuid import uuid4

import pytest

from app import limits
from app.limits.concurrency import ConcurrencySlots, TooManyConcurrentRequests
from app.statements.streams import BoundStream
from tests.app.limits.conftest import Make, World

PATIENCE_SECONDS = 10


def taken(world: World, slug: str) -> int:
    slots: ConcurrencySlots = world.app.extensions[limits.EXTENSION].slots
    return slots.taken(world.database.tenant(slug).id)


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


def test_one_request_too_many_is_refused_at_once_while_the_other_tenant_is_answered(
    make: Make, threads: ThreadPoolExecutor
) -> None:
    world = make(tenant_concurrency=3)
    for slug in ("eur", "km"):
        world.people.wallet(world.admin, slug, balance_minor=10_000)
    superuser = world.database.as_superuser()
    with superuser.transaction():
        superuser.execute("SELECT FROM eur_schema.wallets FOR UPDATE")
        hanging: list[Future[Any]] = [threads.submit(pay, world, "eur") for _ in range(3)]
        wait_until(lambda: taken(world, "eur") == 3)
        refused = world.get("eur")
        assert (refused.status_code, refused.json["code"]) == (429, "too_many_concurrent_requests")
        assert refused.mimetype == "application/problem+json"
        assert refused.headers["Retry-After"] == "1"
        assert refused.headers["RateLimit-Limit"] == "999999999"
        assert [pay(world, "km").status_code for _ in range(5)] == [201] * 5
        assert not any(each.done() for each in hanging)
    assert [each.result(PATIENCE_SECONDS).status_code for each in hanging] == [201] * 3
    assert (taken(world, "eur"), taken(world, "km")) == (0, 0)
    assert pay(world, "eur").status_code == 201


def test_of_many_at_once_exactly_as_many_get_a_slot_as_there_are(threads: ThreadPoolExecutor) -> None:
    slots, tenant_id = ConcurrencySlots(), uuid4()

    def try_to_take(_: int) -> bool:
        try:
            slots.take({}, tenant_id, 50)
        except TooManyConcurrentRequests:
            return False
        return True

    assert sum(threads.map(try_to_take, range(2000))) == 50
    list(threads.map(lambda _: slots.release(tenant_id), range(50)))
    assert slots.taken(tenant_id) == 0


def test_a_slot_comes_back_after_every_kind_of_answer(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(tenant_concurrency=1)
    member = world.people.make(eur="member")
    endpoint = next(rule.endpoint for rule in world.app.url_map.iter_rules() if rule.rule == "/api/wallet")

    @wraps(world.app.view_functions[endpoint])
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    answers = {
        200: lambda: world.get("eur"),
        403: lambda: world.api.get("/api/admin/wallets", member, "eur", buffered=True),
        404: lambda: world.get("eur", f"/api/wallet/transactions/{uuid4()}"),
        409: lambda: world.post("eur", "/api/wallet/payments", json={"amount": "999.00"}),
        413: lambda: world.post("eur", "/api/wallet/payments", json={"amount": "1" * 70_000}),
        422: lambda: world.post("eur", "/api/wallet/payments", json={"amount": 1}),
    }
    for status, ask in answers.items():
        assert (ask().status_code, taken(world, "eur")) == (status, 0)
    assert world.api.send("HEAD", "/api/wallet", world.admin, "eur", buffered=True).status_code == 200
    assert taken(world, "eur") == 0
    monkeypatch.setitem(world.app.view_functions, endpoint, broken)
    assert (world.get("eur").status_code, taken(world, "eur")) == (500, 0)


def test_an_error_that_leaves_the_application_gives_the_slot_back(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(tenant_concurrency=1)

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(world.app, "finalize_request", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            world.get("eur")
        assert taken(world, "eur") == 0


def test_a_stream_keeps_its_slot_until_it_is_closed_also_halfway_and_gives_it_back_once(make: Make) -> None:
    world = make(tenant_concurrency=1)
    world.people.wallet(world.admin, "eur", balance_minor=10_000)
    for reads in (0, 1):
        stream = world.api.get("/api/admin/transactions/export", world.admin, "eur")
        assert stream.status_code == 200
        pieces = stream.iter_encoded()
        for _ in range(reads):
            assert next(pieces)
        assert taken(world, "eur") == 1
        assert world.get("eur").json["code"] == "too_many_concurrent_requests"
        assert taken(world, "eur") == 1, "whoever is refused holds nothing, and gives nothing back"
        stream.close()
        stream.close()
        assert taken(world, "eur") == 0
        assert world.get("eur").status_code == 200


def test_a_stream_that_can_not_be_closed_gives_its_slot_back(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(tenant_concurrency=1)
    stream = world.api.get("/api/admin/transactions/export", world.admin, "eur")
    close = BoundStream.close

    def close_and_fail(self: BoundStream) -> None:
        close(self)
        raise OSError

    monkeypatch.setattr(BoundStream, "close", close_and_fail)
    with pytest.raises(OSError):
        stream.close()
    assert taken(world, "eur") == 0


def test_a_tenants_own_cap_counts_from_the_next_request_on_and_so_does_its_end(make: Make) -> None:
    world = make(tenant_concurrency=1)
    with world.api.get("/api/admin/transactions/export", world.admin, "eur"):
        assert world.get("eur").status_code == 429
        world.configure("eur", max_concurrent_requests=2)
        assert world.get("eur").status_code == 200
        world.configure("eur", max_concurrent_requests=None)
        assert world.get("eur").status_code == 429
        assert world.get("km").status_code == 200
