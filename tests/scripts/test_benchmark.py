"""The benchmark runs, its books balance, it shows a report as tables and as JSON, and it removes all its objects. Its
measurements are not checked here.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import redis
from click.testing import CliRunner

from app.config import ROOT
from scripts.benchmark import main
from tests.factories.brokers import (
    NatsBroker,
    RabbitBroker,
    RedisBroker,
    needs_nats,
    needs_rabbitmq,
    needs_redis,
)
from tests.factories.ports import free_port

LONGEST_SECONDS = 120
TINY = ["--seconds", "0.3", "--rounds", "1", "--clients", "2", "--wallets", "10", "--workers", "1", "--threads", "2"]
# Measures once, and shows the same report as tables and as JSON.
SHOW_TWICE = """
import sys
from functools import cache
from scripts import benchmark
benchmark._run = cache(benchmark._run)
benchmark.main(sys.argv[1:], standalone_mode=False)
print("JSON:", flush=True)
benchmark.main([*sys.argv[1:], "--json"], standalone_mode=False)
"""


def benchmark(*arguments: str) -> Any:
    """In a temporary folder with a short path: sockets of client processes lie in it."""
    with TemporaryDirectory(prefix="b-") as folder:
        return _benchmark(Path(folder), *arguments)


def _benchmark(folder: Path, *arguments: str) -> Any:
    kept = {name: value for name, value in os.environ.items() if not name.endswith("DATABASE_URL")}
    done = subprocess.run(
        [sys.executable, "-c", SHOW_TWICE, *arguments],
        cwd=ROOT,
        env=kept | {"TMPDIR": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # The service's programs on one machine share a lock file, which stays.
    assert [path for path in folder.iterdir() if path.suffix != ".lock"] == []
    tables, _, as_json = done.stdout.partition("JSON:\n")
    told = json.loads(as_json)
    rows = told.get("ways") or told.get("works") or ["floor", "import", "again"]
    assert len(tables.splitlines()) > len(rows) + 2, tables
    assert "None" not in tables
    return told


def test_posting_in_tiny_slices_gives_whole_figures_and_leaves_nothing() -> None:
    told = benchmark("posting", *TINY)
    assert told["options"] == {
        "seconds": 0.3,
        "rounds": 1,
        "clients": 2,
        "wallets": 10,
        "workers": 1,
        "threads": 2,
    }
    by_http = ["http", "http-alone", "http-hot", "http-hot-alone", *(["wrk"] if shutil.which("wrk") else [])]
    assert list(told["ways"]) == [*by_http, "pgbench", "pgbench-pay", "pgbench-hot", "tpcb"]
    for way in told["ways"].values():
        assert way["median_per_second"] > 0
        assert len(way["slices_per_second"]) == 1
        assert 0 < way["p50_ms"] <= way["p99_ms"]
        assert set(way["cpu_us"]) == {"service", "service alone", "postgresql", "clients"}
    assert told["ways"]["tpcb"]["ratio_to_tpcb"] == 1
    for process in ("service", "service alone", "postgresql", "clients"):
        assert sum(way["cpu_us"][process] for way in told["ways"].values()) > 0
    assert told["machine"]["durability"]["fsync"] == "on"
    for tenant in ("eur", "km"):
        books = told["books"][tenant]
        assert books["agree"]
        assert books["counted"] == books["posted"] > 0
        assert books["findings"] == []


def test_neighbours_are_measured_in_tiny_slices_and_leave_nothing() -> None:
    tiny = ["--seconds", "0.7", "--rounds", "1", "--clients", "1", "--noise", "4", "--log-ins", "4", "--wallets", "10"]
    told = benchmark("neighbours", *tiny, "--statements", "1", "--workers", "1")
    assert list(told["ways"]) == ["quiet", "hanging", "log_ins", "loops", "statements"]
    quiet, hanging, log_ins, loops, statements = told["ways"].values()
    assert (quiet["p50_to_quiet_p50"], quiet["noise"]) == (1, {})
    for way in told["ways"].values():
        assert 0 < way["p50_ms"] <= way["p95_ms"] <= way["p99_ms"]
        assert way["refused"] == 0
    assert set(hanging["noise"]) <= {"201", "429"}
    assert set(log_ins["noise"]) <= {"401", "429"}
    assert loops["noise"]["200"] > 0
    assert statements["noise"]
    assert set(statements["noise"]) <= {"200", "202", "429"}  # A long one is made in the background.


def test_an_import_of_few_users_is_sound_and_leaves_nothing() -> None:
    told = benchmark("import", "--users", "50")
    assert told["options"] == {"users": 50}
    assert (told["is_sound"], told["posted"], told["rows"]) == (True, told["due"], 200)
    assert told["posted_minor"] == told["due_minor"] != 0
    assert "eur: sound: 50 wallets" in told["audit"]
    assert all(told[f"{way}_seconds"] > 0 for way in ("floor", "import", "again"))


def test_a_short_history_is_read_and_posted_to_and_leaves_nothing() -> None:
    told = benchmark("ledger", "--transactions", "300", "--rounds", "1", "--seconds", "0.1")
    assert told["options"] == {"transactions": 300, "rounds": 1, "seconds": 0.1}
    assert len(told["ways"]) == 13
    for way in told["ways"].values():
        assert way["median_per_second"] > 0
        assert way["ratio"] == 1 or way["beside"]
    eur, km = told["books"]["eur"], told["books"]["km"]
    assert eur["agree"]
    assert km["agree"]
    assert eur["counted"] == eur["posted"] > 4000
    assert km["posted"] == 0


def test_binding_to_few_tenants_in_tiny_slices_has_a_ratio_for_each_way_and_leaves_nothing() -> None:
    told = benchmark("binding", "--tenants", "3", "--rounds", "1", "--seconds", "0.1")
    assert told["options"] == {"tenants": 3, "rounds": 1, "seconds": 0.1}
    logins = [f"{way}-{how_many}" for way in ("own", "pool", "set") for how_many in ("few", "many")]
    assert sorted(told["ways"]) == sorted(["untenanted", *logins, "own-begin"])
    assert told["ways"]["untenanted"]["ratio_to_no_tenancy"] == 1
    assert all(way["median_per_second"] > 0 and way["client_cpu_us"] > 0 for way in told["ways"].values())


def test_a_small_fleet_has_a_ratio_for_each_work_and_leaves_nothing() -> None:
    told = benchmark("fleet", "--tenants", "6", "--rounds", "2")
    assert told["options"] == {"tenants": 6, "rounds": 2, "jobs": 2}
    assert list(told["works"]) == ["provision", "no-op", "status", "drift", "backup", "migrate", "migrate-unwaiting"]
    for work in told["works"].values():
        assert work["seconds"] > 0
        assert work["ratio_to_psql"] > 0
    own, pool = told["footprints"]
    assert (own["backends"], pool["backends"]) == (8, 1)  # The two permanent tenants get requests too.
    assert own["largest_backend_mib"] <= own["backends_mib"]


def test_events_are_measured_in_tiny_slices_and_leave_nothing() -> None:
    tiny = ["--seconds", "0.3", "--rounds", "1", "--clients", "2", "--wallets", "10", "--tenants", "4"]
    told = benchmark("events", *tiny)
    assert list(told["ways"]) == ["without", "trigger", "relay", "snapshot", "paced", "paced-snapshot"]
    assert set(told["lag_ms"]) == {"paced", "paced-snapshot"}
    assert all(way["ratio_to_without"] > 0 for way in told["ways"].values())
    assert told["stamped_per_second"] > 0
    assert told["sweep_in_payments"] > 0


@needs_redis
@needs_nats
@needs_rabbitmq
def test_brokers_in_tiny_slices_confirm_everything_and_keep_nothing(
    rabbit_broker: RabbitBroker, redis_broker: RedisBroker, nats_broker: NatsBroker
) -> None:
    urls = [broker.url for broker in (rabbit_broker, redis_broker, nats_broker)]
    options = [part for url in urls for part in ("--url", url)]
    with redis.Redis.from_url(redis_broker.url) as client:
        before = set(client.keys())
        told = benchmark("brokers", *options, "--seconds", "0.1", "--rounds", "1", "--batch", "20")
        assert set(client.keys()) == before
    assert list(told["ways"]) == [f"{url} {way}" for url in urls for way in ("many", "one")]
    for way in told["ways"].values():
        assert way["median_per_second"] > 0
        assert 0 < way["batch_p50_ms"] <= way["batch_p99_ms"]


def test_a_broker_that_is_away_is_a_failure() -> None:
    ran = CliRunner().invoke(main, ["brokers", "--url", f"redis://127.0.0.1:{free_port()}"])
    assert ran.exit_code == 1
    assert "can't be reached" in ran.stderr
