"""Takes one tenant's backup, while its members go on paying.

Its tables are locked against a change of form before the snapshot is taken in which all is read, and the registry's row
is the same before and in it. So no migration falls between what was looked at and what is written; where one did, the
tenant is taken again.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from tenant_schemas.backup.source import Source, read_committed, repeatable_read, translate_errors
from tenant_schemas.backup.staging import remove_abandoned_folders
from tenant_schemas.backup.writer import BackupOptions, TenantSnapshot, write_bundle
from tenant_schemas.errors import TenantChanged, TenantDrifted
from tenant_schemas.schema_diff.catalog import fingerprints_of
from tenant_schemas.tenant import Tenant

_ATTEMPTS: Final = 5


def back_up(source: Source, slug: str, options: BackupOptions) -> Bundle:
    """Write a bundle of the tenant, of whatever status. Raises BackupError or TenantNotFound, and then leaves none."""
    with translate_errors(slug), source.connect(slug) as connection:
        remove_abandoned_folders(options.folder, slug)
        return back_up_in_own_snapshot(connection, source, slug, options)


def back_up_in_own_snapshot(
    connection: psycopg.Connection[Any], source: Source, slug: str, options: BackupOptions
) -> Bundle:
    """Take it under a snapshot of its own."""

    def judge(tenant: Tenant, fingerprints: Fingerprints) -> None:
        if not options.with_dump:  # pg_dump's file tells of whatever form it has.
            check_drift(tenant, find_drift(connection, source, [tenant], fingerprints))

    with stable_snapshot(connection, source, slug, judge) as frozen:
        return check_and_write(connection, source, frozen, options)


@contextmanager
def stable_snapshot(
    connection: psycopg.Connection[Any], source: Source, slug: str, judge: Callable[[Tenant, Fingerprints], None]
) -> Iterator[TenantSnapshot]:
    """The tenant in a snapshot that no migration falls into, for as long as the block lasts. `judge` may refuse it
    before. Raises TenantChanged if it is migrated again and again.
    """
    for _ in range(_ATTEMPTS):
        with read_committed(connection):
            registered = find_registry_row(connection, slug)
            tables = tables_of(connection, registered.tenant.schema_name, source.backup_policy)
            fingerprints = fingerprints_of(connection, [registered.tenant])
        judge(registered.tenant, fingerprints)
        with repeatable_read(connection):
            frozen = _freeze(connection, source, registered, tables, fingerprints)
            if frozen is not None:
                yield frozen
                return
    raise TenantChanged(f"{slug} was migrated again and again meanwhile; try when the migrator has done.")


def _freeze(
    connection: psycopg.Connection[Any],
    source: Source,
    registered: RegistryRow,
    tables: Sequence[Table],
    fingerprints: Fingerprints,
) -> TenantSnapshot | None:
    """Lock first; the first statement after that takes the snapshot. None if the tenant is not as it was found."""
    tenant = registered.tenant
    try:
        lock_tables(connection, tenant.schema_name, tables, source.backup_policy)
    except psycopg.errors.UndefinedTable:
        return None
    ((moment,),) = connection.execute("SELECT clock_timestamp()")
    seen = find_registry_row(connection, tenant.slug), tables_of(connection, tenant.schema_name, source.backup_policy)
    if seen != (registered, tables):
        return None
    return TenantSnapshot(
        registered=registered,
        tables=tuple(tables),
        fingerprint=fingerprints.get(tenant.schema_name, ""),
        snapshot=None,
        taken_at=moment,
    )


def check_and_write(
    connection: psycopg.Connection[Any], source: Source, frozen: TenantSnapshot, options: BackupOptions
) -> Bundle:
    """Write a tenant that is locked and settled, if its schema is at the revision that the registry says."""
    tenant = frozen.tenant
    own = schema_revision(connection, tenant.schema_name)
    if own != tenant.revision:
        raise TenantDrifted(f"{tenant.slug} is registered at revision {tenant.revision}, and its schema says {own}.")
    if options.with_dump:
        check_pg_dump(connection)
    return write_bundle(connection, source, frozen, options)
