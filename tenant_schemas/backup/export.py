"""Exports one tenant's data for the tenant itself: CSV files with headers, and a manifest. From `shared` it includes
the tenant's members and the users that its tables reference, with the same columns as a bundle; no data of its login
role or of other tenants.

Spreadsheets open these files, so text that they would run as a formula is defused. A raw export has every text
unchanged, in PostgreSQL's own CSV, for COPY … FROM.
"""

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import psycopg
from psycopg import sql

from tenant_schemas.backup.backup import stable_snapshot
from tenant_schemas.backup.introspection import member_tables, release_shared_tables, select_members, select_users
from tenant_schemas.backup.manifest import MANIFEST_NAME
from tenant_schemas.backup.source import Source, translate_errors
from tenant_schemas.backup.staging import folder_name, remove_abandoned_folders, staged
from tenant_schemas.backup.table_io import copy_query, lines_of, write_file
from tenant_schemas.backup.writer import TenantSnapshot
from tenant_schemas.csv_writer import CsvWriter

_SUFFIX: Final = "-export"
# Columns of a member that only the engine needs.
_ENGINE_COLUMNS: Final = frozenset({"tenant_id", "tenant_role"})


@dataclass(frozen=True, slots=True)
class ExportedTable:
    """One CSV file; its first row has the column names."""

    name: str
    file: str
    columns: tuple[str, ...]
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Export:
    """The folder of an export and its tables."""

    folder: Path
    tables: tuple[ExportedTable, ...]


def export_tenant(source: Source, slug: str, folder: Path, *, is_raw: bool = False) -> Export:
    """Export the tenant, of any status, into a new folder in `folder`, from one snapshot. Raises BackupError or
    TenantNotFound, and then leaves nothing.
    """
    write = _write_raw if is_raw else _write_defused
    with (
        translate_errors(slug),
        source.connect(slug) as connection,
        stable_snapshot(connection, source, slug, lambda *_: None) as snapshot,
    ):
        remove_abandoned_folders(folder, slug)
        target = folder / (folder_name(slug, snapshot.taken_at) + _SUFFIX)
        with staged(target) as partial:
            tables = tuple(
                write(connection, partial, name, columns, query)
                for name, columns, query in _parts(connection, source, snapshot)
            )
            write_file(iter([_manifest(snapshot, tables, is_raw=is_raw)]), partial, MANIFEST_NAME)
    return Export(target, tables)


_Part = tuple[str, Sequence[str], sql.Composed]


def _parts(connection: psycopg.Connection[Any], source: Source, snapshot: TenantSnapshot) -> Iterator[_Part]:
    tenant, backup_policy = snapshot.tenant, source.backup_policy
    members = member_tables(connection, backup_policy)
    for name, member_columns in members.items():
        shown = [column for column in member_columns if column not in _ENGINE_COLUMNS]
        yield name, shown, select_members(tenant, name, shown)
    users = select_users(tenant, snapshot.tables, backup_policy, members)
    yield backup_policy.users, backup_policy.user_columns, users
    release_shared_tables(connection)
    for table in snapshot.tables:
        columns = sql.SQL(", ").join(map(sql.Identifier, table.all_columns))
        source_table = sql.Identifier(tenant.schema_name, table.name)
        yield table.name, table.all_columns, sql.SQL("SELECT {} FROM {}").format(columns, source_table)


def _write_raw(
    connection: psycopg.Connection[Any], partial: Path, name: str, columns: Sequence[str], query: sql.Composed
) -> ExportedTable:
    copy = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv, HEADER)").format(query)
    counter = _LineCounter()
    with closing(lines_of(connection, copy)) as lines:
        written = write_file(counter.count(lines), partial, _file_name(name))
    return ExportedTable(name, written.file, tuple(columns), counter.lines - 1, written.sha256)


def _write_defused(
    connection: psycopg.Connection[Any], partial: Path, name: str, columns: Sequence[str], query: sql.Composed
) -> ExportedTable:
    counter = _LineCounter()
    with closing(_defused_lines(connection, columns, query)) as lines:
        written = write_file(counter.count(lines), partial, _file_name(name))
    return ExportedTable(name, written.file, tuple(columns), counter.lines - 1, written.sha256)


def _defused_lines(
    connection: psycopg.Connection[Any], columns: Sequence[str], query: sql.Composed
) -> Generator[bytes, None, None]:
    """The header and each row, one at a time."""
    line = StringIO(newline="")
    writer = CsvWriter(line)
    with connection.cursor().copy(copy_query(query)) as output:
        for cells in chain([columns], output.rows()):
            writer.write(cells)
            yield line.getvalue().encode()
            line.seek(0)
            line.truncate()


def _file_name(name: str) -> str:
    return f"{quote(name, safe='')}.csv"


class _LineCounter:
    """Counts the lines that it passes on. PostgreSQL sends each row, and the header, as one piece."""

    def __init__(self) -> None:
        self.lines = 0

    def count(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        for line in lines:
            self.lines += 1
            yield line


def _manifest(snapshot: TenantSnapshot, tables: Sequence[ExportedTable], *, is_raw: bool) -> bytes:
    tenant = snapshot.tenant
    document = {
        "tenant": {"id": tenant.id, "slug": tenant.slug, "name": tenant.name, "settings": dict(tenant.settings)},
        "revision": tenant.revision,
        "taken_at": snapshot.taken_at,
        "encoding": "UTF-8",
        "formulas": "raw" if is_raw else "defused",
        "tables": [asdict(table) for table in tables],
    }
    return (json.dumps(document, indent=1, default=str, ensure_ascii=False) + "\n").encode()
