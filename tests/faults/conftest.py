"""Fixtures of the fault tests: a server to kill, a fleet on it, and programs to kill at work.

Faults happen at random moments. FAULT_ROUNDS is the number of rounds of each test, 1 by default; a failed round prints
the seed of its moments, and FAULT_SEED repeats it with that seed.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any, ClassVar
from uuid import uuid4

import psycopg
import pytest

from app.config import ROOT
from app.tenancy import MIGRATIONS
from tenant_schemas.migrations.history import Migrations
from tenant_schemas.testing.plugin import Database, copy_of, made_template
from tests.factories.script_runner import environment
from tests.faults.probes import probing_histories
from tests.faults.server import KillableServer

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "1"))
TENANTS = 12
SLUGS = tuple(f"t{number:02d}" for number in range(TENANTS))
LONGEST_SECONDS = 60


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "moments" in metafunc.fixturenames:
        given = os.environ.get("FAULT_SEED")
        # All workers of pytest-xdist must name the tests alike, so they draw the seeds from the name of their run.
        run = getattr(metafunc.config, "workerinput", {}).get("testrunuid", uuid4().hex)
        drawn = random.Random(f"{run} {metafunc.definition.nodeid}")
        seeds = [int(given)] if given else [drawn.randrange(10**6) for _ in range(ROUNDS)]
        metafunc.parametrize("moments", seeds, indirect=True)


@pytest.fixture
def moments(request: pytest.FixtureRequest) -> random.Random:
    """The random moments of a round; the test's name contains the seed."""
    return random.Random(request.param)


@pytest.fixture(autouse=True)
def no_program_left() -> Iterator[None]:
    yield
    for program in [*Program.at_work]:
        program.send(signal.SIGKILL)
        program.end()


@pytest.fixture(scope="session")
def server() -> Iterator[KillableServer]:
    with tempfile.TemporaryDirectory(prefix="tenant-schemas-") as folder:
        server = KillableServer(Path(folder))
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def fleet_template(server: KillableServer) -> Iterator[Database]:
    with made_template(server.url, MIGRATIONS, SLUGS, {slug: {"currency": "EUR"} for slug in SLUGS}) as template:
        yield template


@pytest.fixture
def fleet(server: KillableServer, fleet_template: Database) -> Iterator[Database]:
    """A database of this test's own with all tenants, all behind `histories`."""
    with copy_of(fleet_template) as fleet:
        yield fleet
        server.restart()


@pytest.fixture(scope="session")
def histories(tmp_path_factory: pytest.TempPathFactory) -> Migrations:
    return probing_histories(tmp_path_factory.mktemp("histories"), runs_python=False)


@pytest.fixture(scope="session", params=[False, True], ids=["sql", "python"])
def either_histories(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Migrations:
    """The same histories, and once with a revision that runs Python in each tenant."""
    return probing_histories(tmp_path_factory.mktemp("histories"), runs_python=request.param)


class Program:
    """A running script, to be killed or waited for. The program of a failed test is ended afterwards."""

    at_work: ClassVar[list["Program"]] = []

    def __init__(self, database: Database, module: str, *arguments: str | Path, **variables: str) -> None:
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115  It is open as long as the program runs.
        roles = database.roles
        logins = {"BACKUP_DATABASE_URL": database.url(roles.backup), "RELAY_DATABASE_URL": database.url(roles.relay)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=ROOT,
            env=os.environ | environment(database) | logins | variables,
            stdout=self._output,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.at_work.append(self)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def end(self) -> "Ended":
        """Wait for its end."""
        with self._output as output:
            self.at_work.remove(self)
            try:
                _, errors = self._process.communicate(timeout=LONGEST_SECONDS)
            except BaseException:
                self._process.kill()
                self._process.communicate()
                raise
            output.seek(0)
            return Ended(self._process.returncode, output.read(), errors)


class Ended:
    """The output of a script and its exit code."""

    def __init__(self, code: int, output: str, errors: str) -> None:
        self.code, self.output, self.errors = code, output, errors

    def __repr__(self) -> str:
        return f"exit {self.code}\n{self.output}\n{self.errors}"

    @property
    def told(self) -> Any:
        return json.loads(self.output)


def wait_for(database: Database, query: str, *params: object, program: Program | None = None) -> bool:
    """Query until the answer is true; False if the program has ended before."""
    deadline = monotonic() + LONGEST_SECONDS
    with psycopg.connect(database.url(), autocommit=True) as superuser:
        while not (superuser.execute(query.encode(), params).fetchone() or (False,))[0]:
            if program and not program.is_running:
                return False
            assert monotonic() < deadline, f"Never true: {query}"
            sleep(0.002)
    return True
