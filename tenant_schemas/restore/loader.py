"""The rows of a bundle into a fresh schema, and the proof that they are all there and nothing else: each table's count
and hash, what the application proves, and what its audit finds.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import psycopg
from psycopg import sql
from sqlalchemy import Connection

from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.backup.manifest import RowsFile
from tenant_schemas.backup.policy import BackupPolicy
from tenant_schemas.backup.table_io import copy_table, lines_of, tally_of
from tenant_schemas.errors import BundleBroken, RestoreRefused, VerificationFailed
from tenant_schemas.migrations.replay import VERSION_TABLE
from tenant_schemas.restore.table_order import Table, tables_in_order, user_triggers_off
from tenant_schemas.roles import driver_of
from tenant_schemas.search_path import bind_migration

Change = Callable[[bytes], bytes]

_FOUND_AT_MOST: Final = 20
_OF_MEMBERS: Final = frozenset({"tenant_id", "tenant_role", "user_id"})


def load(
    connection: Connection, backup_policy: BackupPolicy, bundle: Bundle, schema_name: str, ids: Mapping[str, str]
) -> int:
    """Fill the fresh schema with the bundle's rows and nothing else, as the owner, in a pinned db transaction, which is
    then bound to it; returns how many. With `ids` to replace, chains are made anew. Raises VerificationFailed,
    RestoreRefused.
    """
    bind_migration(connection, schema_name)
    driver = driver_of(connection)
    tables = tables_in_order(driver, schema_name)
    files = files_of(bundle)
    _refuse_other_shape(tables, files)
    with user_triggers_off(driver, schema_name, tables):
        empty(driver, schema_name, tables)
        for table in tables:
            file = files[table.name]
            lines = changed(bundle.lines(file), _swaps(backup_policy, file, ids))
            copy_in(driver, schema_name, table.name, file.columns, lines)
        back = {new: old for old, new in ids.items()}
        for table in tables:
            file = files[table.name]
            lines = lines_of(driver, copy_table(schema_name, table.name, file.columns))
            check_tally(file, changed(lines, _swaps(backup_policy, file, back)))
        analyze(driver, schema_name, tables)
        check_proof(driver, backup_policy, bundle)
        if ids:
            backup_policy.rechain(driver)
    check_faults(driver, backup_policy, "What was loaded")
    return sum(file.rows for file in files.values())


def files_of(bundle: Bundle) -> dict[str, RowsFile]:
    """Those of the tenant's tables by name. The one of the revision is the migrations' to write."""
    return {file.name: file for file in bundle.manifest.tables if file.name != VERSION_TABLE}


def file_named(files: Iterable[RowsFile], name: str) -> RowsFile:
    for file in files:
        if file.name == name:
            return file
    raise RestoreRefused(f"The bundle has no rows of {name}.")


def _refuse_other_shape(tables: Sequence[Table], files: Mapping[str, RowsFile]) -> None:
    """A tenant that had drifted has tables or columns that its revision does not make."""
    here = {table.name: set(table.columns) for table in tables}
    there = {name: set(file.columns) for name, file in files.items()}
    different = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    if different:
        raise RestoreRefused(f"The bundle has not the tables and columns of its revision: {', '.join(different)}.")


def empty(driver: psycopg.Connection[Any], schema_name: str, tables: Sequence[Table]) -> None:
    """Take away what the migrations have put into a fresh schema."""
    for table in reversed(tables):
        driver.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(schema_name, table.name)))


def copy_in(
    driver: psycopg.Connection[Any], schema_name: str, table: str, columns: Sequence[str], lines: Iterable[bytes]
) -> None:
    """Raises VerificationFailed if PostgreSQL does not take the rows."""
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(schema_name, table), names)
    try:
        with driver.cursor().copy(statement) as copy:
            for line in lines:
                copy.write(line)
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        raise VerificationFailed(f"Table {table} can't be loaded: {error}") from error


def changed(lines: Iterable[bytes], changes: Mapping[int, Change]) -> Iterable[bytes]:
    """COPY's lines with some of their fields changed, by their place."""
    return (_changed(line, changes) for line in lines) if changes else lines


