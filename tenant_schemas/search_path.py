"""The only place where a search_path is set.

Every db transaction begins with one message that says BEGIN, the path and the time-out together, all LOCAL: no extra
round trip, and nothing stays on the pooled connection. The ways round that (AUTOCOMMIT, raw connections, SQLAlchemy's
own transaction options, which a BEGIN of ours would ignore in silence) are refused.
"""

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString, NoReturn, cast

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow
from sqlalchemy import Connection, Engine, Pool, exc
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine.base import OptionEngineMixin
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import PoolProxiedConnection

from tenant_schemas.context import Binding
from tenant_schemas.errors import BindingRefused, BindingUnproven
from tenant_schemas.tenant import Tenant

# pg_temp is searched first unless it is named; named last, no temporary table can stand in for a real one. Shared
# tables are always written `shared.…`, so the shared side needs no path at all, and a missing table fails loudly.
SHARED_PATH = sql.SQL("pg_catalog, pg_temp")

BEGIN = "tenant_schemas.begin"  # where a pooled connection keeps its BEGIN message


def path_of(schema_name: str) -> sql.Composed:
    return sql.SQL("{}, pg_temp").format(sql.Identifier(schema_name))


def begin_message(binding: Binding, statement_timeout_ms: int) -> str:
    """One simple query: BEGIN, the search_path and the statement_timeout, LOCAL to that db transaction."""
    path = path_of(binding.schema_name) if isinstance(binding, Tenant) else SHARED_PATH
    return (
        sql.SQL("BEGIN; SET LOCAL search_path TO {}; SET LOCAL statement_timeout TO {}")
        .format(path, statement_timeout_ms)
        .as_string()
    )


def set_role_default(role_name: str, schema_name: str | None) -> str:
    """The path with which a role's connections start; None for a role of the shared side."""
    path = SHARED_PATH if schema_name is None else path_of(schema_name)
    return sql.SQL("ALTER ROLE {} SET search_path TO {}").format(sql.Identifier(role_name), path).as_string()


def bind_migration(connection: Connection, schema_name: str) -> None:
    """Make `schema_name` the only schema of the open db transaction, and prove it. Migrations begin with this."""
    reachable = "SELECT has_schema_privilege(nspname, 'USAGE') FROM pg_catalog.pg_namespace WHERE nspname = %s"
    if schema_name.startswith("pg_") or not connection.exec_driver_sql(reachable, (schema_name,)).scalar():
        raise BindingUnproven(f"Schema {schema_name!r} is missing, or this role may not use it.")
    path = sql.Identifier(schema_name).as_string()
    connection.exec_driver_sql(f"SET LOCAL search_path TO {path}, pg_temp")
    bound = connection.exec_driver_sql("SELECT current_schemas(false)").scalar_one()
    if bound != [schema_name]:
        raise BindingUnproven(f"Migrating {schema_name!r}, but the search_path reaches {bound}.")


def prove(connection: psycopg.Connection[TupleRow], role_name: str, schema_name: str | None) -> None:
    """Ask a new connection who and where it is, once, before its first use. Closes it and raises if it is elsewhere."""
    expected = (role_name, schema_name or "pg_catalog")
    try:
        found = connection.execute("SELECT current_user, current_schema()").fetchone()
    except psycopg.errors.InsufficientPrivilege:
        found = None  # The schema is gone or closed, and PostgreSQL came to pg_temp, where nothing may be made.
    except BaseException:
        connection.close()
        raise
    if found != expected:
        connection.close()
        raise BindingUnproven(
            f"A new connection is (user, schema) {found}, not {expected}. Was the schema dropped or the role altered?"
        )


class BindingDialect(PGDialect_psycopg):
    """psycopg with our BEGIN. It stands in the dialect, not in an event, so that SQLAlchemy treats its failures as
    its own and discards a dead connection. The connections are in autocommit: psycopg adds no BEGIN of its own.
    """

    supports_statement_cache = True

    def do_begin(self, dbapi_connection: PoolProxiedConnection) -> None:
        cast(psycopg.Connection, dbapi_connection.driver_connection).execute(
            cast(LiteralString, dbapi_connection.info[BEGIN]), prepare=False
        )

    def set_isolation_level(self, dbapi_connection: DBAPIConnection, level: str) -> NoReturn:
        raise BindingRefused(f"isolation_level={level!r} would leave the tenant's search_path out of BEGIN.")

    def set_readonly(self, connection: DBAPIConnection, value: bool) -> NoReturn:
        raise BindingRefused("postgresql_readonly is ignored by our BEGIN; write SET TRANSACTION READ ONLY instead.")

    def set_deferrable(self, connection: DBAPIConnection, value: bool) -> NoReturn:
        raise BindingRefused("postgresql_deferrable is ignored by our BEGIN; write SET TRANSACTION instead.")


registry.register("postgresql.tenant_schemas", __name__, BindingDialect.__name__)


class BindingEngine(Engine):
    """An engine for one tenant or for the shared side. Its connections begin bound; it hands out no others."""

    def connect(self) -> Connection:
        return Connection(self, connection=self._checkout())

    def raw_connection(self) -> NoReturn:
        raise BindingRefused("raw_connection() has no tenant bound; use connect(), begin() or one_statement().")

    def one_statement(
        self, query: LiteralString, params: Sequence[Any] | Mapping[str, Any], *, retry: bool = False
    ) -> list[TupleRow]:
        """Run one statement as a db transaction of its own, with no BEGIN and COMMIT round it: one round trip.

        Safe because the connection's role starts in the right schema. Committed when it returns; raises psycopg's
        errors as they are, and then nothing was done. If the connection breaks on the way nobody knows; with
        `retry` the statement is then sent once more, so ask for that only where twice is as good as once.
        """
        try:
            return self._one_statement(query, params)
        except psycopg.OperationalError as error:
            if not retry or error.sqlstate not in DISCONNECTED:
                raise
            return self._one_statement(query, params)

    def _one_statement(self, query: LiteralString, params: Sequence[Any] | Mapping[str, Any]) -> list[TupleRow]:
        proxied = self.pool.connect()
        connection = cast("psycopg.Connection[TupleRow]", proxied.driver_connection)
        try:
            cursor = connection.execute(query, params)
            return cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            if connection.closed:
                proxied.invalidate(error)
            raise
        finally:
            proxied.close()

    def _checkout(self) -> PoolProxiedConnection:
        try:
            return self.pool.connect()
        except psycopg.Error as error:
            raise exc.DBAPIError.instance(None, None, error, psycopg.Error, dialect=self.dialect) from error


class _BindingEngineWithOptions(OptionEngineMixin, BindingEngine):
    """What `execution_options` returns: it refuses and begins like the engine it came from."""

    def update_execution_options(self, **options: Any) -> None:
        Engine.update_execution_options(self, **options)


BindingEngine._option_cls = _BindingEngineWithOptions  # type: ignore[assignment]


# No SQLSTATE (the socket broke), connection_failure, admin_shutdown, crash_shutdown, cannot_connect_now.
DISCONNECTED = frozenset({None, "08006", "57P01", "57P02", "57P03"})


def make_engine(pool: Pool, like: Engine) -> BindingEngine:
    """An engine over `pool` with the dialect and the cache of compiled statements of `like`.

    Tenants differ in their search_path only, so a statement compiled for one is right for all; a thousand tenants do
    not compile it a thousand times.
    """
    engine = BindingEngine(pool, like.dialect, like.url, hide_parameters=True)
    engine._compiled_cache = like._compiled_cache
    return engine
