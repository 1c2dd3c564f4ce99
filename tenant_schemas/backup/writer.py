"""Writes the bundle of one tenant's snapshot: rows, proof, optionally pg_dump's file, and last the signed
manifest.
"""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import psycopg
from psycopg import sql

from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.backup.data_time import read_data_time
from tenant_schemas.backup.encryption import Recipients, read_recipients
from tenant_schemas.backup.introspection import (
    RegistryRow,
    Table,
    member_tables,
    release_shared_tables,
    select_members,
    select_users,
)
from tenant_schemas.backup.manifest import MANIFEST_NAME, BackedUpTenant, DisplayName, DumpFile, Manifest, RowsFile
from tenant_schemas.backup.pg_dump import dump_schema
from tenant_schemas.backup.signature import SIGNATURE_NAME, Origin
from tenant_schemas.backup.source import Source
from tenant_schemas.backup.staging import folder_name, staged
from tenant_schemas.backup.table_io import copy_query, copy_table, lines_of, write_file, write_rows
from tenant_schemas.printable import printable
from tenant_schemas.schema_diff.effects import DriftedObject
from tenant_schemas.search_path import bind_driver_connection
from tenant_schemas.tenant import Tenant

TABLES, SHARED, DUMP = "tables", "shared", "schema.dump"
# A smaller table is not worth a connection of its own. PostgreSQL's pages have 8 KiB.
_LARGE_TABLE_PAGES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupOptions:
    """Options of a backup. `jobs` is the number of connections for one tenant, or of tenants at once in a backup of
    all. `sealed_for` are the recipients (public keys) of the encrypted files; none for plain files.
    """

    folder: Path
    jobs: int = 1
    with_dump: bool = False
    sealed_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSnapshot:
    """A tenant in one snapshot, with all locks of `lock_tables`. `exported_id` names the snapshot once it is
    exported. `retired_at` is the moment at which a restore replaced the schema, if it is a retired one. `drift` has the
    objects in which the schema differs from its revision; None if nobody looked.
    """

    registry_row: RegistryRow
    tables: tuple[Table, ...]
    fingerprint: str
    exported_id: str | None
    taken_at: datetime
    retired_at: datetime | None = None
    drift: tuple[DriftedObject, ...] | None = None

    @property
    def tenant(self) -> Tenant:
        return self.registry_row.tenant


def write_bundle(
    connection: psycopg.Connection[Any], source: Source, snapshot: TenantSnapshot, options: BackupOptions
) -> Bundle:
    """Write the bundle, on a connection that is in the snapshot. After an error no bundle is left."""
    recipients = read_recipients(options.sealed_for)
    bind_driver_connection(connection, snapshot.tenant.schema_name)
    data = read_data_time(connection, source.backup_policy, snapshot.taken_at, snapshot.retired_at)
    past = data.as_of if data.is_past else None
    target = options.folder / folder_name(snapshot.tenant.slug, snapshot.taken_at, past)
    with staged(target) as partial:
        manifest = _BundleWriter(source, snapshot, options, partial, recipients).write(connection)
        manifest = replace(manifest, data=data)
        content = manifest.to_json().encode()
        write_file(iter([content]), partial, MANIFEST_NAME)
        write_file(iter([source.keys.sign(content)]), partial, SIGNATURE_NAME)
    return Bundle(target, manifest, Origin.OWN)


def server_version(connection: psycopg.Connection[Any]) -> str:
    """The server's version, such as 18.4."""
    version = connection.info.server_version
    return f"{version // 10_000}.{version % 10_000}"


@dataclass(frozen=True, slots=True)
class _TableCopy:
    """One table to write: its folder in the bundle, columns and COPY statement."""

    name: str
    folder: str
    columns: Sequence[str]
    query: sql.Composed


