"""Reads from the registry and the catalogue what a backup of a tenant consists of: its tables, columns and users.

No query reads the whole catalogue: tables are found through pg_depend, which has an index by schema. So one tenant
among thousands costs as much as one alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from psycopg import sql

from tenant_schemas.backup.policy import BackupPolicy
from tenant_schemas.errors import TenantNotFound
from tenant_schemas.migrations.replay import VERSION_TABLE
from tenant_schemas.registry import COLUMNS, tenant_from_row
from tenant_schemas.tenant import SHARED_SCHEMA, Tenant

# Every update of a row changes its xmin, so a migration up and back down is noticed too.
_ROWS: Final = f"""
    SELECT t.xmin::text, (SELECT version_num FROM {SHARED_SCHEMA}.{VERSION_TABLE}), {COLUMNS}
    FROM {SHARED_SCHEMA}.tenants t"""  # noqa: S608
_TABLES: Final = """
    SELECT c.relname, c.relpages, array_agg(a.attname ORDER BY a.attnum) FILTER (WHERE a.attgenerated = ''),
        array_agg(a.attname ORDER BY a.attnum), array(
            SELECT f.attname FROM pg_constraint k JOIN pg_attribute f ON f.attrelid = c.oid AND f.attnum = k.conkey[1]
            WHERE k.conrelid = c.oid AND k.contype = 'f' AND k.confrelid = to_regclass(%(users)s)
                AND cardinality(k.conkey) = 1
            ORDER BY f.attnum)
    FROM pg_depend d
    JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'r'
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = to_regnamespace(%(schema)s)
        AND d.classid = 'pg_class'::regclass
    GROUP BY c.oid, c.relname, c.relpages ORDER BY c.relname"""
_UUID: Final = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
_SHARED_COLUMNS: Final = """
    SELECT array_agg(attname ORDER BY attnum) FROM pg_attribute
    WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"""


@dataclass(frozen=True, slots=True)
class RegistryRow:
    """The tenant's row of the registry with its version (xmin), and the revision of `shared`. If two reads are equal,
    no migration committed between them.
    """

    tenant: Tenant
    row_version: str
    shared_revision: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the tenant. `columns` can be written, `all_columns` include generated columns, and `user_id_columns`
    hold ids of users, by a foreign key or by the BackupPolicy.
    """

    name: str
    pages: int = field(compare=False)
    columns: tuple[str, ...]
    all_columns: tuple[str, ...]
    user_id_columns: tuple[str, ...]


def find_registry_row(connection: psycopg.Connection[Any], slug: str) -> RegistryRow:
    """The registry row of one tenant. Raises TenantNotFound."""
    row = connection.execute(f"{_ROWS} WHERE t.slug = %s", (slug,)).fetchone()
    if row is None:
        raise TenantNotFound(f"There is no tenant {slug!r}.")
    return _registry_row(row)


def list_registry_rows(connection: psycopg.Connection[Any]) -> list[RegistryRow]:
    """The registry rows of all tenants of any status, by slug."""
    return [_registry_row(row) for row in connection.execute(f"{_ROWS} ORDER BY t.slug")]


def _registry_row(row: Sequence[Any]) -> RegistryRow:
    row_version, shared_revision, *columns = row
    return RegistryRow(tenant_from_row(columns), row_version, shared_revision)


def tables_of(connection: psycopg.Connection[Any], schema_name: str, backup_policy: BackupPolicy) -> tuple[Table, ...]:
    """The tenant's tables, without Alembic's version table: the registry row has the revision."""
    names = {"schema": schema_name, "users": f"{SHARED_SCHEMA}.{backup_policy.users}"}
    rows = connection.execute(_TABLES, names)
    return tuple(_table(backup_policy, row) for row in rows if row[0] != VERSION_TABLE)


def _table(backup_policy: BackupPolicy, row: Sequence[Any]) -> Table:
    name, pages, columns, all_columns, referring = row
    user_ids = backup_policy.user_id_columns.get(name, frozenset()).union(referring)
    in_order = tuple(column for column in all_columns if column in user_ids)
    return Table(name, pages, tuple(columns or ()), tuple(all_columns), in_order)


