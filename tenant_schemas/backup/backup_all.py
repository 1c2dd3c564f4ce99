"""Backs up all tenants from one snapshot, several at once. After a failed tenant the others are still backed up.

A tenant that can't be read at first, for instance because its tables are locked, is tried again after the others.
A tenant that is migrated while the run reads it gets a snapshot of its own, because the structure of its tables is no
longer the one in the common snapshot. Its manifest names that snapshot.
"""

from collections import deque
from collections.abc import Iterator, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import psycopg

from tenant_schemas.backup.backup import back_up_in_own_snapshot, check_and_write, locked
from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.backup.drift_check import check_drift, find_drift
from tenant_schemas.backup.introspection import (
    RegistryRow,
    find_registry_row,
    list_registry_rows,
    lock_tables,
    tables_of,
)
from tenant_schemas.backup.source import Source, translate_errors
from tenant_schemas.backup.staging import remove_abandoned_folders
from tenant_schemas.backup.writer import BackupOptions, TenantSnapshot
from tenant_schemas.errors import TenancyError, TenantChanged
from tenant_schemas.schema_diff.catalog import fingerprints_of
from tenant_schemas.schema_diff.compare import Drift
from tenant_schemas.tenant import Tenant
from tenant_schemas.visits import LOCK_TIMEOUT_MS, Visitor

# PostgreSQL locks the tables of each view that it describes, and its lock table is limited.
_FINGERPRINTS_PER_QUERY = 50
_SECONDS_BETWEEN_CANCELS = 0.2


@dataclass(frozen=True, slots=True)
class BackupOutcome:
    """The outcome for one tenant: its bundle, or the error."""

    slug: str
    bundle: Bundle | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class _CommonSnapshot:
    """The exported snapshot of the run, with the registry, fingerprints and drift that were read before it. The schemas
    in `unread` could not be read then.
    """

    registry: dict[str, RegistryRow]
    fingerprints: dict[str, str]
    drift: Drift
    unread: Set[str]
    exported_id: str
    taken_at: datetime


def back_up_all(source: Source, options: BackupOptions) -> Iterator[BackupOutcome]:
    """Back up all tenants, `options.jobs` at once; yields each outcome as it comes. Raises BackupError if the registry
    can't be read.
    """
    with translate_errors("the registry"), source.connect("all") as connection:
        remove_abandoned_folders(options.folder)
        with source.read_committed(connection):
            before = list_registry_rows(connection)
            visitor = Visitor(connection, lock_timeout_ms=min(source.lock_timeout_ms, LOCK_TIMEOUT_MS))
            fingerprints = _fingerprints(visitor, [row.tenant for row in before])
        tenants = [row.tenant for row in before if row.tenant.schema_name not in visitor.failures]
        drift = find_drift(connection, source, tenants, fingerprints)
        with source.repeatable_read(connection):
            ((exported_id, moment),) = connection.execute("SELECT pg_export_snapshot(), clock_timestamp()")
            rows = list_registry_rows(connection)
            registry = {row.tenant.slug: row for row in before}
            unread = visitor.failures.keys() | drift.failures.keys()
            common = _CommonSnapshot(registry, fingerprints, drift, unread, exported_id, moment)
            rows.sort(key=lambda row: row.tenant.schema_name in unread)
            yield from _back_up_tenants(source, options, common, rows)


def _fingerprints(visitor: Visitor[psycopg.Connection[Any]], tenants: Sequence[Tenant]) -> dict[str, str]:
    """The fingerprints of the schemas that can be read; the others are failures of the visitor."""
    visitor.note_missing(tenants)
    return visitor.visit_all(
        tenants, lambda some: fingerprints_of(visitor.connection, some), at_once=_FINGERPRINTS_PER_QUERY
    )


def _back_up_tenants(
    source: Source, options: BackupOptions, common: _CommonSnapshot, rows: Sequence[RegistryRow]
) -> Iterator[BackupOutcome]:
    threads = ThreadPoolExecutor(options.jobs)
    options = replace(options, jobs=1)  # The connections serve several tenants, not one large tenant.
    with closing(_ConnectionPairs(source, common.exported_id)) as pairs:
        backups = [threads.submit(_back_up_tenant, source, options, common, pairs, row) for row in rows]
        try:
            for backup in as_completed(backups):
                yield backup.result()
        finally:
            _stop(threads, backups, pairs)


def _stop(threads: ThreadPoolExecutor, backups: "Sequence[Future[BackupOutcome]]", pairs: "_ConnectionPairs") -> None:
    """End the run. After an interruption some tenants are still read: cancel what their sessions are doing, again until
    all have ended, because a session may have been between two statements.
    """
    threads.shutdown(wait=False, cancel_futures=True)
    while wait(backups, timeout=0).not_done:
        pairs.cancel()
        wait(backups, timeout=_SECONDS_BETWEEN_CANCELS)


def _back_up_tenant(
    source: Source, options: BackupOptions, common: _CommonSnapshot, pairs: "_ConnectionPairs", row: RegistryRow
) -> BackupOutcome:
    slug = row.tenant.slug
    try:
        with translate_errors(slug), pairs.take() as pair:
            if row.tenant.schema_name in common.unread:
                return BackupOutcome(slug, back_up_in_own_snapshot(pair.live, source, slug, options))
            try:
                return BackupOutcome(slug, _back_up_in_common_snapshot(pair, source, options, common, row))
            except psycopg.errors.LockNotAvailable as error:
                raise locked(pair.live, slug, error) from error
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
        drift = check_drift(tenant, common.drift, with_dump=options.with_dump)
        fingerprint = common.fingerprints.get(tenant.schema_name, "")
        snapshot = TenantSnapshot(
            registry_row=row,
            tables=tables,
            fingerprint=fingerprint,
            exported_id=common.exported_id,
            taken_at=common.taken_at,
            drift=drift,
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

    def cancel(self) -> None:
        """Cancel the current statements, if there are any."""
        for connection in (self.live, self.snapshot):
            with suppress(psycopg.Error):
                connection.cancel_safe(timeout=5)


class _ConnectionPairs:
    """A pool of connection pairs. A pair with a broken connection is not used again."""

    def __init__(self, source: Source, exported_id: str) -> None:
        self._source, self._exported_id = source, exported_id
        self._idle: deque[_ConnectionPair] = deque()
        self._taken: set[_ConnectionPair] = set()

    @contextmanager
    def take(self) -> Iterator[_ConnectionPair]:
        try:
            pair = self._idle.pop()
        except IndexError:
            pair = _ConnectionPair(self._source, self._exported_id)
        self._taken.add(pair)
        try:
            yield pair
        finally:
            self._taken.discard(pair)
            if pair.is_open:
                self._idle.append(pair)
            else:
                pair.close()

    def cancel(self) -> None:
        """Cancel the current statements of the pairs in use."""
        for pair in [*self._taken]:
            pair.cancel()

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
