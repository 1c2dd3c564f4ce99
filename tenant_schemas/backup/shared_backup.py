"""Backs up the schema shared in one snapshot, while the service goes on.

Its tables are locked against DDL until the end, so a drop of a tenant or of a retired schema waits. A backup of all
tenants takes this one last: users are never deleted, so all users that the tenants' rows name are in it.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, LiteralString
from urllib.parse import quote

import psycopg
from psycopg import sql

from tenant_schemas.backup.data_time import DataTime, read_data_time
from tenant_schemas.backup.encryption import Recipients, read_recipients
from tenant_schemas.backup.manifest import MANIFEST_NAME, RowsFile
from tenant_schemas.backup.own_identity import own_recipient
from tenant_schemas.backup.shared_bundle import SHARED_BUNDLE, SharedBundle, SharedManifest
from tenant_schemas.backup.shared_policy import SharedPolicy
from tenant_schemas.backup.signature import SIGNATURE_NAME, Origin
from tenant_schemas.backup.source import Source, translate_errors
from tenant_schemas.backup.staging import folder_name, remove_abandoned_folders, staged
from tenant_schemas.backup.table_io import copy_query, lines_of, write_file, write_rows
from tenant_schemas.backup.writer import BackupOptions, server_version
from tenant_schemas.errors import BackupError
from tenant_schemas.migrations.replay import VERSION_TABLE
from tenant_schemas.restore.table_order import Table, tables_in_order
from tenant_schemas.tenant import SHARED_SCHEMA

_ATTEMPTS: Final = 5
_FOLDER: Final = "tables"
_FACTS: Final = f"SELECT (SELECT version_num FROM shared.{VERSION_TABLE}), (SELECT count(*) FROM shared.tenants)"  # noqa: S608


def back_up_shared(source: Source, policy: SharedPolicy, options: BackupOptions) -> SharedBundle:
    """Write a bundle of the schema shared, encrypted for the recipients of the options or, without any, for the
    installation's own identity. Locks the tables ACCESS SHARE. Raises BackupError, and then leaves no bundle.
    """
    with translate_errors(f"Schema {SHARED_SCHEMA}"), source.connect(SHARED_BUNDLE) as connection:
        remove_abandoned_folders(options.folder, SHARED_BUNDLE)
        for _ in range(_ATTEMPTS):
            with source.read_committed(connection):
                tables = _tables(connection, policy)
            with source.repeatable_read(connection):
                moment = _lock_and_take_snapshot(connection, policy, tables)
                if moment is not None:
                    return _Writer(connection, source, policy, options).write(tables, moment)
    raise BackupError(f"Schema {SHARED_SCHEMA} was migrated during each of {_ATTEMPTS} attempts: run it again later.")


def _tables(connection: psycopg.Connection[Any], policy: SharedPolicy) -> list[Table]:
    return [table for table in tables_in_order(connection, SHARED_SCHEMA) if table.name not in policy.left_out]


def _lock_and_take_snapshot(
    connection: psycopg.Connection[Any], policy: SharedPolicy, tables: Sequence[Table]
) -> datetime | None:
    """Lock the tables; the first statement after that takes the snapshot. None if they have changed meanwhile."""
    try:
        _lock(connection, tables)
    except psycopg.errors.UndefinedTable:
        return None
    moment: datetime
    ((moment,),) = connection.execute("SELECT clock_timestamp()")
    return moment if _tables(connection, policy) == tables else None


def _lock(connection: psycopg.Connection[Any], tables: Sequence[Table]) -> None:
    names = sql.SQL(", ").join(sql.Identifier(SHARED_SCHEMA, table.name) for table in tables)
    connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(names))


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes the bundle, on a connection that is in the snapshot."""

    connection: psycopg.Connection[Any]
    source: Source
    policy: SharedPolicy
    options: BackupOptions

    def write(self, tables: Sequence[Table], taken_at: datetime) -> SharedBundle:
        data = read_data_time(self.connection, replace(self.source.backup_policy, last_change=None), taken_at)
        past = data.as_of if data.is_past else None
        target = self.options.folder / folder_name(SHARED_BUNDLE, taken_at, past)
        with staged(target) as partial:
            manifest = self._write_tables(partial, tables, taken_at, data)
            content = manifest.to_json().encode()
            write_file(iter([content]), partial, MANIFEST_NAME)
            write_file(iter([self.source.keys.sign(content)]), partial, SIGNATURE_NAME)
        return SharedBundle(target, manifest, Origin.OWN)

    def _write_tables(
        self, partial: Path, tables: Sequence[Table], taken_at: datetime, data: DataTime
    ) -> SharedManifest:
        sealed_for = self.options.sealed_for or (own_recipient(self.source.keys),)
        recipients = read_recipients(sealed_for)
        (partial / _FOLDER).mkdir(mode=0o700)
        ((revision, tenants),) = self.connection.execute(_FACTS)
        return SharedManifest(
            shared_revision=revision,
            server_version=server_version(self.connection),
            taken_at=taken_at,
            data=data,
            tenants=tenants,
            tables=tuple(self._write_table(partial, table, recipients) for table in tables),
            sealed_for=sealed_for,
        )

    def _write_table(self, partial: Path, table: Table, recipients: Recipients) -> RowsFile:
        file = f"{_FOLDER}/{quote(table.name, safe='')}.copy.gz"
        query = select_rows(table.name, table.columns, self.policy.conditions.get(table.name))
        with closing(lines_of(self.connection, copy_query(query))) as lines:
            return write_rows(lines, partial, file, name=table.name, columns=table.columns, recipients=recipients)


def select_rows(table: str, columns: Sequence[str], condition: LiteralString | None = None) -> sql.Composed:
    """A query for these columns of a table of the schema shared."""
    where = sql.SQL(" WHERE " + condition) if condition else sql.SQL("")
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    return sql.SQL("SELECT {} FROM {}{}").format(names, sql.Identifier(SHARED_SCHEMA, table), where)
