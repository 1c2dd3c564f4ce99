"""One tenant's slow work leaves other tenants their share of a real server, and the excess is refused at once."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest

from app.config import DATABASE_NAME, embedded_server
from tests.scripts.test_serve import Caller, served

WAIT_SECONDS = 8  # less than a statement may take


def pay(http: httpx.Client, slug: str) -> httpx.Response:
    headers = {"Idempotency-Key": uuid4().hex}
    return http.post(f"/api/{slug}/wallet/payments", json={"amount": "0.10"}, headers=headers, timeout=30)


def test_a_tenant_whose_requests_all_hang_is_refused_more_and_its_neighbour_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEB_WORKERS", "1")
    monkeypatch.setenv("WEB_THREADS", "4")
    with served(tmp_path) as (url, _, _process), Caller(url, "member") as http, ThreadPoolExecutor(12) as threads:
        assert [pay(http, slug).status_code for slug in ("eur", "km")] == [201, 201]
        database = embedded_server(tmp_path / "data")
        try:
            with psycopg.connect(database.superuser_url(DATABASE_NAME)) as locker:
                locker.execute("SELECT FROM eur_schema.wallets FOR UPDATE")
                noisy: list[Future[httpx.Response]] = [threads.submit(pay, http, "eur") for _ in range(12)]
                deadline = time.monotonic() + WAIT_SECONDS
                while sum(each.done() for each in noisy) < 10 and time.monotonic() < deadline:
                    time.sleep(0.02)
                refused = [each.result() for each in noisy if each.done()]
                assert [pay(http, "km").status_code for _ in range(20)] == [201] * 20
                assert sum(not each.done() for each in noisy) == 2, "half of the threads still hang"
        finally:
            database.release()
        assert {(each.status_code, each.json()["code"]) for each in refused} == {(429, "too_many_concurrent_requests")}
        assert {each.headers["Retry-After"] for each in refused} == {"1"}
        assert sorted(each.result(30).status_code for each in noisy) == [201] * 2 + [429] * 10
