"""Backs up all tenants from one snapshot, several at once. After a failed tenant the others are still backed up.

A tenant that is migrated while the run reads it gets a snapshot of its own, because the structure of its tables is no
longer the one in the common snapshot. Its manifest names that snapshot.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import psycopg

from tenant_schemas.backup.backup import back_up_in_own_snapshot, check_and_write
from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.backup.drift_check import check_drift, find_drift
from tenant_schemas.backup.introspection import (
    RegistryRow,
    find_registry_row,
    list_registry_rows,
    lock_tables,
    tables_of,
)
from tenant_schemas.backup.source import Drift, Source, read_committed, repeatable_read, translate_errors
from tenant_schemas.backup.staging import remove_abandoned_folders
from tenant_schemas.backup.writer import BackupOptions, TenantSnapshot
from tenant_schemas.errors import TenancyError, TenantChanged
from tenant_schemas.schema_diff.catalog import fingerprints_of

# PostgreSQL locks the tables of each view that it describes, and its lock table is limited.
_FINGERPRINTS_PER_QUERY = 50


@dataclass(frozen=True, slots=True)
class BackupOutcome:
    """The outcome for one tenant: its bundle, or the error."""

    slug: str
    bundle: Bundle | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class _CommonSnapshot:
    """The exported snapshot of the run, with the registry, fingerprints and drift that were read before it."""

    registry: dict[str, RegistryRow]
    fingerprints: dict[str, str]
    drift: Drift
    exported_id: str
    taken_at: datetime


def back_up_all(source: Source, options: BackupOptions) -> Iterator[BackupOutcome]:
    """Back up all tenants, `options.jobs` at once; yields each outcome as it comes. Raises BackupError if the registry
    can't be read.
    """
    with translate_errors("the registry"), source.connect("all") as connection:
        remove_abandoned_folders(options.folder)
        with read_committed(connection):
            before = list_registry_rows(connection)
            fingerprints = _fingerprints(connection, before)
        tenants = [row.tenant for row in before]
        drift = {} if options.with_dump else find_drift(connection, source, tenants, fingerprints)
        with repeatable_read(connection):
            ((exported_id, moment),) = connection.execute("SELECT pg_export_snapshot(), clock_timestamp()")
            rows = list_registry_rows(connection)
            registry = {row.tenant.slug: row for row in before}
            common = _CommonSnapshot(registry, fingerprints, drift, exported_id, moment)
            yield from _back_up_tenants(source, options, common, rows)


def _fingerprints(connection: psycopg.Connection[Any], rows: Sequence[RegistryRow]) -> dict[str, str]:
    found: dict[str, str] = {}
    for start in range(0, len(rows), _FINGERPRINTS_PER_QUERY):
        with _releasing_locks(connection):
            some = [row.tenant for row in rows[start : start + _FINGERPRINTS_PER_QUERY]]
            found |= fingerprints_of(connection, some)
    return found


def _back_up_tenants(
    source: Source, options: BackupOptions, common: _CommonSnapshot, rows: Sequence[RegistryRow]
) -> Iterator[BackupOutcome]:
    threads = ThreadPoolExecutor(options.jobs)
    options = replace(options, jobs=1)  # The connections serve several tenants, not one large tenant.
    with closing(_ConnectionPairs(source, common.exported_id)) as pairs:
        try:
            backups = [threads.submit(_back_up_tenant, source, options, common, pairs, row) for row in rows]
            for backup in as_completed(backups):
                yield backup.result()
        finally:
            threads.shutdown(cancel_futures=True)


def _back_up_tenant(
    source: Source, options: BackupOptions, common: _CommonSnapshot, pairs: "_ConnectionPairs", row: RegistryRow
) -> BackupOutcome:
    slug = row.tenant.slug
    try:
        with translate_errors(slug), pairs.take() as pair:
            try:
                return BackupOutcome(slug, _back_up_in_common_snapshot(pair, source, options, common, row))
            except (psycopg.errors.UndefinedTable, TenantChanged):
                return BackupOutcome(slug, back_up_in_own_snapshot(pair.live, source, slug, options))
    except TenancyError as error:
        return BackupOutcome(slug, error=str(error))


def _back_up_in_common_snapshot(
    pair: "_ConnectionPair", source: Source, options: BackupOptions, common: _CommonSnapshot, row: RegistryRow
) -> Bundle:
    """Raises TenantChanged if the registry row is not the same before the snapshot, in it, and after all locks."""
    tenant = row.tenant
    with _releasing_locks(pair.snapshot):
        tables = tables_of(pair.snapshot, tenant.schema_name, source.backup_policy)
        lock_tables(pair.snapshot, tenant.schema_name, tables, source.backup_policy)
        if not common.registry.get(tenant.slug) == row == find_registry_row(pair.live, tenant.slug):
            raise TenantChanged(f"{tenant.slug} was changed during the backup.")
        check_drift(tenant, common.drift)
        fingerprint = common.fingerprints.get(tenant.schema_name, "")
        snapshot = TenantSnapshot(
            registry_row=row,
            tables=tables,
            fingerprint=fingerprint,
            exported_id=common.exported_id,
            taken_at=common.taken_at,
        )
        return check_and_write(pair.snapshot, source, snapshot, options)


class _ConnectionPair:
    """Two connections: `snapshot` sees the common snapshot, `live` the current data."""

    def __init__(self, source: Source, exported_id: str) -> None:
        with ExitStack() as opened:
            self.live = opened.enter_context(source.connect("all"))
            self.snapshot = opened.enter_context(source.join("all", exported_id))
            self.close = opened.pop_all().close

    @property
    def is_open(self) -> bool:
        return not (self.live.closed or self.snapshot.closed)


class _ConnectionPairs:
    """A pool of connection pairs. A pair with a broken connection is not used again."""

    def __init__(self, source: Source, exported_id: str) -> None:
        self._source, self._exported_id = source, exported_id
        self._idle: deque[_ConnectionPair] = deque()

    @contextmanager
    def take(self) -> Iterator[_ConnectionPair]:
        try:
            pair = self._idle.pop()
        except IndexError:
            pair = _ConnectionPair(self._source, self._exported_id)
        try:
            yield pair
        finally:
            if pair.is_open:
                self._idle.append(pair)
            else:
                pair.close()

    def close(self) -> None:
        for pair in self._idle:
            pair.close()


@contextmanager
def _releasing_locks(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Release the locks that the block took, by a rollback to a savepoint: the locks of a thousand tenants would exceed
    the server's lock table.
    """
    connection.execute("SAVEPOINT tenant")
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("ROLLBACK TO SAVEPOINT tenant")
