"""With a Redis all processes count together. Without it each counts by itself, and no request fails."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis
from limits import parse

from app.limits.counters import RedisCounters
from tests.app.limits.conftest import Make, World

REDIS = shutil.which("redis-server")
PATIENCE_SECONDS = 10

pytestmark = pytest.mark.skipif(REDIS is None, reason="redis-server is not installed; on Debian: apt install it")


@contextmanager
def running(port: int) -> Iterator[None]:
    """A Redis without persistence."""
    command = [str(REDIS), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port) as client:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while True:
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
        yield
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def two(make: Make, port: int) -> tuple[World, World]:
    told = {"tenant_rate_limit": "5/hour", "rate_limit_storage_url": f"redis://127.0.0.1:{port}/0"}
    return make(**told), make(**told)


def test_two_processes_count_together_and_tenants_apart(make: Make, port: int) -> None:
    with running(port):
        one, other = two(make, port)
        answers = [world.get("eur") for world in (one, other) * 3]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429]
        assert [answer.headers["RateLimit-Remaining"] for answer in answers] == ["4", "3", "2", "1", "0", "0"]
        assert 3500 < int(answers[-1].headers["Retry-After"]) <= 3600
        assert other.get("km").headers["RateLimit-Remaining"] == "4"


def test_without_redis_each_process_counts_for_itself_until_it_is_back_and_says_so_in_the_log(
    make: Make, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(port):
        one, other = two(make, port)
        assert [one.get("eur").status_code for _ in range(5)] == [200] * 5
    capsys.readouterr()
    assert [one.get("eur").status_code for _ in range(6)] == [200] * 5 + [429]
    assert [other.get("eur").status_code for _ in range(2)] == [200] * 2
    logged = capsys.readouterr().out
    assert logged.count('"event": "rate_limit_storage_lost"') >= 2
    assert "unexpected_error" not in logged
    with running(port):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while one.get("eur").status_code == 429:  # The new Redis has counted nothing yet.
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert other.get("eur").status_code == 200
    assert one.get("km").status_code == 200


def test_a_process_that_starts_without_redis_serves(make: Make, port: int) -> None:
    one, _ = two(make, port)
    assert [one.get("eur").status_code for _ in range(6)] == [200] * 5 + [429]


def test_what_is_cleared_counts_from_one_with_redis_and_without(port: int) -> None:
    limit = parse("9/hour")
    with running(port):
        counts = RedisCounters(f"redis://127.0.0.1:{port}/0")
        assert [counts.add(limit, "account", "a").number for _ in range(2)] == [1, 2]
        counts.clear(limit, "account", "a")
        assert counts.add(limit, "account", "a").number == 1
    assert [counts.add(limit, "account", "a").number for _ in range(2)] == [1, 2], "the process counts"
    counts.clear(limit, "account", "a")
    assert counts.add(limit, "account", "a").number == 1
