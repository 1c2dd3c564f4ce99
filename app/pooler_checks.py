"""The doctor's findings about a PgBouncer between the service and PostgreSQL: it has a pool for each login, and too
many pools use up the server's connections.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import psycopg
import sqlalchemy as sa
from psycopg.rows import dict_row

from app.config import Settings
from app.db import ROLES
from app.secret_checks import plain_url
from tenant_schemas.doctor.finding import Finding, warning
from tenant_schemas.doctor.server import free_connections

_CONNECT_SECONDS: Final = 5
_WHERE: Final = "PgBouncer of DATABASE_URL"


@dataclass(frozen=True, slots=True)
class _Limits:
    """`of_pool` is `pool_size`, for each login; `of_database` is `max_db_connections`, 0 for no limit."""

    of_pool: int
    of_database: int


def pooler_findings(connection: sa.Connection, tenants: int, settings: Settings) -> Iterator[Finding]:
    """Whether the pools for so many tenants may open more connections than the server allows. Opens DATABASE_URL; finds
    nothing if it leads straight to the server, or nowhere.
    """
    url = sa.make_url(settings.database_url)
    if not _is_pooled(url):
        return
    limits = _limits_of(url)
    if limits is None:
        what = "its limits can't be read, so it may use up the server's connections"
        yield warning("pooler", _WHERE, what, f"Add stats_users = {ROLES.app} to pgbouncer.ini and reload it.")
        return
    pools = 2 if settings.tenant_logins == "shared" else tenants + 1
    wanted, free = pools * limits.of_pool, free_connections(connection)
    if limits.of_database:
        wanted = min(wanted, limits.of_database)
    if wanted > free:
        what = f"its {pools} pools, one for each login, may open {wanted} connections; the server allows {free}"
        remedy = f"Set max_db_connections in pgbouncer.ini to less than {free} and reload it."
        yield warning("pooler", _WHERE, what, remedy)


def _is_pooled(url: sa.URL) -> bool:
    """Whether statements run in another server process than the one that answered the log-in."""
    try:
        with _session(url) as session:
            row: Any = session.execute("SELECT pg_backend_pid() AS pid", prepare=False).fetchone()
            return bool(row["pid"] != session.info.backend_pid)
    except psycopg.OperationalError:
        return False


def _limits_of(url: sa.URL) -> _Limits | None:
    """The limits of the URL's database, by PgBouncer's own console, which knows the simple protocol only."""
    try:
        with _session(url.set(database="pgbouncer")) as console:
            for row in console.execute("SHOW DATABASES"):
                if row["name"] == url.database:
                    return _Limits(int(row["pool_size"]), int(row["max_connections"]))
    except psycopg.Error:
        return None
    return None


def _session(url: sa.URL) -> psycopg.Connection[dict[str, Any]]:
    return psycopg.connect(plain_url(url), connect_timeout=_CONNECT_SECONDS, autocommit=True, row_factory=dict_row)
