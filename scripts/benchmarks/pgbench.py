"""PostgreSQL's own load generator as a way: the rate of the database without Python in front of it."""

import os
import re
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import sqlalchemy as sa

from scripts.benchmarks.measurement import BenchmarkFailed, Slice
from tenant_schemas.embedded import binary

_RATE = re.compile(r"^tps = ([0-9.]+) \(without initial connection time\)$", re.MULTILINE)


@dataclass(slots=True)
class Pgbench:
    """Runs a script for each tenant or, without `scripts`, pgbench's built-in one. Each slice uses the next login.

    `logins` has the URLs by slug of the tenant; transactions under the slug "" are not counted as payments. `pace` is
    how many transactions all clients together start in a second; None: as many as they can.
    """

    name: str
    title: str
    logins: Mapping[str, str]
    clients: int
    scripts: Mapping[str, str] | None = None
    pace: int | None = None
    _slices: int = 0

    def run(self, seconds: float) -> Slice:
        """pgbench runs for whole seconds only, so the time is rounded up."""
        slug, url = list(self.logins.items())[self._slices % len(self.logins)]
        self._slices += 1
        with tempfile.TemporaryDirectory(prefix="pgbench-") as folder:
            output = _pgbench(url, *self._arguments(Path(folder), slug, seconds))
            latencies_ms = _latencies_ms(Path(folder))
        found = _RATE.search(output)
        if found is None:
            raise BenchmarkFailed(f"pgbench printed no rate:\n{output}")
        paid = {slug: len(latencies_ms)} if slug else {}
        return Slice(len(latencies_ms) / float(found[1]), latencies_ms, paid)

    def _arguments(self, folder: Path, slug: str, seconds: float) -> list[str]:
        arguments = [
            *("--no-vacuum", "--protocol=prepared", f"--client={self.clients}", f"--time={ceil(seconds)}"),
            *(f"--jobs={min(self.clients, os.cpu_count() or 1)}", "--log", f"--log-prefix={folder / 'log'}"),
        ]
        if self.pace is not None:
            arguments.append(f"--rate={self.pace}")
        if self.scripts is None:
            return arguments
        script = folder / "script.sql"
        script.write_text(self.scripts[slug])
        return [*arguments, f"--file={script}", f"--define=slice={self._slices}", "--define=number=0"]


def prepare_tpcb(url: str, scale: int) -> None:
    """Create the tables of pgbench's built-in script, which is like TPC-B."""
    _pgbench(url, "--initialize", "--quiet", f"--scale={scale}")


def own_payment_script(name: str, statement: str, *, currency: str, members: int, amount_minor: int) -> str:
    """The service's own statement, with the named parameters of a member's payment, for a random member. A member's
    session has the member's id.

    `slice` and `number` are variables of pgbench; with the client's number they make the idempotency key unique.
    """
    parameters = defaultdict(
        lambda: "NULL",
        user_id="lpad(to_hex(:member::int), 32, '0')::uuid",
        session_id="lpad(to_hex(:member::int), 32, '0')::uuid",
        # Whoever made the installation has changed the tenant's row no more.
        tenant_version="(SELECT version FROM shared.tenants WHERE role_name = current_user)",
        currency=f"'{currency}'",
        type="'payment'",
        amount_minor=str(amount_minor),
        idempotency_key=f"'{name}-' || :slice || '-' || :client_id || '-' || :number",
    )
    return f"\\set member random(0, {members - 1})\n\\set number :number + 1\n{statement % parameters};\n"


def login_environment(url: str) -> dict[str, str]:
    """This process's environment with libpq's variables, with which PostgreSQL's programs log in."""
    parts = sa.make_url(url)
    login = {
        "PGHOST": parts.host,
        "PGPORT": str(parts.port),
        "PGUSER": parts.username,
        "PGPASSWORD": str(parts.password),
        "PGDATABASE": parts.database,
    }
    return {**os.environ, **{name: value or "" for name, value in login.items()}}


def _pgbench(url: str, *arguments: str) -> str:
    done = subprocess.run(
        [str(binary("pgbench")), *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=login_environment(url),
    )
    if done.returncode:
        raise BenchmarkFailed(f"pgbench failed:\n{done.stderr}")
    return done.stdout


def _latencies_ms(folder: Path) -> Sequence[float]:
    """Each thread has a log file with a line for each transaction; the third field is its latency in µs."""
    lines = [line for log in folder.glob("log.*") for line in log.read_text().splitlines()]
    return [int(line.split(" ", 3)[2]) / 1000 for line in lines]