def _changed(line: bytes, changes: Mapping[int, Change]) -> bytes:
    fields = line.removesuffix(b"\n").split(b"\t")
    for place, change in changes.items():
        fields[place] = change(fields[place])
    return b"\t".join(fields) + b"\n"


def _swaps(backup_policy: BackupPolicy, file: RowsFile, ids: Mapping[str, str]) -> dict[int, Change]:
    named = backup_policy.people_named.get(file.name, frozenset())
    return {place: swap_ids(ids) for place, name in enumerate(file.columns) if name in named} if ids else {}


def swap_ids(ids: Mapping[str, str]) -> Change:
    known = {old.encode(): new.encode() for old, new in ids.items()}
    return lambda value: known.get(value, value)


def always(text: str) -> Change:
    return lambda _: text.encode()


def check_tally(file: RowsFile, lines: Iterable[bytes]) -> None:
    """Raises VerificationFailed if these are not as many rows as the manifest says, or others."""
    found = tally_of(lines)
    if found.rows != file.rows:
        raise VerificationFailed(f"Table {file.name} has {found.rows} rows, and the manifest says {file.rows}.")
    if found.hash != file.hash:
        raise VerificationFailed(f"Table {file.name} has other rows than the manifest says: their hash differs.")


def analyze(driver: psycopg.Connection[Any], schema_name: str, tables: Sequence[Table]) -> None:
    """So that nothing is planned as if the tables were empty."""
    names = sql.SQL(", ").join(sql.Identifier(schema_name, table.name) for table in tables)
    driver.execute(sql.SQL("ANALYZE {}").format(names))


def check_proof(driver: psycopg.Connection[Any], backup_policy: BackupPolicy, bundle: Bundle) -> None:
    """What newer code proves in addition, the bundle can't know."""
    proved = backup_policy.prove(driver)
    different = [name for name, value in bundle.manifest.proof.items() if proved.get(name) != value]
    if different:
        raise VerificationFailed(f"The proof differs from the manifest's: {', '.join(different)}.")


def check_faults(driver: psycopg.Connection[Any], backup_policy: BackupPolicy, what: str) -> None:
    faults = backup_policy.find_faults(driver)
    if faults:
        more = f" And {len(faults) - _FOUND_AT_MOST} more." if len(faults) > _FOUND_AT_MOST else ""
        raise VerificationFailed(f"{what} does not hold: " + "; ".join(faults[:_FOUND_AT_MOST]) + "." + more)


def check_shared(backup_policy: BackupPolicy, bundle: Bundle) -> None:
    """Look through the rows of members and people, which are no table's of the tenant. Raises VerificationFailed,
    BundleBroken or RestoreRefused.
    """
    needed = {backup_policy.members: _OF_MEMBERS, backup_policy.people: frozenset(backup_policy.people_columns)}
    for name, columns in needed.items():
        file = file_named(bundle.manifest.shared, name)
        lacking = sorted(columns.difference(file.columns))
        if lacking:
            raise BundleBroken(f"{bundle.folder}: {name} lacks {', '.join(lacking)}.")
        check_tally(file, _whole_rows(bundle, file))


def _whole_rows(bundle: Bundle, file: RowsFile) -> Iterator[bytes]:
    for number, line in enumerate(bundle.lines(file), 1):
        if line.count(b"\t") + 1 != len(file.columns):
            raise BundleBroken(f"{bundle.folder}: row {number} of {file.name} has not its {len(file.columns)} fields.")
        yield line


def shared_lines(bundle: Bundle, file: RowsFile, changes: Mapping[str, Change]) -> Iterable[bytes]:
    """Rows of a table of `shared`, with some columns changed by their name."""
    return changed(bundle.lines(file), {file.columns.index(name): change for name, change in changes.items()})
