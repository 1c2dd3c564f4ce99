"""One tenant's data for it to take away: plain CSV with headers, and a manifest. Of `shared` it has the tenant's
members and the people it refers to, with what a bundle keeps of them; nothing of its login or of other tenants.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import psycopg
from psycopg import sql

from tenant_schemas.backup.backup import stable_snapshot
from tenant_schemas.backup.introspection import release_shared_tables, select_members, select_users, shared_columns
from tenant_schemas.backup.manifest import MANIFEST_NAME
from tenant_schemas.backup.source import Source, translate_errors
from tenant_schemas.backup.staging import folder_name, remove_abandoned_folders, staged
from tenant_schemas.backup.table_io import lines_of, write_file
from tenant_schemas.backup.writer import TenantSnapshot

_SUFFIX: Final = "-export"
# What the engine itself keeps of a member, and the tenant need not know: its own id again, and its login.
_ENGINES_OWN: Final = frozenset({"tenant_id", "tenant_role"})


@dataclass(frozen=True, slots=True)
class ExportedTable:
    """One file of CSV, the first row being the columns' names."""

    name: str
    file: str
    columns: tuple[str, ...]
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Export:
    """What was written, and where."""

    folder: Path
    tables: tuple[ExportedTable, ...]


def export_tenant(source: Source, slug: str, folder: Path) -> Export:
    """Write the tenant, of whatever status, to a folder of its own in `folder`. Raises BackupError or TenantNotFound,
    and then leaves nothing.
    """
    with (
        translate_errors(slug),
        source.connect(slug) as connection,
        stable_snapshot(connection, source, slug, lambda *_: None) as frozen,
    ):
        remove_abandoned_folders(folder, slug)
        target = folder / (folder_name(slug, frozen.taken_at) + _SUFFIX)
        with staged(target) as partial:
            tables = tuple(
                _write(connection, partial, name, columns, query)
                for name, columns, query in _parts(connection, source, frozen)
            )
            write_file(iter([_manifest(frozen, tables)]), partial, MANIFEST_NAME)
    return Export(target, tables)


_Part = tuple[str, Sequence[str], sql.Composed]


def _parts(connection: psycopg.Connection[Any], source: Source, frozen: TenantSnapshot) -> Iterator[_Part]:
    tenant, backup_policy = frozen.tenant, source.backup_policy
    shown = [name for name in shared_columns(connection, backup_policy.members) if name not in _ENGINES_OWN]
    yield backup_policy.members, shown, select_members(tenant, shown, backup_policy)
    yield backup_policy.users, backup_policy.user_columns, select_users(tenant, frozen.tables, backup_policy)
    release_shared_tables(connection)
    for table in frozen.tables:
        columns = sql.SQL(", ").join(map(sql.Identifier, table.all_columns))
        place = sql.Identifier(tenant.schema_name, table.name)
        yield table.name, table.all_columns, sql.SQL("SELECT {} FROM {}").format(columns, place)


def _write(
    connection: psycopg.Connection[Any], partial: Path, name: str, columns: Sequence[str], query: sql.Composed
) -> ExportedTable:
    copy = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv, HEADER)").format(query)
    counted = _Counted()
    with closing(lines_of(connection, copy)) as lines:
        written = write_file(counted.of(lines), partial, f"{quote(name, safe='')}.csv")
    return ExportedTable(name, written.file, tuple(columns), counted.lines - 1, written.sha256)


class _Counted:
    """Counts what passes: PostgreSQL sends each row, and the header, in one piece."""

    def __init__(self) -> None:
        self.lines = 0

    def of(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        for line in lines:
            self.lines += 1
            yield line


def _manifest(frozen: TenantSnapshot, tables: Sequence[ExportedTable]) -> bytes:
    tenant = frozen.tenant
    told = {
        "tenant": {"id": tenant.id, "slug": tenant.slug, "name": tenant.name, "settings": dict(tenant.settings)},
        "revision": tenant.revision,
        "taken_at": frozen.taken_at,
        "encoding": "UTF-8",
        "tables": [asdict(table) for table in tables],
    }
    return (json.dumps(told, indent=1, default=str, ensure_ascii=False) + "\n").encode()
