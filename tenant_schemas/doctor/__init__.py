"""Examines a live installation: is every wall where it should be, on this server, today? It changes nothing:
what it writes is one new tenant's schema, to compare the others with, in a savepoint that is rolled back.

What is looked for follows from the catalogue and from the rules of this engine, not from a list of the application's
tables: a new table, function or tenant is examined like the old ones. `examine` may run as the migrator; `unseen` says
what only a superuser would have seen.
"""

from collections.abc import Callable, Iterable
from typing import Final

from sqlalchemy import Connection

from tenant_schemas.doctor import objects, privileges, registry, roles, schema_drift, server, shared
from tenant_schemas.doctor.finding import Finding, Installation, Severity, error
from tenant_schemas.migrations.history import History, Migrations
from tenant_schemas.registry import all_tenants
from tenant_schemas.schema_diff.reference import make_reference

__all__ = ["Finding", "Severity", "examine", "unseen"]

_CHECKS: Final[tuple[Callable[[Installation], Iterable[Finding]], ...]] = (
    server.check,
    roles.check,
    privileges.check,
    shared.check,
    objects.check,
    registry.check,
    schema_drift.check,
)


def examine(
    connection: Connection,
    migrations: Migrations,
    *,
    shared_logins: bool = False,
    max_connections: int | None = None,
    exempt: frozenset[str] = frozenset(),
) -> list[Finding]:
    """Everything that is not as it should be, errors first; empty is good. Changes and commits nothing.

    While the migrations make the schema that is rolled back (a fraction of a second) nobody may write to the tables of
    `shared` that tenants' tables refer to; if it must wait for these, it gives up soon and says so. Where the db
    transaction may only read, or who looks may not act as the owner, nothing is made or locked.

    `max_connections` is what one process of the service may open. `exempt` are the names of checks whose findings are
    left out, for a server that is thrown away.
    """
    savepoint = connection.begin_nested()
    try:
        findings = list(_examine(connection, migrations, shared_logins, max_connections))
    finally:
        savepoint.rollback()
    found = [finding for finding in findings if finding.check not in exempt]
    return sorted(found, key=lambda finding: (finding.severity is not Severity.ERROR, finding.check, finding.where))


def unseen(connection: Connection) -> list[str]:
    """What this login can't see and `examine` therefore says nothing about."""
    if _is_superuser(connection):
        return []
    return ["how passwords are stored (pg_authid)", "who is let in without a password (pg_hba_file_rules)"]


def _examine(
    connection: Connection, migrations: Migrations, shared_logins: bool, max_connections: int | None
) -> Iterable[Finding]:
    prepared = "SELECT to_regclass('shared.tenants') IS NOT NULL AND to_regrole(%s) IS NOT NULL"
    if not connection.exec_driver_sql(prepared, (migrations.roles.owner,)).scalar_one():
        remedy = "Run `python -m scripts.create_roles`, then `python -m scripts.migrate`."
        yield error("prepared", "the database", "there is no installation here", remedy)
        return
    tenants = tuple(all_tenants(connection))
    new_schema = make_reference(connection, migrations, tenants, migrations.head(History.TENANT))
    connection.exec_driver_sql("SET LOCAL transaction_read_only TO on")
    installation = Installation(
        connection,
        migrations.roles,
        migrations,
        tenants,
        shared_logins,
        int(connection.exec_driver_sql("SHOW server_version_num").scalar_one()),
        _is_superuser(connection),
        new_schema,
    )
    for check in _CHECKS:
        yield from check(installation)
    if max_connections is not None:
        yield from server.check_capacity(installation, max_connections)


def _is_superuser(connection: Connection) -> bool:
    return bool(connection.exec_driver_sql("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").scalar_one())
