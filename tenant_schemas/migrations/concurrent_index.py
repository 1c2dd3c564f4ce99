"""A revision that makes or drops one index outside a db transaction, so that the table's writers need not wait.

Only a run of the migrator does so. A new or a restored schema runs the plain statement within its db transaction.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import sql
from sqlalchemy import Connection, Engine

from tenant_schemas.errors import MigrationError, RevisionRefused
from tenant_schemas.roles import ServiceRoles, driver_of
from tenant_schemas.search_path import bind_session, unbind_session
from tenant_schemas.sql_lint.lexer import Reader, Statement, statements_of

_INDEX_OF_TABLE: Final = "SELECT FROM pg_index WHERE indexrelid = to_regclass(%s) AND indrelid = to_regclass(%s)"
_INVALID_INDEX_OF_TABLE: Final = f"{_INDEX_OF_TABLE} AND NOT indisvalid"
_INDEX: Final = "SELECT FROM pg_index WHERE indexrelid = to_regclass(%s)"


@dataclass(frozen=True, slots=True)
class ConcurrentIndex:
    """The statement of such a revision, and the same without CONCURRENTLY. `table` is None if it drops the index."""

    statement: Statement
    plain_sql: str
    name: str
    table: str | None


def read_concurrent_index(revision: str, text: str, checks: Sequence[str] = ()) -> ConcurrentIndex:
    """Raises RevisionRefused unless the text is one CREATE or DROP INDEX CONCURRENTLY, without checks. It has no IF NOT
    EXISTS, which would keep the invalid index that a killed run leaves.
    """
    statements = statements_of(text)
    if len(statements) != 1 or checks:
        raise _refused(revision)
    (statement,) = statements
    reader = Reader(statement.tokens)
    makes = reader.take("create")
    if makes:
        reader.skip("unique")
    if not (makes or reader.take("drop")) or not reader.take("index", "concurrently"):
        raise _refused(revision)
    if not makes:
        reader.take("if", "exists")
    name, table = reader.name(), None
    if makes and reader.take("on"):
        table = reader.name()
    if not name or (not table if makes else reader.rest):
        raise _refused(revision)
    keyword = next(token for token in statement.tokens if token.is_any("concurrently"))
    return ConcurrentIndex(statement, text[: keyword.start] + text[keyword.end :].lstrip(), name, table)


def _refused(revision: str) -> RevisionRefused:
    return RevisionRefused(
        f"Revision {revision} says `concurrently = True`: it must be one CREATE INDEX CONCURRENTLY name ON table (…), "
        "or one DROP INDEX CONCURRENTLY name, without IF NOT EXISTS, and nothing else. Write other statements, and "
        "checks, into a revision of their own."
    )


def run_concurrently(
    connection: Connection,
    revision: str,
    index: ConcurrentIndex,
    schema_name: str,
    roles: ServiceRoles,
    *,
    lock_timeout_ms: int,
    statement_timeout_ms: int,
) -> None:
    """Make or drop the index in one schema, as the owner, with each statement committed by itself. `connection` is in
    autocommit. The caller has checked the schema's revision, and writes the new one afterwards.

    It locks the table SHARE UPDATE EXCLUSIVE, which blocks no reader or writer, and waits for db transactions that have
    used the table, as long as the lock time-out. An index of that name is left of a run that was killed: it is dropped
    and made again, also if it is valid, because nothing says of what definition it is. Raises psycopg's errors with a
    note that names the revision; a new invalid index is then dropped, if no lock prevents that.
    """
    driver = driver_of(connection)
    timeouts = {"lock_timeout": lock_timeout_ms, "statement_timeout": statement_timeout_ms}
    with _session(driver, schema_name, roles, timeouts):
        try:
            if index.table:
                _make(driver, index)
            else:
                _drop(driver, index)
        except psycopg.Error as error:
            error.add_note(f"Revision {revision}: {index.statement.summary}")
            raise


def _make(driver: psycopg.Connection[Any], index: ConcurrentIndex) -> None:
    ours = (index.name, index.table)
    if driver.execute(_INDEX_OF_TABLE, ours).rowcount:
        _drop(driver, index)
    try:
        driver.execute(index.statement.text.encode())
    except psycopg.Error:
        with suppress(psycopg.Error):
            if driver.execute(_INVALID_INDEX_OF_TABLE, ours).rowcount:
                _drop(driver, index)
        raise


def _drop(driver: psycopg.Connection[Any], index: ConcurrentIndex) -> None:
    """Drop the index, unless it is gone already."""
    if driver.execute(_INDEX, (index.name,)).rowcount:
        driver.execute(f"DROP INDEX CONCURRENTLY {index.name}".encode())


@contextmanager
def _session(
    driver: psycopg.Connection[Any], schema_name: str, roles: ServiceRoles, timeouts: dict[str, int]
) -> Iterator[None]:
    """Settings of the session, because there is no db transaction that could have them. They end with the block. Raises
    MigrationError behind PgBouncer, where they would be those of another client's session.
    """
    ((pid,),) = driver.execute("SELECT pg_backend_pid()", prepare=False).fetchall()
    if pid != driver.info.backend_pid:
        raise MigrationError(
            "An index can't be made CONCURRENTLY through PgBouncer: give ADMIN_DATABASE_URL the server's own address."
        )
    try:
        for name, milliseconds in timeouts.items():
            driver.execute(sql.SQL("SET {} TO {}").format(sql.Identifier(name), milliseconds))
        driver.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(roles.owner)))
        bind_session(driver, schema_name)
        yield
    finally:
        with suppress(psycopg.OperationalError):  # A broken connection has no settings.
            driver.execute("RESET ROLE")
            unbind_session(driver)
            for name in timeouts:
                driver.execute(sql.SQL("RESET {}").format(sql.Identifier(name)))


@contextmanager
def autocommit(engine: Engine) -> Iterator[Connection]:
    """A connection in autocommit, which is closed afterwards."""
    with engine.connect() as connection:
        driver_of(connection).autocommit = True
        try:
            yield connection
        finally:
            connection.invalidate()
