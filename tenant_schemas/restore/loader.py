"""Loads the rows of a bundle into a new schema and proves that they are complete and unchanged: by each table's row
count and hash, the application's proof, and its audit.
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
from tenant_schemas.restore.deferred_indexes import indexes_built_afterwards
from tenant_schemas.restore.table_order import Table, tables_in_order, user_triggers_off
from tenant_schemas.roles import driver_of
from tenant_schemas.search_path import bind_migration

Change = Callable[[bytes], bytes]

_SHOWN_FAULTS: Final = 20
_MEMBER_COLUMNS: Final = frozenset({"tenant_id", "tenant_role", "user_id"})


def load(
    connection: Connection, backup_policy: BackupPolicy, bundle: Bundle, schema_name: str, ids: Mapping[str, str]
) -> int:
    """Load the bundle's rows into a new schema, as the owner, within a db transaction of `begin_load`, which is then
    bound to the schema. Returns the number of rows. `ids` maps user ids to replace; the hash chains are then
    recomputed. Then the policy's `after_load` runs. Raises VerificationFailed, RestoreRefused.
    """
    bind_migration(connection, schema_name)
    driver = driver_of(connection)
    tables = tables_in_order(driver, schema_name)
    files = files_of(bundle)
    _check_columns(tables, files)
    with user_triggers_off(driver, schema_name, tables):
        delete_rows(driver, schema_name, tables)
        with indexes_built_afterwards(driver, schema_name):
            for table in tables:
                file = files[table.name]
                lines = change_fields(bundle.lines(file), _id_changes(backup_policy, file, ids))
                copy_in(driver, schema_name, table.name, file.columns, lines)
        old_ids = {new: old for old, new in ids.items()}
        for table in tables:
            file = files[table.name]
            lines = lines_of(driver, copy_table(schema_name, table.name, file.columns))
            check_tally(file, change_fields(lines, _id_changes(backup_policy, file, old_ids)))
        analyze(driver, schema_name, tables)
        check_proof(driver, backup_policy, bundle)
        if ids:
            backup_policy.rechain(driver)
        if backup_policy.after_load:
            backup_policy.after_load(driver)
    check_faults(driver, backup_policy, "the loaded rows")
    return sum(file.rows for file in files.values())


def files_of(bundle: Bundle) -> dict[str, RowsFile]:
    """The files of the tenant's tables by name, without Alembic's version table, which the migrations write."""
    return {file.name: file for file in bundle.manifest.tables if file.name != VERSION_TABLE}


def find_file(files: Iterable[RowsFile], name: str) -> RowsFile:
    for file in files:
        if file.name == name:
            return file
    raise RestoreRefused(f"The bundle has no file for the table {name}: use another bundle.")


def _check_columns(tables: Sequence[Table], files: Mapping[str, RowsFile]) -> None:
    """Raises RestoreRefused if the bundle's tables and columns are not those of its revision. They differ if the tenant
    had drifted when it was backed up.
    """
    expected = {table.name: set(table.columns) for table in tables}
    found = {name: set(file.columns) for name, file in files.items()}
    different = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if different:
        raise RestoreRefused(
            f"These tables of the bundle differ in their columns from its revision: {', '.join(different)}. "
            "The tenant had drifted when it was backed up: use pg_dump's file in the bundle, or another bundle."
        )


def delete_rows(driver: psycopg.Connection[Any], schema_name: str, tables: Sequence[Table]) -> None:
    """Delete the rows that the migrations inserted into a new schema."""
    for table in reversed(tables):
        driver.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(schema_name, table.name)))


def copy_in(
    driver: psycopg.Connection[Any], schema_name: str, table: str, columns: Sequence[str], lines: Iterable[bytes]
) -> None:
    """Load lines of COPY into a table. Raises VerificationFailed if PostgreSQL refuses the rows."""
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(schema_name, table), names)
    try:
        with driver.cursor().copy(statement) as copy:
            for line in lines:
                copy.write(line)
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        raise VerificationFailed(f"Table {table} can't be loaded: {error}") from error


def change_fields(lines: Iterable[bytes], changes: Mapping[int, Change]) -> Iterable[bytes]:
    """Lines of COPY with some fields changed, by position."""
    return (_change_line(line, changes) for line in lines) if changes else lines


def _change_line(line: bytes, changes: Mapping[int, Change]) -> bytes:
    fields = line.removesuffix(b"\n").split(b"\t")
    for position, change in changes.items():
        fields[position] = change(fields[position])
    return b"\t".join(fields) + b"\n"


def _id_changes(backup_policy: BackupPolicy, file: RowsFile, ids: Mapping[str, str]) -> dict[int, Change]:
    named = backup_policy.user_id_columns.get(file.name, frozenset())
    return {position: replace_ids(ids) for position, name in enumerate(file.columns) if name in named} if ids else {}


def replace_ids(ids: Mapping[str, str]) -> Change:
    known = {old.encode(): new.encode() for old, new in ids.items()}
    return lambda value: known.get(value, value)


def constant(text: str) -> Change:
    return lambda _: text.encode()


def check_tally(file: RowsFile, lines: Iterable[bytes]) -> None:
    """Raises VerificationFailed if the number or the hash of the rows differs from the manifest."""
    found = tally_of(lines)
    if found.rows != file.rows:
        raise VerificationFailed(f"Table {file.name} has {found.rows} rows, but the manifest says {file.rows}.")
    if found.hash != file.hash:
        raise VerificationFailed(f"Table {file.name} has other rows than in the manifest: their hash differs.")


def analyze(driver: psycopg.Connection[Any], schema_name: str, tables: Sequence[Table]) -> None:
    """Analyze the tables, so that no query is planned as if they were empty."""
    names = sql.SQL(", ").join(sql.Identifier(schema_name, table.name) for table in tables)
    driver.execute(sql.SQL("ANALYZE {}").format(names))


def check_proof(driver: psycopg.Connection[Any], backup_policy: BackupPolicy, bundle: Bundle) -> None:
    """Raises VerificationFailed if the proof differs from the manifest's. Entries that only newer code computes are
    ignored.
    """
    proved = backup_policy.prove(driver)
    different = [name for name, value in bundle.manifest.proof.items() if proved.get(name) != value]
    if different:
        raise VerificationFailed(f"The proof differs from the manifest's: {', '.join(different)}.")


def check_faults(driver: psycopg.Connection[Any], backup_policy: BackupPolicy, subject: str) -> None:
    """Raises VerificationFailed, which names `subject`, if the application's audit finds faults in the bound schema."""
    faults = backup_policy.find_faults(driver)
    if faults:
        more = f" And {len(faults) - _SHOWN_FAULTS} more." if len(faults) > _SHOWN_FAULTS else ""
        raise VerificationFailed(f"The audit of {subject} found: " + "; ".join(faults[:_SHOWN_FAULTS]) + "." + more)


