"""Log-ins are counted over all processes without Redis; a refused one costs no query."""

from concurrent.futures import ThreadPoolExecutor
from time import time
from typing import Any

import pytest
from limits import parse
from psycopg.rows import TupleRow

from app.limits.counters import ProcessCounters
from app.limits.database_counters import DatabaseCounters
from tenant_schemas.search_path import BindingEngine
from tests.app.limits.conftest import Make, World

SECRET = "a secret of the tests"


def log_in(world: World, email: str, address: str) -> Any:
    body = {"email": email, "password": "wrong"}
    return world.api.post("/api/auth/login", json=body, environ_base={"REMOTE_ADDR": address})


def test_two_processes_count_the_log_ins_of_an_address_and_of_an_account_together(make: Make) -> None:
    one, other = (make(login_rate_limit="4/hour", account_failure_limit="4/hour") for _ in range(2))
    by_address = [log_in(world, f"{n}@example.com", "192.0.2.1") for n, world in enumerate((one, other) * 3)]
    assert [answer.status_code for answer in by_address] == [401] * 4 + [429] * 2
    by_account = [log_in(world, "one@example.com", f"192.0.2.{9 + n}") for n, world in enumerate((one, other) * 3)]
    assert [answer.status_code for answer in by_account] == [401] * 4 + [429] * 2
    assert 3500 < int(by_account[-1].headers["Retry-After"]) <= 3600


def test_a_flood_of_refused_log_ins_costs_no_query(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(login_rate_limit="2/hour")
    statuses = [log_in(world, f"{n}@example.com", "192.0.2.1").status_code for n in range(3)]
    assert statuses == [401, 401, 429]
    monkeypatch.setattr(BindingEngine, "one_statement", None)
    monkeypatch.setattr(BindingEngine, "connect", None)
    assert {log_in(world, f"{n}@example.com", "192.0.2.1").status_code for n in range(20)} == {429}


def test_of_many_attempts_at_once_exactly_as_many_pass_as_the_limit_says(make: Make) -> None:
    world, limit = make(), parse("25/hour")
    processes = [DatabaseCounters(SECRET) for _ in range(4)]

    def count(number: int) -> int:
        with world.app.app_context():
            return processes[number % 4].add(limit, "address", "192.0.2.1").number

    with ThreadPoolExecutor(8) as threads:
        numbers = list(threads.map(count, range(100)))
    assert sum(number <= 25 for number in numbers) == 25


def test_a_window_that_is_over_begins_anew_and_others_that_are_over_are_swept(make: Make) -> None:
    world, counts = make(), DatabaseCounters(SECRET)
    superuser = world.database.as_superuser()
    with world.app.app_context():
        assert [counts.add(parse("9/hour"), "address", who).number for who in ("a", "b", "b")] == [1, 1, 2]
        superuser.execute("UPDATE shared.attempt_counts SET ends_at = now() - interval '1 second'")
        assert counts.add(parse("9/hour"), "address", "b").number == 1
        counts._next_sweep = 0.0
        counts.add(parse("9/hour"), "address", "b")
    assert superuser.execute("SELECT array_agg(number) FROM shared.attempt_counts").fetchone() == ([2],)


def test_a_count_that_is_taken_back_leaves_no_row(make: Make) -> None:
    world, limit = make(), parse("2/hour")
    one, other = DatabaseCounters(SECRET), DatabaseCounters(SECRET)
    with world.app.app_context():
        assert [counts.add(limit, "account", "a").number for counts in (one, other)] == [1, 2]
        one.take_back(limit, "account", "a")
        assert other.add(limit, "account", "a").number == 2
        for counts in (one, other, one):
            counts.take_back(limit, "account", "a")
        assert one.add(limit, "account", "a").number == 1
        one.take_back(limit, "account", "a")
    assert world.database.as_superuser().execute("SELECT FROM shared.attempt_counts").fetchall() == []


def test_an_operator_who_deletes_the_rows_unlocks_an_account_within_a_minute(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, limit, now = make(), parse("2/day"), time()
    counts = DatabaseCounters(SECRET)
    with world.app.app_context():
        assert [counts.add(limit, "account", "a").number for _ in range(4)] == [1, 2, 3, 4]
        monkeypatch.setattr("app.limits.counters.time", lambda: now + 61)
        assert counts.add(limit, "account", "a").number == 3, "a day is longer than the memory of the process"
        world.database.as_superuser().execute("DELETE FROM shared.attempt_counts")
        assert counts.add(limit, "account", "a").number == 1


def test_the_process_remembers_a_bounded_number_of_counts(make: Make) -> None:
    """A flood with many addresses and accounts must not fill its memory. The database still counts."""
    world, limit = make(), parse("9/hour")
    counts = DatabaseCounters(SECRET)
    counts._own = ProcessCounters(2)
    with world.app.app_context():
        numbers = [counts.add(limit, "account", who).number for who in ("a", "b", "c", "a", "c")]
    assert numbers == [1, 1, 1, 2, 2]
    assert len(counts._own._windows) == 2


def test_the_table_holds_no_address(make: Make) -> None:
    world = make()
    log_in(world, "person@example.com", "192.0.2.77")
    rows: list[TupleRow] = (
        world.database.as_superuser().execute("SELECT c::text FROM shared.attempt_counts c").fetchall()
    )
    assert len(rows) == 3
    assert not [row for row in rows if "person" in row[0] or "192.0.2" in row[0]]


def test_without_the_table_each_process_counts_for_itself_and_says_so(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    world = make(login_rate_limit="2/hour")
    world.database.as_superuser().execute("ALTER TABLE shared.attempt_counts RENAME TO put_aside")
    statuses = [log_in(world, f"{n}@example.com", "192.0.2.1").status_code for n in range(3)]
    assert statuses == [401, 401, 429]
    assert "login_count_lost" in capsys.readouterr().out


def test_what_is_cleared_counts_from_one_in_the_table_and_in_the_process(make: Make) -> None:
    world, counts, other = make(), DatabaseCounters(SECRET), DatabaseCounters(SECRET)
    limit = parse("1/hour")
    with world.app.app_context():
        for who in ("a", "a", "b"):
            counts.add(limit, "account", who)
        counts.clear(limit, "account", "a")
        assert [each.add(limit, "account", "a").number for each in (counts, other)] == [1, 2]
        assert other.add(limit, "account", "b").number == 2
