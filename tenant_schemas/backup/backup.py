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
from tenant_schemas.backup.introspection import Registered, Table, find_registered, lock_tables, own_revision, tables_of
from tenant_schemas.backup.pg_dump import check_pg_dump
from tenant_schemas.backup.source import Source, frozen_reading, reading, saying_what_failed
from tenant_schemas.backup.staging import remove_left_overs
from tenant_schemas.backup.writer import Frozen, Shape, write_bundle
from tenant_schemas.errors import TenantChanged, TenantDrifted
from tenant_schemas.schema_diff.catalog import fingerprints_of
from tenant_schemas.tenant import Tenant

_ATTEMPTS: Final = 5


def back_up(source: Source, slug: str, shape: Shape) -> Bundle:
    """Write a bundle of the tenant, of whatever status. Raises BackupError or TenantNotFound, and then leaves none."""
    with saying_what_failed(slug), source.connect(slug) as connection:
        remove_left_overs(shape.folder, slug)
        return back_up_alone(connection, source, slug, shape)


def back_up_alone(connection: psycopg.Connection[Any], source: Source, slug: str, shape: Shape) -> Bundle:
    """Take it under a snapshot of its own."""

    def judge(tenant: Tenant, fingerprints: Fingerprints) -> None:
        if not shape.with_dump:  # pg_dump's file tells of whatever form it has.
            check_drift(tenant, find_drift(connection, source, [tenant], fingerprints))

    with settled(connection, source, slug, judge) as frozen:
        return write_checked(connection, source, frozen, shape)


@contextmanager
def settled(
    connection: psycopg.Connection[Any], source: Source, slug: str, judge: Callable[[Tenant, Fingerprints], None]
) -> Iterator[Frozen]:
    """The tenant in a snapshot that no migration falls into, for as long as the block lasts. `judge` may refuse it
    before. Raises TenantChanged if it is migrated again and again.
    """
    for _ in range(_ATTEMPTS):
        with reading(connection):
            registered = find_registered(connection, slug)
            tables = tables_of(connection, registered.tenant.schema_name, source.backup_policy)
            fingerprints = fingerprints_of(connection, [registered.tenant])
        judge(registered.tenant, fingerprints)
        with frozen_reading(connection):
            frozen = _freeze(connection, source, registered, tables, fingerprints)
            if frozen is not None:
                yield frozen
                return
    raise TenantChanged(f"{slug} was migrated again and again meanwhile; try when the migrator has done.")


def _freeze(
    connection: psycopg.Connection[Any],
    source: Source,
    registered: Registered,
    tables: Sequence[Table],
    fingerprints: Fingerprints,
) -> Frozen | None:
    """Lock first; the first statement after that takes the snapshot. None if the tenant is not as it was found."""
    tenant = registered.tenant
    try:
        lock_tables(connection, tenant.schema_name, tables, source.backup_policy)
    except psycopg.errors.UndefinedTable:
        return None
    ((moment,),) = connection.execute("SELECT clock_timestamp()")
    seen = find_registered(connection, tenant.slug), tables_of(connection, tenant.schema_name, source.backup_policy)
    if seen != (registered, tables):
        return None
    return Frozen(
        registered=registered,
        tables=tuple(tables),
        fingerprint=fingerprints.get(tenant.schema_name, ""),
        snapshot=None,
        taken_at=moment,
    )


def write_checked(connection: psycopg.Connection[Any], source: Source, frozen: Frozen, shape: Shape) -> Bundle:
    """Write a tenant that is locked and settled, if its schema is at the revision that the registry says."""
    tenant = frozen.tenant
    own = own_revision(connection, tenant.schema_name)
    if own != tenant.revision:
        raise TenantDrifted(f"{tenant.slug} is registered at revision {tenant.revision}, and its schema says {own}.")
    if shape.with_dump:
        check_pg_dump(connection)
    return write_bundle(connection, source, frozen, shape)
