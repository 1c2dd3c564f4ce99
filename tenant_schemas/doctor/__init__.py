"""Examines a live installation and reports every deviation from the engine's rules. It changes nothing: it creates one
reference schema, to compare the tenants' schemas with, in a savepoint, and rolls it back.

The checks read PostgreSQL's catalogue, not a list of the application's tables: a new table, function or tenant is
examined too. `examine` may run as the migrator; `unseen` lists the checks that need a superuser.
"""

from collections.abc import Callable, Iterable
from typing import Final

from sqlalchemy import Connection

from tenant_schemas.doctor import objects, privileges, registry, roles, schema_drift, server, shared
from tenant_schemas.doctor.finding import Finding, Installation, Severity, error
from tenant_schemas.migrations.history import History, Migrations
from tenant_schemas.registry import all_tenants
from tenant_schemas.roles import is_superuser
from tenant_schemas.schema_diff.accepted import NOTHING_ACCEPTED, AcceptedDrift
from tenant_schemas.schema_diff.reference import make_reference
from tenant_schemas.visits import LOCK_TIMEOUT_MS, Visitor

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

_BLOCKED: Final = "End the sessions that block it, or wait for them, and run the doctor again."
_REPAIR: Final = "Run `python -m scripts.repair_tenant {} --superuser-url URL`, and the doctor again."


def examine(
    connection: Connection,
    migrations: Migrations,
    *,
    shared_logins: bool = False,
    max_connections: int | None = None,
    exempt: frozenset[str] = frozenset(),
    is_full: bool = False,
    lock_timeout_ms: int = LOCK_TIMEOUT_MS,
    accepted: AcceptedDrift = NOTHING_ACCEPTED,
) -> list[Finding]:
    """Return all findings, errors first; an empty list means a sound installation. Changes and commits nothing.

    While the migrations create the reference schema (a fraction of a second), writers of the `shared` tables that
    tenants' tables reference must wait. If those tables are in use, it gives up after the lock time-out and reports
    that. In a read-only db transaction, or if the login can't act as the owner, it creates and locks nothing.

    `max_connections` is the number of connections that one process of the service may open. Findings of the checks
    named in `exempt` are left out, for a throw-away server. With `is_full` every schema is
    described, also if its stamp is that of an earlier look for drift. A tenant that can't be read, or not within the
    lock time-out, is one finding (`unreadable`) and stops no other. Differences that are `accepted` are no finding.
    """
    savepoint = connection.begin_nested()
    try:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout TO {int(lock_timeout_ms)}")
        visitor = Visitor(connection, lock_timeout_ms=lock_timeout_ms)
        findings = list(
            _examine(visitor, migrations, shared_logins, max_connections, is_full=is_full, accepted=accepted)
        )
    finally:
        savepoint.rollback()
    found = [finding for finding in findings if finding.check not in exempt]
    return sorted(found, key=lambda finding: (finding.severity is not Severity.ERROR, finding.check, finding.where))


def unseen(connection: Connection) -> list[str]:
    """The checks that `examine` leaves out because this login is no superuser."""
    if is_superuser(connection):
        return []
    return ["password storage (pg_authid)", "logins without a password (pg_hba_file_rules)"]


def _examine(
    visitor: Visitor[Connection],
    migrations: Migrations,
    shared_logins: bool,
    max_connections: int | None,
    *,
    is_full: bool,
    accepted: AcceptedDrift,
) -> Iterable[Finding]:
    connection = visitor.connection
    prepared = "SELECT to_regclass('shared.tenants') IS NOT NULL AND to_regrole(%s) IS NOT NULL"
    if not connection.exec_driver_sql(prepared, (migrations.roles.owner,)).scalar_one():
        remedy = "Run `python -m scripts.create_roles`, then `python -m scripts.migrate`."
        yield error(
            "prepared",
            "the database",
            f"the registry shared.tenants or the role {migrations.roles.owner} does not exist",
            remedy,
        )
        return
    tenants = tuple(all_tenants(connection))
    reference = make_reference(connection, migrations, tenants, migrations.head(History.TENANT))
    connection.exec_driver_sql("SET LOCAL transaction_read_only TO on")
    installation = Installation(
        connection,
        migrations.roles,
        migrations,
        tenants,
        shared_logins,
        int(connection.exec_driver_sql("SHOW server_version_num").scalar_one()),
        is_superuser(connection),
        reference,
        is_full,
        visitor,
        accepted,
    )
    visitor.note_missing(tenants)
    for check in _CHECKS:
        yield from check(installation)
    yield from _unreadable(installation)
    if max_connections is not None:
        yield from server.check_capacity(installation, max_connections)


def _unreadable(installation: Installation) -> Iterable[Finding]:
    """The tenants that could not be read. (`registry.check` finds schemas that do not exist.)"""
    slugs = {tenant.schema_name: tenant.slug for tenant in installation.tenants}
    for schema_name, failure in installation.visitor.failures.items():
        if not failure.is_gone:
            what = f"it was not examined in full, because it can't be read: {failure}"
            remedy = _REPAIR.format(slugs[schema_name]) if failure.blocked_by is None else _BLOCKED
            yield error("unreadable", f"schema {schema_name}", what, remedy)
