"""wrk as a way: a client in C, which leaves almost all of the machine's time to the service. `apt-get install wrk`."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from time import sleep
from typing import Any, Final

import psycopg

from app.money import format_minor
from scripts.benchmarks.clients import AMOUNT_MINOR, HOST
from scripts.benchmarks.measurement import BenchmarkFailed, Slice

_THREADS: Final = 2
# wrk gives up the requests that are under way when its time is over; the service still answers them.
_LAST_REQUESTS_SECONDS: Final = 0.5
# Each thread of wrk runs this script in an interpreter of its own. `done` runs once, after all threads.
_SCRIPT: Final = """
local threads = 0
function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end
local tokens = {}
local count = 0
local headers = {["Content-Type"] = "application/json", ["X-Tenant"] = "%(slug)s"}
function init(args)
  math.randomseed(number + 1)
  for token in io.lines("%(tokens)s") do tokens[#tokens + 1] = "Bearer " .. token end
end
function request()
  count = count + 1
  headers["Authorization"] = tokens[math.random(#tokens)]
  headers["Idempotency-Key"] = "%(prefix)s" .. number .. "-" .. count
  return wrk.format("POST", nil, headers, '{"amount":"%(amount)s"}')
end
function done(summary, latency, requests)
  local counts = {}
  for place = 1, #latency do
    local microseconds, times = latency(place)
    counts[place] = "[" .. microseconds .. "," .. times .. "]"
  end
  local faults = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.timeout
  io.stderr:write(string.format('{"requests": %%d, "microseconds": %%d, "faults": %%d, "latencies": [%%s]}',
    summary.requests, summary.duration, faults, table.concat(counts, ",")))
end
"""


def program() -> str | None:
    """The path of wrk; None if it is not installed."""
    return shutil.which("wrk")


@dataclass(slots=True)
class Wrk:
    """Pays over HTTP in one tenant in each slice. `logins` has the URLs of the tenants' own logins, to count by."""

    name: str
    title: str
    port: int
    tokens: Sequence[str]
    currencies: Mapping[str, str]
    logins: Mapping[str, str]
    clients: int
    _slices: int = 0

    def run(self, seconds: float) -> Slice:
        """wrk runs for whole seconds only, so the time is rounded up."""
        slug, currency = list(self.currencies.items())[self._slices % len(self.currencies)]
        self._slices += 1
        prefix = f"{self.name}-{self._slices}-"
        with tempfile.TemporaryDirectory(prefix="wrk-") as folder:
            tokens, script = Path(folder) / "tokens", Path(folder) / "pay.lua"
            tokens.write_text("\n".join(self.tokens))
            amount = format_minor(AMOUNT_MINOR, currency)
            script.write_text(_SCRIPT % {"slug": slug, "tokens": tokens, "prefix": prefix, "amount": amount})
            told = self._wrk(script, seconds)
        if told["faults"]:
            raise BenchmarkFailed(f"{told['faults']} of {told['requests']} payments by wrk were refused or failed.")
        sleep(_LAST_REQUESTS_SECONDS)
        latencies_ms = [value / 1000 for value, count in told["latencies"] for _ in range(count)]
        paid = {slug: self._posted(slug, prefix)}
        return Slice(told["microseconds"] / 1_000_000, latencies_ms, paid, counted=told["requests"])

    def _wrk(self, script: Path, seconds: float) -> Any:
        arguments = [f"-t{min(_THREADS, self.clients)}", f"-c{self.clients}", f"-d{ceil(seconds)}s", "-s", str(script)]
        url = f"http://{HOST}:{self.port}/api/wallet/payments"
        done = subprocess.run([program() or "wrk", *arguments, url], check=False, capture_output=True, text=True)
        if done.returncode or not done.stderr.startswith("{"):
            raise BenchmarkFailed(f"wrk failed:\n{done.stderr}{done.stdout}")
        return json.loads(done.stderr)

    def _posted(self, slug: str, prefix: str) -> int:
        query = "SELECT count(*) FROM wallet_transactions WHERE idempotency_key LIKE %s"
        with psycopg.connect(self.logins[slug]) as connection:
            (posted,) = connection.execute(query, (f"{prefix}%",)).fetchone() or (0,)
        return int(posted)
