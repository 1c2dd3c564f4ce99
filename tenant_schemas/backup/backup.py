"""Backs up one tenant while its members keep using it.

The tenant's tables are locked against DDL before the snapshot is taken, and the registry row must be the same before
and in the snapshot. So no migration falls between the introspection and the rows. If one did, the backup starts again.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import psycopg

from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.backup.drift_check import Fingerprints, check_drift, find_drift
from tenant_schemas.backup.introspection import (
    RegistryRow,
    Table,
    find_registry_row,
    lock_tables,
    schema_revision,
    tables_of,
)
from tenant_schemas.backup.pg_dump import check_pg_dump
from tenant_schemas.backup.source import Source, translate_errors
from tenant_schemas.backup.staging import remove_abandoned_folders
from tenant_schemas.backup.writer import BackupOptions, TenantSnapshot, write_bundle
from tenant_schemas.errors import BackupError, TenantChanged, TenantDrifted
from tenant_schemas.schema_diff.catalog import fingerprints_of
from tenant_schemas.schema_diff.effects import DriftedObject
from tenant_schemas.sessions import lock_holders
from tenant_schemas.tenant import Tenant
from tenant_schemas.visits import check_schema, failure_of

_ATTEMPTS: Final = 5
# None if it was not looked for.
Drifted = tuple[DriftedObject, ...] | None


def back_up(source: Source, slug: str, options: BackupOptions) -> Bundle:
    """Write a bundle of the tenant, of any status. Raises BackupError or TenantNotFound, and then leaves no bundle."""
    with translate_errors(slug), source.connect(slug) as connection:
        remove_abandoned_folders(options.folder, slug)
        return back_up_in_own_snapshot(connection, source, slug, options)


def back_up_in_own_snapshot(
    connection: psycopg.Connection[Any], source: Source, slug: str, options: BackupOptions
) -> Bundle:
    """Write a bundle of the tenant from a new snapshot. Raises BackupError, SchemaMissing or TenantNotFound."""

    def check(tenant: Tenant, fingerprints: Fingerprints) -> Drifted:
        drift = find_drift(connection, source, [tenant], fingerprints)
        return check_drift(tenant, drift, with_dump=options.with_dump)

    try:
        with stable_snapshot(connection, source, slug, check) as snapshot:
            return check_and_write(connection, source, snapshot, options)
    except psycopg.errors.LockNotAvailable as error:
        raise locked(connection, slug, error) from error


def locked(connection: psycopg.Connection[Any], slug: str, error: psycopg.errors.LockNotAvailable) -> BackupError:
    """The error of a tenant whose tables stay locked; it names the session that locks them. Needs a connection without
    an open db transaction.
    """
    with connection.transaction():
        tenant = find_registry_row(connection, slug).tenant
        failure = failure_of(error, tenant, lambda _: lock_holders(connection, tenant.schema_name))
    return BackupError(f"{slug} can't be read: {failure}")


@contextmanager
def stable_snapshot(
    connection: psycopg.Connection[Any], source: Source, slug: str, check: Callable[[Tenant, Fingerprints], Drifted]
) -> Iterator[TenantSnapshot]:
    """A snapshot of the tenant, with its tables locked against DDL until the block ends. `check` runs before the locks,
    returns what has drifted, and may raise. Raises SchemaMissing, and TenantChanged if the tenant is migrated during
    every attempt.
    """
    for _ in range(_ATTEMPTS):
        with source.read_committed(connection):
            row = find_registry_row(connection, slug)
            check_schema(connection, row.tenant)
            tables = tables_of(connection, row.tenant.schema_name, source.backup_policy)
            fingerprints = fingerprints_of(connection, [row.tenant])
        drifted = check(row.tenant, fingerprints)
        with source.repeatable_read(connection):
            snapshot = _lock_and_take_snapshot(connection, source, row, tables, fingerprints)
            if snapshot is not None:
                yield replace(snapshot, drift=drifted)
                return
    raise TenantChanged(f"{slug} was migrated during each of {_ATTEMPTS} attempts: run it again after the migration.")


def _lock_and_take_snapshot(
    connection: psycopg.Connection[Any],
    source: Source,
    row: RegistryRow,
    tables: Sequence[Table],
    fingerprints: Fingerprints,
) -> TenantSnapshot | None:
    """Lock the tables; the first statement after that takes the snapshot. None if the tenant has changed since `row`
    was read.
    """
    tenant = row.tenant
    try:
        lock_tables(connection, tenant.schema_name, tables, source.backup_policy)
    except psycopg.errors.UndefinedTable:
        return None
    ((moment,),) = connection.execute("SELECT clock_timestamp()")
    now = find_registry_row(connection, tenant.slug), tables_of(connection, tenant.schema_name, source.backup_policy)
    if now != (row, tables):
        return None
    return TenantSnapshot(
        registry_row=row,
        tables=tuple(tables),
        fingerprint=fingerprints.get(tenant.schema_name, ""),
        exported_id=None,
        taken_at=moment,
    )


def check_and_write(
    connection: psycopg.Connection[Any], source: Source, snapshot: TenantSnapshot, options: BackupOptions
) -> Bundle:
    """Write the bundle of a snapshot. Raises TenantDrifted if registry and schema name different revisions, DumpFailed
    if a dump is wanted and pg_dump is too old.
    """
    tenant = snapshot.tenant
    revision = schema_revision(connection, tenant.schema_name)
    if revision != tenant.revision:
        raise TenantDrifted(
            f"{tenant.slug} is at revision {tenant.revision} in the registry, but at {revision} in its schema "
            f"{tenant.schema_name}: correct the registry or the schema."
        )
    if options.with_dump:
        check_pg_dump(connection)
    return write_bundle(connection, source, snapshot, options)
