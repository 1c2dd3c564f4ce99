"""On a real server with the default settings no caller takes what another needs: requests that hang, loops of a member,
a flood of log-ins. All that an honest browser sends at once is answered.
"""

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Event
from typing import Any
from uuid import uuid4

import httpx
import pytest
from flask import Flask

from scripts.serve import HOST, THREADS, start_gunicorn, wait_until_ready
from tenant_schemas.testing.plugin import Database
from tests.conftest import SECRET_KEY, SIGNING_KEYS
from tests.factories.people import People, Person

PAGE_REQUESTS = 12
BROWSERS = 10
TIMEOUT_SECONDS = 60


@contextmanager
def served(database: Database, monkeypatch: pytest.MonkeyPatch, workers: int = 2, **settings: str) -> Iterator[str]:
    """The service as `scripts.serve` starts it, with its default number of threads; yields its URL."""
    given = {
        "DATABASE_URL": database.app_url,
        "TENANT_SECRET": database.tenant_secret,
        "SECRET_KEY": SECRET_KEY,
        "SIGNING_KEYS": SIGNING_KEYS,
        "LOG_LEVEL": "error",
    }
    for name, value in (given | settings).items():
        monkeypatch.setenv(name, value)
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    process = start_gunicorn(HOST, port, workers, THREADS)
    try:
        assert wait_until_ready(process, HOST, port)
        yield f"http://{HOST}:{port}"
    finally:
        process.terminate()
        process.wait(TIMEOUT_SECONDS)


@pytest.fixture
def people(fresh_app: Flask) -> People:
    return People(fresh_app)


def client(url: str, person: Person, slug: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {person.token}", "X-Tenant": slug}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_SECONDS, limits=limits)


def pay(http: httpx.Client) -> httpx.Response:
    return http.post("/api/wallet/payments", json={"amount": "0.10"}, headers={"Idempotency-Key": uuid4().hex})


def loop(stopped: Event, call: Callable[[], Any]) -> int:
    """Call until stopped; returns the number of calls."""
    number = 0
    while not stopped.is_set():
        call()
        number += 1
    return number


def test_all_parallel_requests_of_one_browser_and_of_ten_are_answered(
    fresh_database: Database, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [people.make(eur="member") for _ in range(BROWSERS)]
    for member in members:
        people.wallet(member, "eur", balance_minor=1_000)
    with served(fresh_database, monkeypatch) as url, ThreadPoolExecutor(BROWSERS * PAGE_REQUESTS) as threads:
        for browsers in (members[:1], members):
            clients = [client(url, member, "eur") for member in browsers]
            jobs = [threads.submit(http.get, "/api/wallet") for http in clients for _ in range(PAGE_REQUESTS)]
            assert {job.result().status_code for job in jobs} == {200}
            for http in clients:
                http.close()


def test_a_tenant_whose_requests_hang_leaves_slots_to_its_neighbour_and_to_its_other_members(
    fresh_database: Database, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy, other = people.make(eur="member", km="member"), people.make(eur="member")
    for person, slug in ((noisy, "eur"), (noisy, "km"), (other, "eur")):
        people.wallet(person, slug, balance_minor=10_000)
    superuser = fresh_database.as_superuser()
    with (
        served(fresh_database, monkeypatch, workers=1, QUEUE_SECONDS="1") as url,
        client(url, noisy, "eur") as hanging,
        client(url, noisy, "km") as neighbour,
        client(url, other, "eur") as member,
        ThreadPoolExecutor(20) as threads,
    ):
        with superuser.transaction():
            superuser.execute("SELECT FROM eur_schema.wallets WHERE user_id = %s FOR UPDATE", (noisy.user_id,))
            jobs: list[Future[httpx.Response]] = [threads.submit(pay, hanging) for _ in range(20)]
            wait(jobs, timeout=0.5)
            assert [pay(neighbour).status_code for _ in range(10)] == [201] * 10
            assert [pay(member).status_code for _ in range(10)] == [201] * 10
            deadline = time.monotonic() + TIMEOUT_SECONDS
            while sum(job.done() for job in jobs) < 15:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            refused = [job.result() for job in jobs if job.done()]
            assert {(each.status_code, each.json()["code"]) for each in refused} == {
                (429, "too_many_concurrent_requests")
            }
            assert {each.headers["Retry-After"] for each in refused} == {"1"}
            assert [pay(neighbour).status_code for _ in range(10)] == [201] * 10
        assert sorted(job.result().status_code for job in jobs) == [201] * 5 + [429] * 15


def test_a_members_loops_have_no_other_member_and_no_other_tenant_refused(
    fresh_database: Database, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    loops, other = people.make(eur="member"), people.make(eur="member", km="member")
    for person, slug in ((loops, "eur"), (other, "eur"), (other, "km")):
        people.wallet(person, slug, balance_minor=10_000)
    stopped = Event()
    with (
        served(
            fresh_database, monkeypatch, CALLER_RATE_LIMIT="999999/minute", TENANT_RATE_LIMIT="999999/minute"
        ) as url,
        client(url, loops, "eur") as looping,
        client(url, other, "eur") as member,
        client(url, other, "km") as neighbour,
        ThreadPoolExecutor(32) as threads,
    ):
        jobs = [threads.submit(loop, stopped, lambda: looping.get("/api/wallet/transactions")) for _ in range(32)]
        try:
            statuses = {http.get("/api/wallet").status_code for _ in range(30) for http in (member, neighbour)}
        finally:
            stopped.set()
        assert statuses == {200}
        assert sum(job.result() for job in jobs) > 0


def test_a_flood_of_log_ins_is_refused_by_one_count_and_has_nobody_else_refused(
    fresh_database: Database, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = people.make(km="member")
    people.wallet(member, "km", balance_minor=10_000)

    def log_in(url: str) -> int:
        body = {"email": f"{uuid4().hex}@example.com", "password": "wrong"}
        return httpx.post(f"{url}/api/auth/login", json=body, timeout=TIMEOUT_SECONDS).status_code

    with (
        served(fresh_database, monkeypatch, LOGIN_RATE_LIMIT="20/hour") as url,
        client(url, member, "km") as http,
        ThreadPoolExecutor(70) as threads,
    ):
        flood = [threads.submit(log_in, url) for _ in range(70)]
        paid = [pay(http).status_code for _ in range(30)]
        assert paid == [201] * 30
        answers = [job.result() for job in flood]
        assert set(answers) == {401, 429}
        assert answers.count(401) <= 20, "both processes count together"
        assert log_in(url) == 429