def member_tables_in(bundle: Bundle, backup_policy: BackupPolicy) -> list[str]:
    """The tables of members and former members of which the bundle has rows; an older one has none of the second."""
    names = {file.name for file in bundle.manifest.shared}
    former = backup_policy.former_members
    return [backup_policy.members, *((former,) if former and former in names else ())]


def check_shared(backup_policy: BackupPolicy, bundle: Bundle) -> None:
    """Check the bundle's rows of members and users. Raises VerificationFailed, BundleBroken or RestoreRefused."""
    needed = {backup_policy.members: _MEMBER_COLUMNS, backup_policy.users: frozenset(backup_policy.user_columns)}
    needed |= dict.fromkeys(member_tables_in(bundle, backup_policy), _MEMBER_COLUMNS)
    for name, columns in needed.items():
        file = find_file(bundle.manifest.shared, name)
        lacking = sorted(columns.difference(file.columns))
        if lacking:
            raise BundleBroken(f"{bundle.folder}: the rows of {name} lack the columns {', '.join(lacking)}.")
        check_tally(file, _complete_rows(bundle, file))


def _complete_rows(bundle: Bundle, file: RowsFile) -> Iterator[bytes]:
    for number, line in enumerate(bundle.lines(file), 1):
        if line.count(b"\t") + 1 != len(file.columns):
            raise BundleBroken(
                f"{bundle.folder}: row {number} of {file.name} does not have {len(file.columns)} fields."
            )
        yield line


def shared_lines(bundle: Bundle, file: RowsFile, changes: Mapping[str, Change]) -> Iterable[bytes]:
    """Lines of a table of `shared`, with some columns changed, by name."""
    return change_fields(bundle.lines(file), {file.columns.index(name): change for name, change in changes.items()})