@dataclass(frozen=True, slots=True)
class _BundleWriter:
    """Writes one bundle into its partial folder."""

    source: Source
    snapshot: TenantSnapshot
    options: BackupOptions
    partial: Path
    recipients: Recipients

    def write(self, connection: psycopg.Connection[Any]) -> Manifest:
        for folder in (TABLES, SHARED):
            (self.partial / folder).mkdir(mode=0o700)
        shared = tuple(self._write_copy(connection, copy) for copy in self._shared(connection))
        release_shared_tables(connection)
        exported_id = self.snapshot.exported_id or _export_snapshot(connection)
        return Manifest(
            tenant=_manifest_row(self.snapshot.tenant),
            shared_revision=self.snapshot.registry_row.shared_revision,
            fingerprint=self.snapshot.fingerprint,
            server_version=server_version(connection),
            taken_at=self.snapshot.taken_at,
            snapshot=exported_id,
            tables=self._write_tables(connection, exported_id),
            shared=shared,
            proof=self._prove(connection),
            dump=self._write_dump(exported_id) if self.options.with_dump else None,
            sealed_for=self.options.sealed_for,
            drift=_printable(self.snapshot.drift),
        )

    def _write_tables(self, connection: psycopg.Connection[Any], exported_id: str) -> tuple[RowsFile, ...]:
        """Several large tables are written over several connections, the largest table first, so that no connection is
        left alone with a large one at the end.
        """
        pending = deque(sorted(self.snapshot.tables, key=lambda table: -table.pages))
        large = sum(table.pages >= _LARGE_TABLE_PAGES for table in pending)
        extra = max(0, min(self.options.jobs, large) - 1)
        with ThreadPoolExecutor(max(1, extra)) as pool:
            futures = [pool.submit(self._write_on_own_connection, pending, exported_id) for _ in range(extra)]
            written = self._write_pending(connection, pending)
            for future in futures:
                written += future.result()
        return tuple(sorted(written, key=lambda each: each.name))

    def _write_on_own_connection(self, pending: deque[Table], exported_id: str) -> list[RowsFile]:
        with self.source.join(self.snapshot.tenant.slug, exported_id) as connection:
            return self._write_pending(connection, pending)

    def _write_pending(self, connection: psycopg.Connection[Any], pending: deque[Table]) -> list[RowsFile]:
        written = []
        try:
            while (table := _next(pending)) is not None:
                written.append(self._write_copy(connection, self._copy_of(table)))
        except BaseException:
            pending.clear()  # The other connections stop after their current table.
            raise
        return written

    def _copy_of(self, table: Table) -> _TableCopy:
        copy = copy_table(self.snapshot.tenant.schema_name, table.name, table.columns)
        return _TableCopy(table.name, TABLES, table.columns, copy)

    def _shared(self, connection: psycopg.Connection[Any]) -> tuple[_TableCopy, ...]:
        tenant, backup_policy = self.snapshot.tenant, self.source.backup_policy
        tables = member_tables(connection, backup_policy)
        users = select_users(tenant, self.snapshot.tables, backup_policy, tables)
        return (
            *(
                _TableCopy(name, SHARED, columns, copy_query(select_members(tenant, name, columns)))
                for name, columns in tables.items()
            ),
            _TableCopy(backup_policy.users, SHARED, backup_policy.user_columns, copy_query(users)),
        )

    def _write_copy(self, connection: psycopg.Connection[Any], copy: _TableCopy) -> RowsFile:
        file = f"{copy.folder}/{quote(copy.name, safe='')}.copy.gz"
        with closing(lines_of(connection, copy.query)) as lines:
            return write_rows(
                lines, self.partial, file, name=copy.name, columns=copy.columns, recipients=self.recipients
            )

    def _prove(self, connection: psycopg.Connection[Any]) -> dict[str, Any]:
        bind_driver_connection(connection, self.snapshot.tenant.schema_name)
        return self.source.backup_policy.prove(connection)

    def _write_dump(self, exported_id: str) -> DumpFile:
        schema_name = self.snapshot.tenant.schema_name
        dump = dump_schema(self.source.conninfo, schema_name, exported_id, self.source.lock_timeout_ms)
        with closing(dump) as pieces:
            written = write_file(pieces, self.partial, DUMP, self.recipients)
        return DumpFile(file=written.file, sha256=written.sha256, bytes=written.bytes)


def _export_snapshot(connection: psycopg.Connection[Any]) -> str:
    """The identifier with which other connections join the snapshot. PostgreSQL exports none within a savepoint."""
    ((exported_id,),) = connection.execute("SELECT pg_export_snapshot()")
    return str(exported_id)


def _printable(drift: tuple[DriftedObject, ...] | None) -> tuple[DriftedObject, ...] | None:
    """A manifest has only printable names."""
    return drift and tuple(replace(each, name=printable(each.name)) for each in drift)


def _next(pending: deque[Table]) -> Table | None:
    try:
        return pending.popleft()
    except IndexError:
        return None


def _manifest_row(tenant: Tenant) -> BackedUpTenant:
    return BackedUpTenant(
        id=tenant.id,
        slug=tenant.slug,
        schema_name=tenant.schema_name,
        name=DisplayName(tenant.name),
        status=tenant.status,
        settings=tenant.settings,
        revision=tenant.revision,
    )
