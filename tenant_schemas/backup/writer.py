"""Writes what one snapshot has of a tenant: rows, proof, perhaps pg_dump's file, and last the manifest."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import psycopg
from psycopg import sql

from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.backup.encryption import Recipients, read_recipients
from tenant_schemas.backup.introspection import (
    Registered,
    Table,
    let_go_of_shared,
    select_members,
    select_people,
    shared_columns,
)
from tenant_schemas.backup.manifest import MANIFEST_NAME, BackedUpTenant, DumpFile, Manifest, RowsFile
from tenant_schemas.backup.pg_dump import dump_schema
from tenant_schemas.backup.source import Source
from tenant_schemas.backup.staging import folder_name, staged
from tenant_schemas.backup.table_io import copy_query, copy_table, lines_of, write_file, write_rows
from tenant_schemas.search_path import bind_driver_connection
from tenant_schemas.tenant import Tenant

TABLES, SHARED, DUMP = "tables", "shared", "schema.dump"
# Below this another connection costs more than it saves. PostgreSQL's pages have 8 KiB.
_WORTH_A_CONNECTION_PAGES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How a bundle is to be. `jobs` are connections for one large tenant, or tenants at once where all are taken."""

    folder: Path
    jobs: int = 1
    with_dump: bool = False
    sealed_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """A tenant as one snapshot has it, with all locks of `lock_tables`. `snapshot` is its name, if it has one yet."""

    registered: Registered
    tables: tuple[Table, ...]
    fingerprint: str
    snapshot: str | None
    taken_at: datetime

    @property
    def tenant(self) -> Tenant:
        return self.registered.tenant


def write_bundle(connection: psycopg.Connection[Any], source: Source, frozen: Frozen, shape: Shape) -> Bundle:
    """Write it all, from a connection that is in the snapshot. What fails leaves nothing."""
    recipients = read_recipients(shape.sealed_for)
    target = shape.folder / folder_name(frozen.tenant.slug, frozen.taken_at)
    with staged(target) as partial:
        manifest = _Writing(source, frozen, shape, partial, recipients).write(connection)
        write_file(iter([manifest.to_json().encode()]), partial, MANIFEST_NAME)
    return Bundle(target, manifest)


def server_version(connection: psycopg.Connection[Any]) -> str:
    """Like 18.4."""
    version = connection.info.server_version
    return f"{version // 10_000}.{version % 10_000}"


@dataclass(frozen=True, slots=True)
class _Copy:
    """What of one table is to be written, and where."""

    name: str
    folder: str
    columns: Sequence[str]
    query: sql.Composed


@dataclass(frozen=True, slots=True)
class _Writing:
    """A bundle on its way to disk."""

    source: Source
    frozen: Frozen
    shape: Shape
    partial: Path
    recipients: Recipients

    def write(self, connection: psycopg.Connection[Any]) -> Manifest:
        for folder in (TABLES, SHARED):
            (self.partial / folder).mkdir(mode=0o700)
        shared = tuple(self._write_copy(connection, copy) for copy in self._shared(connection))
        let_go_of_shared(connection)
        snapshot = self.frozen.snapshot or _export_snapshot(connection)
        return Manifest(
            tenant=_row_of(self.frozen.tenant),
            shared_revision=self.frozen.registered.shared_revision,
            fingerprint=self.frozen.fingerprint,
            server_version=server_version(connection),
            taken_at=self.frozen.taken_at,
            snapshot=snapshot,
            tables=self._write_tables(connection, snapshot),
            shared=shared,
            proof=self._prove(connection),
            dump=self._write_dump(snapshot) if self.shape.with_dump else None,
            sealed_for=self.shape.sealed_for,
        )

    def _write_tables(self, connection: psycopg.Connection[Any], snapshot: str) -> tuple[RowsFile, ...]:
        """Over several connections if there are several large tables; the largest first, so that none is left to one
        connection at the end.
        """
        waiting = deque(sorted(self.frozen.tables, key=lambda table: -table.pages))
        large = sum(table.pages >= _WORTH_A_CONNECTION_PAGES for table in waiting)
        others = max(0, min(self.shape.jobs, large) - 1)
        with ThreadPoolExecutor(max(1, others)) as pool:
            beside = [pool.submit(self._write_beside, waiting, snapshot) for _ in range(others)]
            written = self._write_waiting(connection, waiting)
            for other in beside:
                written += other.result()
        return tuple(sorted(written, key=lambda each: each.name))

    def _write_beside(self, waiting: deque[Table], snapshot: str) -> list[RowsFile]:
        with self.source.join(self.frozen.tenant.slug, snapshot) as connection:
            return self._write_waiting(connection, waiting)

    def _write_waiting(self, connection: psycopg.Connection[Any], waiting: deque[Table]) -> list[RowsFile]:
        written = []
        try:
            while (table := _next(waiting)) is not None:
                written.append(self._write_copy(connection, self._copy_of(table)))
        except BaseException:
            waiting.clear()  # The others need not go on.
            raise
        return written

    def _copy_of(self, table: Table) -> _Copy:
        copy = copy_table(self.frozen.tenant.schema_name, table.name, table.columns)
        return _Copy(table.name, TABLES, table.columns, copy)

    def _shared(self, connection: psycopg.Connection[Any]) -> tuple[_Copy, _Copy]:
        tenant, backup_policy = self.frozen.tenant, self.source.backup_policy
        columns = shared_columns(connection, backup_policy.members)
        members = select_members(tenant, columns, backup_policy)
        people = select_people(tenant, self.frozen.tables, backup_policy)
        return (
            _Copy(backup_policy.members, SHARED, columns, copy_query(members)),
            _Copy(backup_policy.people, SHARED, backup_policy.people_columns, copy_query(people)),
        )

    def _write_copy(self, connection: psycopg.Connection[Any], copy: _Copy) -> RowsFile:
        file = f"{copy.folder}/{quote(copy.name, safe='')}.copy.gz"
        with closing(lines_of(connection, copy.query)) as lines:
            return write_rows(
                lines, self.partial, file, name=copy.name, columns=copy.columns, recipients=self.recipients
            )

    def _prove(self, connection: psycopg.Connection[Any]) -> dict[str, Any]:
        bind_driver_connection(connection, self.frozen.tenant.schema_name)
        return self.source.backup_policy.prove(connection)

    def _write_dump(self, snapshot: str) -> DumpFile:
        dump = dump_schema(self.source.conninfo, self.frozen.tenant.schema_name, snapshot)
        with closing(dump) as pieces:
            written = write_file(pieces, self.partial, DUMP, self.recipients)
        return DumpFile(file=written.file, sha256=written.sha256, bytes=written.bytes)


def _export_snapshot(connection: psycopg.Connection[Any]) -> str:
    """Its name, for other connections. PostgreSQL gives none within a savepoint."""
    ((snapshot,),) = connection.execute("SELECT pg_export_snapshot()")
    return str(snapshot)


def _next(waiting: deque[Table]) -> Table | None:
    try:
        return waiting.popleft()
    except IndexError:
        return None


def _row_of(tenant: Tenant) -> BackedUpTenant:
    return BackedUpTenant(
        id=tenant.id,
        slug=tenant.slug,
        schema_name=tenant.schema_name,
        name=tenant.name,
        status=tenant.status,
        settings=tenant.settings,
        revision=tenant.revision,
    )
