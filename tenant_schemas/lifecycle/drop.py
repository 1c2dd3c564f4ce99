"""Destroys a tenant: its schema, its rows in `shared`, its login and its retired schemas, all or nothing.

The tenant must be archived, so that nobody is served there any more. From before its backup begins until it is gone
nobody can write to its tables, so the backup has all there was. People are not destroyed: `shared` keeps them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from psycopg import sql
from sqlalchemy import Connection, Engine

from tenant_schemas.errors import StatusRefused
from tenant_schemas.lifecycle.ddl import remove_role, remove_schema
from tenant_schemas.lifecycle.lock_retry import lock_tables
from tenant_schemas.lifecycle.retired_schemas import drop_retired_schema, list_retired_schemas
from tenant_schemas.migrations.history import set_timeouts
from tenant_schemas.registry import lock_tenant_by_slug
from tenant_schemas.tenant import SHARED_SCHEMA, Tenant, TenantStatus

BackedUp = TypeVar("BackedUp")

# A tenant's rows are those from which a chain of foreign keys leads to its row of the registry. Where a key says SET
# NULL or SET DEFAULT, a row outlives what it refers to.
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
    """A foreign key within `shared`."""

    table: str
    parent: str
    columns: Sequence[str]
    parent_columns: Sequence[str]


def drop(engine: Engine, slug: str, back_up: Callable[[Tenant], BackedUp]) -> BackedUp:
    """Back an archived tenant up and destroy it, committed; or raise, and all of it is still there. `engine` logs in as
    the migrator; `back_up` reads through connections of its own, and what it returns is returned.

    Sessions open as the tenant's login go on with no rights. Raises TenantNotFound, StatusRefused, LifecycleError, and
    what `back_up` raises.
    """
    with engine.begin() as connection:
        set_timeouts(connection)
        tenant = lock_tenant_by_slug(connection, slug)
        if tenant.status is not TenantStatus.ARCHIVED:
            raise StatusRefused(
                f"Tenant {slug!r} is {tenant.status}: archive it first, so that nobody is served there."
            )
        lock_tables(connection, tenant.schema_name, "SHARE")
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout TO 0")
        backed_up = back_up(tenant)
        _destroy(connection, tenant)
    return backed_up


def _destroy(connection: Connection, tenant: Tenant) -> None:
    """The schemas first: their tables may refer to rows of `shared`."""
    for retired in list_retired_schemas(connection):
        if retired.tenant_id == tenant.id:
            drop_retired_schema(connection, retired.schema_name)
    remove_schema(connection, tenant.schema_name)
    keys = [_Key(*row) for row in connection.exec_driver_sql(_KEYS, {"shared": SHARED_SCHEMA})]
    own_row = sql.SQL("id = {}").format(str(tenant.id))
    for statement in (*_deletions(keys, ("tenants",), own_row), _deletion("tenants", own_row)):
        connection.exec_driver_sql(statement.as_string())
    remove_role(connection, tenant.role_name)


def _deletions(keys: Sequence[_Key], path: tuple[str, ...], rows: sql.Composed) -> Iterator[sql.Composed]:
    """What deletes the rows that refer to `rows` of the last table on the path; those that refer to them before."""
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
