"""The benchmark runs, its books agree, and nothing of it stays behind. What it measures is not judged here."""

import json
import os
import subprocess
import sys
from pathlib import Path

from app.config import ROOT

LONGEST_SECONDS = 120
TINY = ["--seconds", "0.5", "--rounds", "1", "--clients", "2", "--wallets", "10", "--workers", "1", "--threads", "2"]


def test_posting_in_tiny_slices_gives_whole_figures_and_leaves_nothing(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.endswith("DATABASE_URL")}
    done = subprocess.run(
        [sys.executable, "-m", "scripts.benchmark", "posting", "--json", *TINY],
        cwd=ROOT,
        env=kept | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["options"] == {
        "seconds": 0.5,
        "rounds": 1,
        "clients": 2,
        "wallets": 10,
        "workers": 1,
        "threads": 2,
    }
    assert list(told["ways"]) == ["http", "service", "pgbench", "tpcb"]
    for way in told["ways"].values():
        assert way["median_per_second"] > 0
        assert len(way["slices_per_second"]) == 1
        assert 0 < way["p50_ms"] <= way["p99_ms"]
    assert told["ways"]["pgbench"]["ratio_to_pgbench"] == 1
    assert told["machine"]["durability"]["fsync"] == "on"
    for tenant in ("eur", "km"):
        books = told["books"][tenant]
        assert books["agree"]
        assert books["counted"] == books["posted"] > 0
        assert books["findings"] == []
    assert list(tmp_path.iterdir()) == []
