"""The installation that backups read, and the read-only db transactions in which they read it. Row-level security makes
a query fail instead of hiding rows.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
import sqlalchemy as sa
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.exc import SQLAlchemyError

from tenant_schemas.backup.policy import BackupPolicy
from tenant_schemas.backup.signature import BundleKeys
from tenant_schemas.backup.table_io import pin_session
from tenant_schemas.errors import BackupError, SchemaMissing
from tenant_schemas.migrations.history import Migrations, first_line
from tenant_schemas.schema_diff import compare
from tenant_schemas.schema_diff.compare import Drift
from tenant_schemas.sessions import watch_client
from tenant_schemas.tenant import Tenant

# Long, because a migration may lock a tenant's tables for as long as it runs.
LOCK_TIMEOUT_MS: Final = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An installation to back up. `url` logs in as a role that may read everything; `keys` sign its bundles.
    `lock_timeout_ms` is the longest wait for the lock of a table.
    """

    url: str = field(repr=False)
    migrations: Migrations
    backup_policy: BackupPolicy
    keys: BundleKeys
    lock_timeout_ms: int = LOCK_TIMEOUT_MS

    @property
    def conninfo(self) -> str:
        return sa.make_url(self.url).set(drivername="postgresql").render_as_string(hide_password=False)

    @property
    def place(self) -> str:
        """Host, port and database, for messages."""
        parameters = conninfo_to_dict(self.conninfo)
        host, port = parameters.get("host", "localhost"), parameters.get("port", 5432)
        return f"{host}:{port}/{parameters.get('dbname', '')}"

    def find_drift(self, tenants: Sequence[Tenant]) -> Drift:
        url = sa.make_url(self.url).set(drivername="postgresql+psycopg")
        with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection, connection.begin():
            return compare.find_drift(connection, self.migrations, tenants)

    @contextmanager
    def connect(self, slug: str) -> Iterator[psycopg.Connection[Any]]:
        """A connection whose application_name shows a waiting migrator which backup blocks it."""
        with psycopg.connect(self.conninfo, autocommit=True, application_name=f"backup of {slug}") as connection:
            watch_client(connection)
            yield connection

    @contextmanager
    def join(self, slug: str, exported_id: str) -> Iterator[psycopg.Connection[Any]]:
        """A further connection in an exported snapshot."""
        with self.connect(slug) as connection, self.repeatable_read(connection, exported_id):
            yield connection

    @contextmanager
    def read_committed(self, connection: psycopg.Connection[Any]) -> Iterator[None]:
        """A read-only db transaction in which each statement sees the rows committed before it."""
        with self._transaction(connection, sql.SQL("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY")):
            yield

    @contextmanager
    def repeatable_read(self, connection: psycopg.Connection[Any], exported_id: str | None = None) -> Iterator[None]:
        """A read-only db transaction in which all statements see one snapshot: the exported one that is named, or else
        one taken by the first statement other than LOCK TABLE.
        """
        begin = sql.SQL("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        joining = sql.SQL("; SET TRANSACTION SNAPSHOT {}").format(exported_id) if exported_id else sql.SQL("")
        with self._transaction(connection, begin + joining):
            yield

    @contextmanager
    def _transaction(self, connection: psycopg.Connection[Any], begin: sql.SQL | sql.Composed) -> Iterator[None]:
        connection.execute(begin)
        try:
            pin_session(connection)
            connection.execute(sql.SQL("SET LOCAL lock_timeout TO {}").format(self.lock_timeout_ms))
            yield
        finally:
            if not connection.closed:
                connection.execute("ROLLBACK")


@contextmanager
def translate_errors(slug: str) -> Iterator[None]:
    """Raises errors of PostgreSQL and of the file system as BackupError, with the tenant and the cause."""
    try:
        yield
    except SchemaMissing as error:
        raise BackupError(str(error)) from error
    except OSError as error:
        where = error.filename or "the bundle"
        notes = "".join(f" {note}" for note in getattr(error, "__notes__", ()))
        raise BackupError(f"{slug} can't be written: {error.strerror or error}: {where}.{notes}") from error
    except (psycopg.Error, SQLAlchemyError) as error:
        raise BackupError(f"{slug} can't be read: {first_line(error)}") from error
