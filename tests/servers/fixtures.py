"""Tests on two servers: the embedded PostgreSQL 18, and Debian's 15 (skipped where it is not installed;
POSTGRES_15_BIN names another folder of its programs). With TEST_DATABASE_URL they run on that one server.

A module asks for both with `pytestmark = pytest.mark.both_servers`. Its tests then run once on each server, those of
them that use a database; all other tests of the suite run on the embedded server alone. `template`, `database`,
`fresh_database`, `app` and everything that depends on them are of the server of the run. `other_database` is a fresh
database on the other server.

How it works: `server_version` is a parameter of session scope, so that pytest runs all tests of one server and then all
of the other, and `template` depends on it. This `template` stands before the one of the plugin, which is the template
of the embedded server. `servers` starts Debian's server at the first test that needs it, makes a template there, and
keeps it to the end of the session.

tests/conftest.py imports all names of this module that pytest has to find.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tenant_schemas.testing.plugin import Database, copy_of
from tenant_schemas.testing.servers import own_template
from tests.servers import debian

GIVEN = os.environ.get("TEST_DATABASE_URL", "")
EMBEDDED, DEBIAN = "18", "15"
MARKER = "both_servers"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{MARKER}: run on the embedded PostgreSQL 18 and on Debian's 15.")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server_version" in metafunc.fixturenames and metafunc.definition.get_closest_marker(MARKER):
        versions = ["given"] if GIVEN else [EMBEDDED, DEBIAN]
        metafunc.parametrize("server_version", versions, indirect=True, scope="session")


class Servers:
    """The templates by version. Debian's is made on its own server at the first use."""

    def __init__(self, stack: ExitStack, make: Callable[[str], Database], run_folder: Path) -> None:
        self._stack, self._make, self._run_folder = stack, make, run_folder
        self._debian: Database | None = None

    def templates(self, embedded: Database) -> Mapping[str, Database]:
        return {EMBEDDED: embedded, DEBIAN: self.debian_template()}

    def debian_template(self) -> Database:
        """Skips the test if PostgreSQL 15 is not installed."""
        if not debian.is_installed():
            pytest.skip(f"PostgreSQL 15 is not in {debian.BINARIES}: apt-get install postgresql-15")
        if self._debian is None:
            made = own_template(debian.running, self._make, self._run_folder / "template_15")
            self._debian = self._stack.enter_context(made)
        return self._debian


@pytest.fixture(scope="session")
def servers(template_maker: Callable[[str], Database], run_folder: Path) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(stack, template_maker, run_folder)


@pytest.fixture(scope="session")
def server_version(request: pytest.FixtureRequest) -> str:
    """The major version of the server of this run, or `given`."""
    return str(getattr(request, "param", "given" if GIVEN else EMBEDDED))


@pytest.fixture(scope="session")
def embedded_template() -> list[Database]:
    """The plugin's template, noted here by `template`, which hides it by name."""
    return []


@pytest.fixture(scope="session")
def template(template: Database, embedded_template: list[Database], servers: Servers, server_version: str) -> Database:
    """The template of the server of this run. Never connect to it: copies are made from it."""
    embedded_template[:] = [template]
    return servers.debian_template() if server_version == DEBIAN else template


@pytest.fixture
def both_servers(template: Database, embedded_template: list[Database], servers: Servers) -> Mapping[str, Database]:
    """The two templates by version, for tests of both servers at once; get copies of them by `copy_of`."""
    if GIVEN:
        pytest.skip("TEST_DATABASE_URL gives one server, but this test needs two")
    return servers.templates(*embedded_template)


@pytest.fixture
def other_database(both_servers: Mapping[str, Database], server_version: str) -> Iterator[Database]:
    """A fresh database on the other server."""
    with copy_of(both_servers[DEBIAN if server_version == EMBEDDED else EMBEDDED]) as database:
        yield database
