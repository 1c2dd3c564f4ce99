"""Drops a tenant in one db transaction: its schema, its rows in `shared`, its login role and its retired schemas.

The tenant must be archived, so it serves no requests. Its tables are locked against writes before the backup begins
and until the drop commits, so the backup is complete. Rows of `shared.users` stay.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from psycopg import sql
from sqlalchemy import Connection, Engine

from tenant_schemas.errors import StatusRefused
from tenant_schemas.lifecycle.ddl import drop_role, drop_schema
from tenant_schemas.lifecycle.lock_retry import lock_tables
from tenant_schemas.lifecycle.retired_schemas import drop_retired_schema, list_retired_schemas
from tenant_schemas.migrations.history import set_timeouts
from tenant_schemas.registry import lock_tenant_by_slug
from tenant_schemas.tenant import SHARED_SCHEMA, Tenant, TenantStatus

BackupResult = TypeVar("BackupResult")

# A row of `shared` belongs to a tenant if foreign keys lead from it, in one or several steps, to the tenant's registry
# row. Keys with ON DELETE SET NULL or SET DEFAULT do not count: their rows stay.
_KEYS: Final = """
    SELECT c.relname, p.relname,
        array(SELECT a.attname FROM unnest(k.conkey) WITH ORDINALITY AS n (number, place)
            JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = n.number ORDER BY n.place),
        array(SELECT a.attname FROM unnest(k.confkey) WITH ORDINALITY AS n (number, place)
            JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = n.number ORDER BY n.place)
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class p ON p.oid = k.confrelid
    WHERE k.contype = 'f' AND k.confdeltype NOT IN ('n', 'd') AND k.conparentid = 0
        AND c.relnamespace = to_regnamespace(%(shared)s) AND p.relnamespace = c.relnamespace
    ORDER BY c.relname, k.conname"""


@dataclass(frozen=True, slots=True)
class _Key:
    """A foreign key between two tables of `shared`."""

    table: str
    parent: str
    columns: Sequence[str]
    parent_columns: Sequence[str]


def drop(engine: Engine, slug: str, back_up: Callable[[Tenant], BackupResult]) -> BackupResult:
    """Back up and drop an archived tenant; commits. Returns the result of `back_up`, which must open its own
    connections. `engine` logs in as the migrator.

    The tenant's open sessions keep running without rights. Raises TenantNotFound, StatusRefused, LifecycleError and
    any error of `back_up`; after an error nothing was dropped.
    """
    with engine.begin() as connection:
        set_timeouts(connection)
        tenant = lock_tenant_by_slug(connection, slug)
        if tenant.status is not TenantStatus.ARCHIVED:
            raise StatusRefused(
                f"Tenant {slug!r} is {tenant.status}, and only an archived tenant can be dropped: archive it first."
            )
        lock_tables(connection, tenant.schema_name, "SHARE")
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout TO 0")
        result = back_up(tenant)
        _drop_all(connection, tenant)
    return result


def _drop_all(connection: Connection, tenant: Tenant) -> None:
    """Drop the schemas before the rows of `shared`, which the schemas' tables may reference."""
    for retired in list_retired_schemas(connection):
        if retired.tenant_id == tenant.id:
            drop_retired_schema(connection, retired.schema_name)
    drop_schema(connection, tenant.schema_name)
    keys = [_Key(*row) for row in connection.exec_driver_sql(_KEYS, {"shared": SHARED_SCHEMA})]
    registry_row = sql.SQL("id = {}").format(str(tenant.id))
    for statement in (*_deletions(keys, ("tenants",), registry_row), _deletion("tenants", registry_row)):
        connection.exec_driver_sql(statement.as_string())
    drop_role(connection, tenant.role_name)


def _deletions(keys: Sequence[_Key], path: tuple[str, ...], rows: sql.Composed) -> Iterator[sql.Composed]:
    """The DELETE statements for all rows that reference `rows` of the last table in `path`, referencing rows first."""
    for key in keys:
        if key.parent == path[-1] and key.table not in path:
            referring = sql.SQL("({}) IN (SELECT {} FROM {} WHERE {})").format(
                _names(key.columns), _names(key.parent_columns), sql.Identifier(SHARED_SCHEMA, key.parent), rows
            )
            yield from _deletions(keys, (*path, key.table), referring)
            yield _deletion(key.table, referring)


def _deletion(table: str, rows: sql.Composed) -> sql.Composed:
    return sql.SQL("DELETE FROM {} WHERE {}").format(sql.Identifier(SHARED_SCHEMA, table), rows)


def _names(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))
