"""The tables of a schema, from the catalogue, in an order in which foreign keys allow to fill them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql

from tenant_schemas.errors import RestoreRefused
from tenant_schemas.migrations.replay import VERSION_TABLE

_TABLES: Final = """
    SELECT c.relname, ARRAY(
        SELECT a.attname::text FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum
    ), ARRAY(
        SELECT DISTINCT f.relname::text FROM pg_constraint k JOIN pg_class f ON f.oid = k.confrelid
        WHERE k.conrelid = c.oid AND k.contype = 'f' AND f.relnamespace = c.relnamespace AND f.oid <> c.oid
    )
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relkind = 'r' AND c.relname <> %s ORDER BY c.relname"""


@dataclass(frozen=True, slots=True)
class Table:
    """A table and its columns, without generated ones."""

    name: str
    columns: tuple[str, ...]


def having_right(
    connection: psycopg.Connection[Any], schema_name: str, tables: Sequence[Table], right: str
) -> list[Table]:
    """Those of the tables on which the current role has this right. It may lack it on tables that were made by hand."""
    names = {sql.Identifier(schema_name, table.name).as_string(): table for table in tables}
    query: LiteralString = "SELECT name FROM unnest(%s::text[]) AS name WHERE has_table_privilege(name, %s)"
    held = {name for (name,) in connection.execute(query, (list(names), right))}
    return [table for name, table in names.items() if name in held]


def tables_in_order(connection: psycopg.Connection[Any], schema_name: str) -> tuple[Table, ...]:
    """All tables except Alembic's version table, each after the tables that its foreign keys reference, and those
    without any last. Raises RestoreRefused if foreign keys form a cycle.

    It is the order in which a posting locks them too: first a wallet, at last what only tells of it, like an audit log.
    So who locks all tables in this order, and a posting, seldom wait for each other.
    """
    rows = connection.execute(_TABLES, (schema_name, VERSION_TABLE)).fetchall()
    tables = {name: Table(name, tuple(columns)) for name, columns, _ in rows}
    linked = {name for own, _, refers_to in rows if refers_to for name in (own, *refers_to)}
    try:
        order = list(TopologicalSorter({name: refers_to for name, _, refers_to in rows}).static_order())
        return tuple(tables[name] for name in sorted(order, key=lambda name: name not in linked))
    except CycleError as error:
        raise RestoreRefused(
            f"The foreign keys of these tables of schema {schema_name} form a cycle: {', '.join(error.args[1])}."
        ) from None


@contextmanager
def user_triggers_off(connection: psycopg.Connection[Any], schema_name: str, tables: Sequence[Table]) -> Iterator[None]:
    """As the owner, disable user triggers while old rows are loaded: they would refuse or change them. Foreign keys are
    still checked. Locks the tables until the db transaction ends.
    """
    _switch(connection, schema_name, tables, "ALTER TABLE {} DISABLE TRIGGER USER")
    yield
    # Not in `finally`: after an error the db transaction can only roll back, which enables the triggers again.
    _switch(connection, schema_name, tables, "ALTER TABLE {} ENABLE TRIGGER USER")


def _switch(
    connection: psycopg.Connection[Any], schema_name: str, tables: Sequence[Table], statement: LiteralString
) -> None:
    for table in tables:
        connection.execute(sql.SQL(statement).format(sql.Identifier(schema_name, table.name)))
