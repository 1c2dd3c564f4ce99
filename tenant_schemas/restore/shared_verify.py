"""Verifies a bundle of the schema shared: loads its rows into tables like those of the installation, with all of their
constraints, in a db transaction that is rolled back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import Final

from psycopg import sql
from sqlalchemy import Connection

from tenant_schemas.backup.shared_bundle import SharedBundle
from tenant_schemas.backup.table_io import pin_session
from tenant_schemas.lifecycle.provision import check_prepared
from tenant_schemas.migrations.history import set_timeouts
from tenant_schemas.restore.restore import Destination
from tenant_schemas.restore.shared_rows import load_shared_rows
from tenant_schemas.restore.table_order import Table, tables_in_order
from tenant_schemas.roles import become_owner, driver_of
from tenant_schemas.search_path import bind_migration
from tenant_schemas.tenant import SHARED_SCHEMA

# While the path has the schema shared alone, the definitions do not name it.
_FOREIGN_KEYS: Final = """
    SELECT c.relname, k.conname, pg_get_constraintdef(k.oid)
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class f ON f.oid = k.confrelid
    WHERE k.contype = 'f' AND c.relnamespace = 'shared'::regnamespace
        AND c.relname = ANY(%(names)s) AND f.relname = ANY(%(names)s) ORDER BY 1, 2"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedVerified:
    """The result: what was loaded, and what a restore leaves out, because the installation does not have it."""

    revision: str
    tenants: int
    tables: int
    rows: int
    left_out: tuple[str, ...]


def verify_shared(destination: Destination, bundle: SharedBundle) -> SharedVerified:
    """Verify the bundle; commits nothing. Locks the tables of the schema shared ACCESS SHARE. Raises VerificationFailed
    or BackupError.
    """
    manifest = bundle.manifest
    with destination.engine.connect() as connection:  # Never committed.
        set_timeouts(connection)
        check_prepared(connection, destination.migrations)
        pin_session(driver_of(connection))
        become_owner(connection, destination.migrations.roles)
        tables = [
            table for table in tables_in_order(driver_of(connection), SHARED_SCHEMA) if bundle.find_file(table.name)
        ]
        schema_name = f"verify_shared_{token_hex(4)}"
        bind_migration(connection, SHARED_SCHEMA)
        keys = _foreign_keys(connection, tables)
        _make_tables(connection, schema_name, tables)
        left_out = load_shared_rows(driver_of(connection), bundle, schema_name, tables)
        bind_migration(connection, schema_name)
        for statement in keys:
            connection.exec_driver_sql(statement)
    return SharedVerified(
        revision=manifest.shared_revision,
        tenants=manifest.tenants,
        tables=len(manifest.tables),
        rows=manifest.rows,
        left_out=left_out,
    )


def _foreign_keys(connection: Connection, tables: Sequence[Table]) -> list[str]:
    """Statements that add the foreign keys among the tables, for a db transaction bound to their copies."""
    found = connection.exec_driver_sql(_FOREIGN_KEYS, {"names": [table.name for table in tables]})
    statement = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}")
    return [
        statement.format(sql.Identifier(table), sql.Identifier(name), sql.SQL(definition)).as_string()
        for table, name, definition in found
    ]


def _make_tables(connection: Connection, schema_name: str, tables: Sequence[Table]) -> None:
    connection.exec_driver_sql(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema_name)).as_string())
    for table in tables:
        names = (sql.Identifier(schema_name, table.name), sql.Identifier(SHARED_SCHEMA, table.name))
        statement = sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL)").format(*names)
        connection.exec_driver_sql(statement.as_string())
