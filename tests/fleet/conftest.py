"""What is tested here holds on two servers: the embedded PostgreSQL 18, and Debian's 15 (skipped where it isn't
installed; POSTGRES_15_BIN says where else its programs are). With TEST_DATABASE_URL, on that one alone.

How it works: `server_version` is the parameter, of session scope, so that pytest runs all tests of one server and then
all of the other. `servers` starts each at its first use, makes its template there, and keeps both to the end. All else
is asked for as everywhere: `template`, `database`, `fresh_database`, `app`, `fresh_app`, `people`, `api` are those of
the server of this run. `other_database` is a fresh one on the other server, and `both_servers` has the two templates.

Every fixture of session scope that hangs on `template` has to be defined anew here: pytest makes one of the plugin or
of tests/conftest.py once and keeps it, though what it hangs on is overridden here.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.migrations.history import Migrations
from tenant_schemas.testing.databases import FAST_SETTINGS, embedded_server
from tenant_schemas.testing.plugin import Database, copy_of, made_template
from tests.conftest import running_app
from tests.factories.door import Run, door
from tests.fleet import debian
from tests.fleet.bundles import SLUG, Furnished, furnish, take

GIVEN = os.environ.get("TEST_DATABASE_URL", "")
EMBEDDED, DEBIAN = "18", "15"


class Servers:
    """The templates by version, each made on a server of its own at the first need."""

    def __init__(self, stack: ExitStack, *making: Any) -> None:
        self._stack, self._making = stack, making
        self._templates: dict[str, Database] = {}

    def template(self, version: str) -> Database:
        """Skips the test where there is no such server."""
        if version == DEBIAN and not debian.is_installed():
            pytest.skip(f"PostgreSQL 15 is not in {debian.BINARIES}: apt-get install postgresql-15")
        if version not in self._templates:
            running = debian.running(FAST_SETTINGS) if version == DEBIAN else embedded_server()
            server_url = self._stack.enter_context(running)
            self._templates[version] = self._stack.enter_context(made_template(server_url, *self._making))
        return self._templates[version]


@pytest.fixture(scope="session")
def servers(
    tenancy_migrations: Migrations,
    tenant_slugs: tuple[str, str],
    tenant_settings: Mapping[str, Mapping[str, Any]],
) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(stack, tenancy_migrations, tenant_slugs, tenant_settings)


@pytest.fixture(scope="session", params=["given"] if GIVEN else [EMBEDDED, DEBIAN])
def server_version(request: pytest.FixtureRequest) -> str:
    """The major version of the server of this run, or `given`."""
    return str(request.param)


@pytest.fixture(scope="session")
def server_url(servers: Servers, server_version: str) -> str:
    return GIVEN or servers.template(server_version).server_url


@pytest.fixture(scope="session")
def template(request: pytest.FixtureRequest, servers: Servers, server_version: str) -> Database:
    if GIVEN:  # A server has one template, so here it is the one of all other tests.
        given: Database = request.getfixturevalue("template")
        return given
    return servers.template(server_version)


@pytest.fixture(scope="session")
def database(template: Database) -> Iterator[Database]:
    with copy_of(template) as database:
        yield database


@pytest.fixture(scope="session")
def app(database: Database) -> Iterator[Flask]:
    yield from running_app(database)


@pytest.fixture(scope="session")
def both_servers(servers: Servers) -> Mapping[str, Database]:
    """The two templates by version, for what is seen from above; ask for copies of them by `copy_of`."""
    if GIVEN:
        pytest.skip("TEST_DATABASE_URL gives one server, and this needs two")
    return {version: servers.template(version) for version in (EMBEDDED, DEBIAN)}


@pytest.fixture
def other_database(both_servers: Mapping[str, Database], server_version: str) -> Iterator[Database]:
    """A fresh database on the other server."""
    with copy_of(both_servers[DEBIAN if server_version == EMBEDDED else EMBEDDED]) as database:
        yield database


@pytest.fixture
def furnished(fresh_database: Database, fresh_app: Flask) -> Furnished:
    """A tenant of this test's own with something in every table; its slug is SLUG."""
    return furnish(fresh_database, fresh_app)


@pytest.fixture
def bundle(fresh_database: Database, furnished: Furnished, tmp_path: Path) -> Bundle:
    """A backup of it."""
    return take(fresh_database, SLUG, tmp_path)


@pytest.fixture
def run(fresh_database: Database, monkeypatch: pytest.MonkeyPatch) -> Run:
    return door(fresh_database, monkeypatch)
