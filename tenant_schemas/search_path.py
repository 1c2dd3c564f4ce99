"""The only place where a search_path is set, and where a tenant's role is taken.

Every db transaction begins with one message that says BEGIN, the path and the time-out together, and the role where
tenants share a login, all LOCAL: no extra round trip, and nothing stays on the pooled connection. The ways round that
(AUTOCOMMIT, raw connections, several statements in one, SQLAlchemy's own transaction options, which a BEGIN of ours
would ignore in silence) are refused.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, LiteralString, NoReturn, cast

import psycopg
from psycopg import sql
from psycopg._queries import PostgresQuery
from psycopg.rows import TupleRow
from sqlalchemy import Connection, Engine, Pool, exc
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine.base import OptionEngineMixin
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import PoolProxiedConnection

from tenant_schemas.context import Binding
from tenant_schemas.errors import BindingMismatch, BindingRefused
from tenant_schemas.tenant import Tenant

# pg_temp is searched first unless it is named; named last, no temporary table can stand in for a real one. Shared
# tables are always written `shared.…`, so the shared side needs no path at all, and a missing table fails loudly.
SHARED_PATH = sql.SQL("pg_catalog, pg_temp")
LEAVE_SCHEMA: Final = "SET LOCAL search_path TO pg_catalog, pg_temp"

# What a pooled connection keeps of itself: the BEGIN message of whoever has it now, and whether its session was made
# for one binding, with nobody's server connection in between. Then a statement may go without BEGIN.
BEGIN = "tenant_schemas.begin"
IS_OWN_SESSION = "tenant_schemas.is_own_session"


def path_of(schema_name: str) -> sql.Composed:
    return sql.SQL("{}, pg_temp").format(sql.Identifier(schema_name))


def begin_message(binding: Binding, statement_timeout_ms: int) -> str:
    """One simple query: BEGIN, the search_path and the statement_timeout, LOCAL to that db transaction."""
    return _begin(sql.SQL(""), binding, statement_timeout_ms).as_string()


def full_begin_message(binding: Binding, statement_timeout_ms: int, idle_timeout_ms: int, *, takes_role: bool) -> str:
    """The same for a session that is not the binding's own: it says all that holds, and may take the tenant's role."""
    role: sql.Composable = sql.SQL("")
    if takes_role and isinstance(binding, Tenant):
        role = sql.SQL(" SET LOCAL ROLE {};").format(sql.Identifier(binding.role_name))
    idle = sql.SQL("; SET LOCAL idle_in_transaction_session_timeout TO {}").format(idle_timeout_ms)
    # What somebody set for the session, with a statement of their own, is nobody else's.
    return (sql.SQL("RESET ALL; ") + _begin(role, binding, statement_timeout_ms) + idle).as_string()


def _begin(role: sql.Composable, binding: Binding, statement_timeout_ms: int) -> sql.Composed:
    path = path_of(binding.schema_name) if isinstance(binding, Tenant) else SHARED_PATH
    return sql.SQL("BEGIN;{} SET LOCAL search_path TO {}; SET LOCAL statement_timeout TO {}").format(
        role, path, statement_timeout_ms
    )


def set_role_default(role_name: str, schema_name: str | None) -> str:
    """The path with which a role's connections start; None for a role of the shared side."""
    path = SHARED_PATH if schema_name is None else path_of(schema_name)
    return sql.SQL("ALTER ROLE {} SET search_path TO {}").format(sql.Identifier(role_name), path).as_string()


def pin_functions(connection: Connection, schema_name: str) -> None:
    """Give the functions of a schema that keep a path for good that of this schema. Open sessions compile them anew."""
    pinned = """
        SELECT oid::regprocedure::text FROM pg_catalog.pg_proc WHERE pronamespace = %s::regnamespace
            AND EXISTS (SELECT FROM unnest(proconfig) AS setting WHERE setting ~ '^search_path=')"""
    path = path_of(schema_name).as_string()
    for signature in connection.exec_driver_sql(pinned, (schema_name,)).scalars().all():
        connection.exec_driver_sql(f"ALTER ROUTINE {signature} SET search_path TO {path}")


def bind_migration(connection: Connection, schema_name: str) -> None:
    """Make `schema_name` the only schema of the open db transaction, and prove it. Migrations begin with this."""
    reachable = "SELECT has_schema_privilege(nspname, 'USAGE') FROM pg_catalog.pg_namespace WHERE nspname = %s"
    if schema_name.startswith("pg_") or not connection.exec_driver_sql(reachable, (schema_name,)).scalar():
        raise BindingMismatch(f"Schema {schema_name!r} is missing, or this role may not use it.")
    path = sql.Identifier(schema_name).as_string()
    connection.exec_driver_sql(f"SET LOCAL search_path TO {path}, pg_temp")
    bound = connection.exec_driver_sql("SELECT current_schemas(false)").scalar_one()
    if bound != [schema_name]:
        raise BindingMismatch(f"Migrating {schema_name!r}, but the search_path reaches {bound}.")


