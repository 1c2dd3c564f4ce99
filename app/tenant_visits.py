"""The work of a `flask` command in many tenants: one that fails is a line of the report and stops no other.

A locked tenant is given up after a time-out; the report names the session that locks it, as ADMIN_DATABASE_URL's login
sees it.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NoReturn, TypeVar

import click
import sqlalchemy as sa
from flask import Flask, current_app
from sqlalchemy.exc import SQLAlchemyError

from app.config import Settings
from app.db import admin_engine, db
from app.errors import ServiceError
from tenant_schemas.errors import TenantNotFound
from tenant_schemas.flask import connections, tenant_context
from tenant_schemas.registry import all_tenants, get_tenant
from tenant_schemas.sessions import lock_holders
from tenant_schemas.tenant import Tenant
from tenant_schemas.visits import Visit, visit_each

_EXTENSION: Final = "tenant_visits"
_LOCK_TIMEOUT_MS: Final = 5_000

Found = TypeVar("Found")

lock_timeout_option = click.option(
    "--lock-timeout",
    "lock_timeout_ms",
    type=click.IntRange(1, 3_600_000),
    default=_LOCK_TIMEOUT_MS,
    show_default=True,
    help="Longest wait for a lock in one tenant, in milliseconds.",
)


def init_app(app: Flask, settings: Settings) -> None:
    """Remember the login that may see other sessions. Opens no connection."""
    app.extensions[_EXTENSION] = settings.admin_database_url


def chosen_tenants(slugs: Sequence[str], *, of_any_status: bool = False) -> list[Tenant]:
    """The named tenants, of any status; without names all active ones, or all. Raises click's UsageError for an unknown
    tenant, and SQLAlchemy's errors if the registry can't be read.
    """
    try:
        with connections().shared.begin() as connection:
            if slugs:
                return [get_tenant(connection, slug) for slug in dict.fromkeys(slugs)]
            return [tenant for tenant in all_tenants(connection) if of_any_status or tenant.is_active]
    except TenantNotFound as error:
        raise click.UsageError(str(error)) from None


def visit_tenants(
    tenants: Sequence[Tenant], work: Callable[[Tenant], Found], *, lock_timeout_ms: int
) -> Iterator[Visit[Found]]:
    """Do the work with each tenant bound, and yield its result or its failure. The work commits."""

    def visit(tenant: Tenant) -> Found:
        try:
            with tenant_context(tenant), _limited_lock_waits(lock_timeout_ms):
                return work(tenant)
        finally:
            _end_session()

    holders_of = lock_holders_by(current_app.extensions[_EXTENSION])
    return visit_each(tenants, visit, holders_of, more_failures=(ServiceError,))


def report_counts(work: Callable[[], int], what: str, *, lock_timeout_ms: int) -> NoReturn:
    """Do the work, which commits, in each active tenant, and print the number of `what` that it returns. Exits 1 if a
    tenant failed, else 0.
    """
    has_failed = False
    for visit in visit_tenants(chosen_tenants(()), lambda _: work(), lock_timeout_ms=lock_timeout_ms):
        if visit.result is None:
            has_failed = True
            click.echo(f"{visit.tenant.slug}: failed: {visit.failure}", err=True)
        else:
            click.echo(f"{visit.tenant.slug}: {visit.result} {what}")
    sys.exit(1 if has_failed else 0)


@contextmanager
def _limited_lock_waits(lock_timeout_ms: int) -> Iterator[None]:
    """Until the block ends, each db transaction of the session begins with a lock time-out."""

    def limit(_: Any, __: Any, connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout TO {int(lock_timeout_ms)}")

    sa.event.listen(db.session, "after_begin", limit)
    try:
        yield
    finally:
        sa.event.remove(db.session, "after_begin", limit)


def _end_session() -> None:
    """Roll back what the work has not committed. A session whose connection has ended forgets it."""
    try:
        db.session.rollback()
    except SQLAlchemyError:
        db.session().invalidate()
    db.session.remove()


def lock_holders_by(admin_url: str) -> Callable[[Tenant], str]:
    """A function that names the sessions which lock a tenant. Each call opens a connection of this login."""

    def holders_of(tenant: Tenant) -> str:
        if not admin_url:
            return "unknown: set ADMIN_DATABASE_URL, and the session is named"
        try:
            with admin_engine(admin_url).connect() as connection:
                return lock_holders(connection, tenant.schema_name)
        except SQLAlchemyError:
            return "unknown: the login of ADMIN_DATABASE_URL can't connect"

    return holders_of
