"""The installation that backups are taken from, and the db transactions in which it is read: they write nothing, and
see all rows or fail.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
import sqlalchemy as sa
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.exc import SQLAlchemyError

from tenant_schemas.backup.policy import BackupPolicy
from tenant_schemas.backup.table_io import pin_session
from tenant_schemas.errors import BackupError
from tenant_schemas.migrations.history import Migrations, first_line
from tenant_schemas.schema_diff.compare import drifted_objects
from tenant_schemas.tenant import Tenant

# A migration may hold a tenant's tables for as long as it runs.
LOCK_TIMEOUT_MS: Final = 60_000

# By schema, the objects that are not as the history makes them.
Drift = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where to read, who may, and what the application says of it. `url` logs in a role that may read everything."""

    url: str = field(repr=False)
    migrations: Migrations
    backup_policy: BackupPolicy

    @property
    def conninfo(self) -> str:
        return sa.make_url(self.url).set(drivername="postgresql").render_as_string(hide_password=False)

    @property
    def place(self) -> str:
        """The server and the database, for people."""
        told = conninfo_to_dict(self.conninfo)
        return f"{told.get('host', 'localhost')}:{told.get('port', 5432)}/{told.get('dbname', '')}"

    def find_drift(self, tenants: Sequence[Tenant]) -> Drift:
        url = sa.make_url(self.url).set(drivername="postgresql+psycopg")
        with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection, connection.begin():
            return drifted_objects(connection, self.migrations, tenants)

    @contextmanager
    def connect(self, slug: str) -> Iterator[psycopg.Connection[Any]]:
        """A connection whose name tells a waiting migrator who holds its lock."""
        with psycopg.connect(self.conninfo, autocommit=True, application_name=f"backup of {slug}") as connection:
            yield connection

    @contextmanager
    def join(self, slug: str, snapshot: str) -> Iterator[psycopg.Connection[Any]]:
        """Another connection that sees what the snapshot's own sees."""
        with self.connect(slug) as connection, repeatable_read(connection, snapshot):
            yield connection


@contextmanager
def read_committed(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """A db transaction in which each statement sees what is committed by then."""
    with _reading(connection, sql.SQL("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY")):
        yield


@contextmanager
def repeatable_read(connection: psycopg.Connection[Any], snapshot: str | None = None) -> Iterator[None]:
    """A db transaction in which all statements see one snapshot: the first statement's that needs one, or another's.
    LOCK TABLE needs none.
    """
    begin = sql.SQL("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    joining = sql.SQL("; SET TRANSACTION SNAPSHOT {}").format(snapshot) if snapshot else sql.SQL("")
    with _reading(connection, begin + joining):
        yield


@contextmanager
def _reading(connection: psycopg.Connection[Any], begin: sql.SQL | sql.Composed) -> Iterator[None]:
    connection.execute(begin)
    try:
        pin_session(connection)
        connection.execute(sql.SQL("SET LOCAL lock_timeout TO {}").format(LOCK_TIMEOUT_MS))
        yield
    finally:
        if not connection.closed:
            connection.execute("ROLLBACK")


@contextmanager
def translate_errors(slug: str) -> Iterator[None]:
    """PostgreSQL's and the disk's own errors become one that an operator can read."""
    try:
        yield
    except OSError as error:
        where = error.filename or "the bundle"
        raise BackupError(f"{slug} can't be written: {error.strerror or error}: {where}.{_notes(error)}") from error
    except (psycopg.Error, SQLAlchemyError) as error:
        raise BackupError(f"{slug} can't be read: {first_line(error)}{_notes(error)}") from error


def _notes(error: Exception) -> str:
    """What else is to be known: that something could not be removed."""
    return "".join(f" {note}" for note in getattr(error, "__notes__", ()))