def migration_message(schema_name: str) -> str:
    """The same for texts that are sent whole, within a db transaction. What follows must prove where it is."""
    return sql.SQL("SET LOCAL search_path TO {};").format(path_of(schema_name)).as_string()


def bind_driver_connection(connection: psycopg.Connection[Any], schema_name: str) -> None:
    """Make `schema_name` the only schema of a psycopg connection's open db transaction."""
    connection.execute(sql.SQL("SET LOCAL search_path TO {}").format(path_of(schema_name)))


def prove(connection: psycopg.Connection[TupleRow], role_name: str, schema_name: str | None) -> None:
    """Ask a new connection who and where it is, once, before its first use. Closes it and raises if it is elsewhere.

    PgBouncer is noticed too, for it gives its clients numbers of its own. Behind it one session's prepared statements
    would come to another, so none are made.
    """
    expected = (role_name, schema_name or "pg_catalog")
    try:
        query = "SELECT current_user, current_schema(), pg_catalog.pg_backend_pid()"
        *found, pid = connection.execute(query, prepare=False).fetchone() or (None,)
    except psycopg.errors.InsufficientPrivilege:
        found, pid = (
            [],
            None,
        )  # The schema is gone or closed, and PostgreSQL came to pg_temp, where nothing may be made.
    except BaseException:
        connection.close()
        raise
    if tuple(found) != expected:
        connection.close()
        raise BindingMismatch(
            f"A new connection is (user, schema) {found}, not {expected}. Was the schema dropped or the role altered?"
        )
    if pid != connection.info.backend_pid:
        connection.prepare_threshold = None


def is_direct(connection: psycopg.Connection[TupleRow]) -> bool:
    """Whether a proved connection has a server process of its own."""
    return connection.prepare_threshold is not None


class OneStatementCursor(psycopg.Cursor[TupleRow]):
    """A cursor that lets no second statement through. Without parameters psycopg would send the text as a simple query,
    and PostgreSQL takes several of those at once; by the extended protocol it takes one, in as many round trips.
    """

    def _execute_send(self, query: PostgresQuery, *, force_extended: bool = True, binary: bool | None = None) -> None:
        super()._execute_send(query, force_extended=True, binary=binary)


class BindingDialect(PGDialect_psycopg):
    """psycopg with our BEGIN. It stands in the dialect, not in an event, so that SQLAlchemy treats its failures as
    its own and discards a dead connection. The connections are in autocommit: psycopg adds no BEGIN of its own.
    """

    supports_statement_cache = True

    def do_begin(self, dbapi_connection: PoolProxiedConnection) -> None:
        _say_begin(dbapi_connection)

    def set_isolation_level(self, dbapi_connection: DBAPIConnection, level: str) -> NoReturn:
        raise BindingRefused(f"isolation_level={level!r} would leave the tenant's search_path out of BEGIN.")

    def set_readonly(self, connection: DBAPIConnection, value: bool) -> NoReturn:
        raise BindingRefused("postgresql_readonly is ignored by our BEGIN; write SET TRANSACTION READ ONLY instead.")

    def set_deferrable(self, connection: DBAPIConnection, value: bool) -> NoReturn:
        raise BindingRefused("postgresql_deferrable is ignored by our BEGIN; write SET TRANSACTION instead.")


def _say_begin(dbapi_connection: PoolProxiedConnection) -> None:
    """The only message of several statements that is ever sent, by psycopg's own cursor. Raises BindingMismatch if the
    tenant's role is missing, or is not the pool's to take.
    """
    connection = cast("psycopg.Connection[TupleRow]", dbapi_connection.driver_connection)
    try:
        psycopg.Cursor(connection).execute(cast(LiteralString, dbapi_connection.info[BEGIN]), prepare=False)
    except (psycopg.errors.InvalidParameterValue, psycopg.errors.InsufficientPrivilege) as error:
        raise BindingMismatch(f"{error} Was the role dropped, or `python -m scripts.create_roles` not run?") from error


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
        """Run one statement as a db transaction of its own: committed when it returns. Raises psycopg's errors as they
        are, and then nothing was done.

        On a session of the tenant's own it goes with no BEGIN and COMMIT round it, in one round trip, for that starts
        in the right schema; on any other between a BEGIN that binds it and a COMMIT. If the connection breaks on the
        way, also during COMMIT, nobody knows; with `retry` all is then sent once more, so ask for that only where
        twice is as good as once.
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
            is_own = proxied.info[IS_OWN_SESSION]
            if not is_own:
                _say_begin(proxied)
            cursor = connection.execute(query, params)
            rows = cursor.fetchall() if cursor.description else []
            if not is_own:
                connection.commit()
        except psycopg.Error as error:
            if connection.closed:
                proxied.invalidate(error)
            raise
        else:
            return rows
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
