"""Visits many tenants on one connection, so that a tenant that can't be read is one row of the report and stops no
other.

A visit waits for locks for a limited time. Its savepoint is rolled back at its end, which gives its locks back. It
changes nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from tenant_schemas.errors import SchemaMissing, TenancyError
from tenant_schemas.migrations.history import sqlstate_of
from tenant_schemas.printable import printable
from tenant_schemas.sessions import LOCK_NOT_AVAILABLE, AnyConnection, fetch, lock_holders
from tenant_schemas.tenant import Tenant

LOCK_TIMEOUT_MS: Final = 2_000
# Short, because the visits that follow a failed one wait too, and meanwhile hold locks on other tenants' tables.
_LOCK_TIMEOUT_OF_MANY_MS: Final = 200
TENANTS_AT_ONCE: Final = 100
_EXISTING: Final = "SELECT nspname FROM pg_catalog.pg_namespace WHERE nspname = ANY(%s)"

FAILURES: Final[tuple[type[Exception], ...]] = (psycopg.Error, SQLAlchemyError, TenancyError)

Found = TypeVar("Found")
Session_co = TypeVar("Session_co", bound=AnyConnection, covariant=True)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a tenant could not be visited. `blocked_by` names the sessions that hold the lock. With `is_gone` the schema
    does not exist.
    """

    error: str
    sqlstate: str | None = None
    blocked_by: str | None = None
    is_gone: bool = False

    def __str__(self) -> str:
        blocked_by = "" if self.blocked_by is None else f". Blocked by: {self.blocked_by}"
        return printable(f"{self.error}{blocked_by}")  # Another session chose its name and its statement.


class Visitor(Generic[Session_co]):
    """Visits tenants in the open db transaction of a connection. `failures` are the tenants that could not be visited,
    by schema name; they are not visited again.
    """

    def __init__(self, connection: Session_co, *, lock_timeout_ms: int = LOCK_TIMEOUT_MS) -> None:
        self.connection = connection
        self.failures: dict[str, Failure] = {}
        self._lock_timeout_ms = lock_timeout_ms

    def note_missing(self, tenants: Sequence[Tenant]) -> None:
        """Note each tenant whose schema does not exist as a failure."""
        missing = missing_schemas(self.connection, tenants)
        self.failures |= {tenant.schema_name: gone(tenant) for tenant in tenants if tenant.schema_name in missing}

    def visit_all(
        self,
        tenants: Sequence[Tenant],
        read: Callable[[Sequence[Tenant]], Mapping[str, Found]],
        at_once: int | None = None,
    ) -> dict[str, Found]:
        """The results of `read` by schema name. It gets several tenants at once and, if that fails, each alone. Raises
        the error of a lost connection.
        """
        found: dict[str, Found] = {}
        waiting = [tenant for tenant in tenants if tenant.schema_name not in self.failures]
        step = at_once or TENANTS_AT_ONCE
        for start in range(0, len(waiting), step):
            found |= self._visit_some(waiting[start : start + step], read)
        return found

    def visit(self, tenant: Tenant, read: Callable[[], Found]) -> Found | None:
        """The result of `read` for one tenant; None if it failed now or earlier."""
        return self.visit_all([tenant], lambda _: {tenant.schema_name: read()}).get(tenant.schema_name)

    def _holders_of(self, tenant: Tenant) -> str:
        return lock_holders(self.connection, tenant.schema_name)

    def _visit_some(
        self, tenants: Sequence[Tenant], read: Callable[[Sequence[Tenant]], Mapping[str, Found]]
    ) -> Mapping[str, Found]:
        timeout_ms = self._lock_timeout_ms
        try:
            with releasing_locks(self.connection, timeout_ms if len(tenants) == 1 else _short(timeout_ms)):
                return read(tenants)
        except FAILURES as error:
            if is_lost(self.connection):
                raise
            if len(tenants) == 1:
                self.failures[tenants[0].schema_name] = failure_of(error, tenants[0], self._holders_of)
                return {}
        found: dict[str, Found] = {}
        for tenant in tenants:
            found |= self._visit_some([tenant], read)
        return found


def _short(lock_timeout_ms: int) -> int:
    return min(lock_timeout_ms, _LOCK_TIMEOUT_OF_MANY_MS)


def missing_schemas(connection: AnyConnection, tenants: Sequence[Tenant]) -> set[str]:
    """The names of the tenants' schemas that do not exist. Locks no table of a tenant."""
    names = {tenant.schema_name for tenant in tenants}
    return names - {str(name) for (name,) in fetch(connection, _EXISTING, (sorted(names),))}


def check_schema(connection: AnyConnection, tenant: Tenant) -> None:
    """Raises SchemaMissing if the tenant's schema does not exist."""
    if missing_schemas(connection, [tenant]):
        raise SchemaMissing.of(tenant)


def gone(tenant: Tenant) -> Failure:
    return Failure(str(SchemaMissing.of(tenant)), is_gone=True)


@dataclass(frozen=True, slots=True)
class Visit(Generic[Found]):
    """The result of a visit, or its failure."""

    tenant: Tenant
    result: Found | None = None
    failure: Failure | None = None


def visit_each(
    tenants: Iterable[Tenant],
    visit: Callable[[Tenant], Found],
    holders_of: Callable[[Tenant], str],
    more_failures: tuple[type[Exception], ...] = (),
) -> Iterator[Visit[Found]]:
    """Call `visit` with each tenant, on connections of its own, and yield each result or failure. `holders_of` names
    the sessions that lock a tenant. Errors of `more_failures` are failures too.
    """
    failures: tuple[type[Exception], ...] = (*FAILURES, *more_failures)
    for tenant in tenants:
        try:
            found = Visit(tenant, visit(tenant))
        except failures as error:
            found = Visit(tenant, failure=failure_of(error, tenant, holders_of))
        yield found


def failure_of(error: Exception, tenant: Tenant, holders_of: Callable[[Tenant], str]) -> Failure:
    """The failure of a tenant. `holders_of` is asked if a lock was not available."""
    sqlstate = sqlstate_of(error)
    blocked_by = holders_of(tenant) if sqlstate == LOCK_NOT_AVAILABLE else None
    return Failure(short_reason(error), sqlstate, blocked_by, is_gone=isinstance(error, SchemaMissing))


def short_reason(error: Exception) -> str:
    """The first line of an error, in PostgreSQL's words if it is PostgreSQL's."""
    lines = str(getattr(error, "orig", None) or error).replace("\0", " ").splitlines()
    return lines[0] if lines else type(error).__name__


def is_lost(connection: AnyConnection) -> bool:
    """Whether the connection has ended: then no other tenant can be visited on it."""
    if isinstance(connection, Connection):
        return connection.invalidated or connection.closed
    return connection.closed


@contextmanager
def releasing_locks(connection: AnyConnection, lock_timeout_ms: int) -> Iterator[None]:
    """A savepoint with a lock time-out. It is rolled back at the end, which releases the locks that the block took: the
    locks of a thousand tenants would exceed the server's lock table.
    """
    set_timeout = f"SET LOCAL lock_timeout TO {int(lock_timeout_ms)}"
    if not isinstance(connection, Connection):
        with connection.transaction(force_rollback=True):
            connection.execute(set_timeout.encode())
            yield
        return
    savepoint = connection.begin_nested()
    try:
        connection.exec_driver_sql(set_timeout)
        yield
    finally:
        if not connection.invalidated:
            savepoint.rollback()
