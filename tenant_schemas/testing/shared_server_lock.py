"""A lock on a server that several workers of pytest-xdist share, as with TEST_DATABASE_URL.

Every worker has databases of its own there, but roles belong to the whole server. So a test that may change a role runs
alone; all other tests run beside each other.
"""

from collections.abc import Iterator
from typing import Final

import psycopg
import pytest

MARKER: Final = "changes_roles"
# The key of an advisory lock in the server's own database. PostgreSQL grants locks in the order of the requests.
LOCK_KEY: Final = 7_402_236


class SharedServerLock:
    """Holds the lock around each test, on a connection that lives as long as the test session."""

    def __init__(self, server_url: str, lock_key: int = LOCK_KEY) -> None:
        self._lock_key = lock_key
        self._connection = psycopg.connect(server_url, autocommit=True)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        if "template" not in getattr(item, "fixturenames", ()):
            return (yield)
        kind = "" if may_change_roles(item) else "_shared"
        self._connection.execute(f"SELECT pg_advisory_lock{kind}({self._lock_key})".encode())
        try:
            return (yield)
        finally:
            self._connection.execute(f"SELECT pg_advisory_unlock{kind}({self._lock_key})".encode())

    def pytest_unconfigure(self) -> None:
        self._connection.close()


def may_change_roles(item: pytest.Item) -> bool:
    """Whether the test has a database of its own: the roles of its tenants have the same names in every worker."""
    return "fresh_database" in getattr(item, "fixturenames", ()) or item.get_closest_marker(MARKER) is not None
