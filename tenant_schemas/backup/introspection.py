"""What of a tenant there is to back up, as one statement of a db transaction sees it.

No question here reads the whole catalogue: tables are found by what depends on their schema, for which PostgreSQL has
an index, so that one tenant among thousands costs as much as one alone.
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

# A row's xmin is another whenever it is written, so this notices a migration there and back too.
_ROWS: Final = f"""
    SELECT t.xmin::text, (SELECT version_num FROM {SHARED_SCHEMA}.{VERSION_TABLE}), {COLUMNS}
    FROM {SHARED_SCHEMA}.tenants t"""  # noqa: S608
_TABLES: Final = """
    SELECT c.relname, c.relpages, array_agg(a.attname ORDER BY a.attnum) FILTER (WHERE a.attgenerated = ''),
        array_agg(a.attname ORDER BY a.attnum), array(
            SELECT f.attname FROM pg_constraint k JOIN pg_attribute f ON f.attrelid = c.oid AND f.attnum = k.conkey[1]
            WHERE k.conrelid = c.oid AND k.contype = 'f' AND k.confrelid = to_regclass(%(people)s)
                AND cardinality(k.conkey) = 1
            ORDER BY f.attnum)
    FROM pg_depend d
    JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'r'
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = to_regnamespace(%(schema)s)
        AND d.classid = 'pg_class'::regclass
    GROUP BY c.oid, c.relname, c.relpages ORDER BY c.relname"""
_ID: Final = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
_SHARED_COLUMNS: Final = """
    SELECT array_agg(attname ORDER BY attnum) FROM pg_attribute
    WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"""


@dataclass(frozen=True, slots=True)
class RegistryRow:
    """The tenant's row of the registry in one version, and where `shared` is. Unchanged, nothing was migrated."""

    tenant: Tenant
    row_version: str
    shared_revision: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the tenant: `columns` can be written, `all_columns` include what PostgreSQL generates, `people` name
    a person, by a foreign key or as the application says.
    """

    name: str
    pages: int = field(compare=False)
    columns: tuple[str, ...]
    all_columns: tuple[str, ...]
    people: tuple[str, ...]


def find_registry_row(connection: psycopg.Connection[Any], slug: str) -> RegistryRow:
    """Raises TenantNotFound."""
    row = connection.execute(f"{_ROWS} WHERE t.slug = %s", (slug,)).fetchone()
    if row is None:
        raise TenantNotFound(f"There is no tenant {slug!r}.")
    return _registered(row)


def list_registry_rows(connection: psycopg.Connection[Any]) -> list[RegistryRow]:
    """Every tenant of any status, by slug."""
    return [_registered(row) for row in connection.execute(f"{_ROWS} ORDER BY t.slug")]


def _registered(row: Sequence[Any]) -> RegistryRow:
    row_version, shared_revision, *columns = row
    return RegistryRow(tenant_from_row(columns), row_version, shared_revision)


def tables_of(connection: psycopg.Connection[Any], schema_name: str, backup_policy: BackupPolicy) -> tuple[Table, ...]:
    """The tenant's tables but Alembic's own, whose row is the tenant's revision."""
    names = {"schema": schema_name, "people": f"{SHARED_SCHEMA}.{backup_policy.users}"}
    rows = connection.execute(_TABLES, names)
    return tuple(_table(backup_policy, row) for row in rows if row[0] != VERSION_TABLE)


def _table(backup_policy: BackupPolicy, row: Sequence[Any]) -> Table:
    name, pages, columns, all_columns, referring = row
    people = backup_policy.user_id_columns.get(name, frozenset()).union(referring)
    named = tuple(column for column in all_columns if column in people)
    return Table(name, pages, tuple(columns or ()), tuple(all_columns), named)


def lock_tables(
    connection: psycopg.Connection[Any], schema_name: str, tables: Sequence[Table], backup_policy: BackupPolicy
) -> None:
    """Let nobody change the form of what is read. Readers and writers go on. `release_shared_tables` lets go of the locks in
    `shared` alone: no schema of any tenant can be dropped while somebody holds them.
    """
    _lock(connection, [(schema_name, table.name) for table in tables])
    connection.execute("SAVEPOINT shared")
    _lock(connection, [(SHARED_SCHEMA, backup_policy.members), (SHARED_SCHEMA, backup_policy.users)])


def release_shared_tables(connection: psycopg.Connection[Any]) -> None:
    """End what `lock_tables` began: members and people are read by now."""
    connection.execute("ROLLBACK TO SAVEPOINT shared; RELEASE SAVEPOINT shared")


def _lock(connection: psycopg.Connection[Any], names: Sequence[tuple[str, str]]) -> None:
    if names:
        listed = sql.SQL(", ").join(sql.SQL("ONLY {}").format(sql.Identifier(*name)) for name in names)
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(listed))


def schema_revision(connection: psycopg.Connection[Any], schema_name: str) -> str | None:
    """The revision that the schema itself names."""
    query = sql.SQL("SELECT version_num FROM {}").format(sql.Identifier(schema_name, VERSION_TABLE))
    row = connection.execute(query).fetchone()
    return row and str(row[0])


def shared_columns(connection: psycopg.Connection[Any], table: str) -> tuple[str, ...]:
    ((columns,),) = connection.execute(_SHARED_COLUMNS, (f"{SHARED_SCHEMA}.{table}",))
    return tuple(columns or ())


def select_members(tenant: Tenant, columns: Sequence[str], backup_policy: BackupPolicy) -> sql.Composed:
    return sql.SQL("SELECT {} FROM {} WHERE tenant_id = {}").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.Identifier(SHARED_SCHEMA, backup_policy.members),
        sql.Literal(tenant.id),
    )


def select_users(tenant: Tenant, tables: Sequence[Table], backup_policy: BackupPolicy) -> sql.Composed:
    """Everybody whom the tenant's members or tables name, and nobody else."""
    named = ((table.name, column) for table in tables for column in table.people)
    return sql.SQL("SELECT {} FROM {} WHERE {} IN (SELECT user_id FROM {} WHERE tenant_id = {} UNION {})").format(
        sql.SQL(", ").join(map(sql.Identifier, backup_policy.user_columns)),
        sql.Identifier(SHARED_SCHEMA, backup_policy.users),
        sql.Identifier(backup_policy.user_columns[0]),
        sql.Identifier(SHARED_SCHEMA, backup_policy.members),
        sql.Literal(tenant.id),
        ids_in(tenant.schema_name, named),
    )


def ids_in(schema_name: str, columns: Iterable[tuple[str, str]]) -> sql.Composed:
    """A query for the ids in these columns of these tables, each once. Texts that are none are passed over."""
    found: list[sql.Composable] = [
        sql.SQL("SELECT {}::text AS id FROM {}").format(sql.Identifier(column), sql.Identifier(schema_name, table))
        for table, column in columns
    ]
    # Only CASE promises that what is no id is not cast.
    return sql.SQL("SELECT CASE WHEN id ~ {} THEN id::uuid END FROM ({}) found").format(
        sql.Literal(_ID), sql.SQL(" UNION ").join(found or [sql.SQL("SELECT NULL::text AS id")])
    )