def lock_tables(
    connection: psycopg.Connection[Any], schema_name: str, tables: Sequence[Table], backup_policy: BackupPolicy
) -> None:
    """Lock the tables ACCESS SHARE, which blocks DDL but no reads and writes. `release_shared_tables` releases the
    locks on tables of `shared` early, because they block the drop of every tenant schema.
    """
    _lock(connection, [(schema_name, table.name) for table in tables])
    connection.execute("SAVEPOINT shared")
    _lock(connection, [(SHARED_SCHEMA, backup_policy.members), (SHARED_SCHEMA, backup_policy.users)])


def release_shared_tables(connection: psycopg.Connection[Any]) -> None:
    """Release the locks of `lock_tables` on tables of `shared`, once members and users are read."""
    connection.execute("ROLLBACK TO SAVEPOINT shared; RELEASE SAVEPOINT shared")


def _lock(connection: psycopg.Connection[Any], names: Sequence[tuple[str, str]]) -> None:
    if names:
        listed = sql.SQL(", ").join(sql.SQL("ONLY {}").format(sql.Identifier(*name)) for name in names)
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(listed))


def schema_revision(connection: psycopg.Connection[Any], schema_name: str) -> str | None:
    """The revision in the schema's own version table."""
    query = sql.SQL("SELECT version_num FROM {}").format(sql.Identifier(schema_name, VERSION_TABLE))
    row = connection.execute(query).fetchone()
    return row and str(row[0])


def shared_columns(connection: psycopg.Connection[Any], table: str) -> tuple[str, ...]:
    ((columns,),) = connection.execute(_SHARED_COLUMNS, (f"{SHARED_SCHEMA}.{table}",))
    return tuple(columns or ())


def member_tables(connection: psycopg.Connection[Any], backup_policy: BackupPolicy) -> dict[str, tuple[str, ...]]:
    """The columns of the tables of members and former members, by table. `shared` may be older than this code, and lack
    the second.
    """
    names = (backup_policy.members, backup_policy.former_members)
    return {name: columns for name in names if name and (columns := shared_columns(connection, name))}


def select_members(tenant: Tenant, table: str, columns: Sequence[str]) -> sql.Composed:
    return sql.SQL("SELECT {} FROM {} WHERE tenant_id = {}").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.Identifier(SHARED_SCHEMA, table),
        sql.Literal(tenant.id),
    )


def select_users(
    tenant: Tenant, tables: Sequence[Table], backup_policy: BackupPolicy, member_tables: Iterable[str]
) -> sql.Composed:
    """A query for all users that the tenant's member tables or own tables reference, and no others."""
    referencing = ((table.name, column) for table in tables for column in table.user_id_columns)
    return sql.SQL("SELECT {} FROM {} WHERE {} IN ({} UNION {})").format(
        sql.SQL(", ").join(map(sql.Identifier, backup_policy.user_columns)),
        sql.Identifier(SHARED_SCHEMA, backup_policy.users),
        sql.Identifier(backup_policy.user_columns[0]),
        sql.SQL(" UNION ").join(select_members(tenant, table, ["user_id"]) for table in member_tables),
        ids_in(tenant.schema_name, referencing),
    )


def ids_in(schema_name: str, columns: Iterable[tuple[str, str]]) -> sql.Composed:
    """A query for the distinct ids in these (table, column) pairs. Texts that are no uuid are ignored."""
    found: list[sql.Composable] = [
        sql.SQL("SELECT {}::text AS id FROM {}").format(sql.Identifier(column), sql.Identifier(schema_name, table))
        for table, column in columns
    ]
    # Only CASE guarantees that a text that is no uuid is never cast.
    return sql.SQL("SELECT CASE WHEN id ~ {} THEN id::uuid END FROM ({}) found").format(
        sql.Literal(_UUID), sql.SQL(" UNION ").join(found or [sql.SQL("SELECT NULL::text AS id")])
    )
