"""Loads the rows of a bundle of the schema shared into tables of a schema, and proves by their numbers and hashes that
they are complete and unchanged.

A table or a column that was added by hand is not in the schema that the history makes. Its rows are left out, and
named.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import psycopg

from tenant_schemas.backup.manifest import RowsFile
from tenant_schemas.backup.shared_bundle import SharedBundle
from tenant_schemas.backup.table_io import Tally, copy_table, lines_of, tally_of
from tenant_schemas.errors import VerificationFailed
from tenant_schemas.restore.loader import copy_in
from tenant_schemas.restore.table_order import Table


def load_shared_rows(
    connection: psycopg.Connection[Any], bundle: SharedBundle, schema_name: str, tables: Sequence[Table]
) -> tuple[str, ...]:
    """Load the bundle into these tables of a schema, which are empty, in the open db transaction. Returns what was left
    out. Raises VerificationFailed or BundleError.
    """
    left_out: list[str] = []
    files = {file.name: file for file in bundle.manifest.tables}
    for table in tables:
        file = files.pop(table.name, None)
        if file is not None:
            left_out += _load_table(connection, bundle, file, schema_name, table)
    left_out += [f"table {file.name} with {file.rows} rows" for file in files.values()]
    return tuple(left_out)


def _load_table(
    connection: psycopg.Connection[Any], bundle: SharedBundle, file: RowsFile, schema_name: str, table: Table
) -> list[str]:
    """Returns the columns that were left out."""
    positions = [place for place, name in enumerate(file.columns) if name in table.columns]
    columns = [file.columns[place] for place in positions]
    all_columns, kept = Tally(), Tally()
    lines = _kept_fields(
        bundle.lines(file), None if len(columns) == len(file.columns) else positions, all_columns, kept
    )
    copy_in(connection, schema_name, table.name, columns, lines)
    if (all_columns.rows, all_columns.hash) != (file.rows, file.hash):
        raise VerificationFailed(f"The file of shared.{file.name} has other rows than its manifest says.")
    found = tally_of(lines_of(connection, copy_table(schema_name, table.name, columns)))
    if (found.rows, found.hash) != (kept.rows, kept.hash):
        raise VerificationFailed(f"The rows of shared.{file.name} changed while they were loaded.")
    return [f"column {file.name}.{name}" for name in file.columns if name not in table.columns]


def _kept_fields(
    lines: Iterable[bytes], positions: Sequence[int] | None, all_columns: Tally, kept: Tally
) -> Iterator[bytes]:
    """The lines with the fields at these positions, counted before and after."""
    for line in lines:
        all_columns.add(line)
        if positions is not None:
            fields = line.removesuffix(b"\n").split(b"\t")
            line = b"\t".join(fields[place] for place in positions) + b"\n"  # noqa: PLW2901
        kept.add(line)
        yield line
