"""Sets the search_path and a tenant's role. No other module does.

Each db transaction begins with one message: BEGIN, search_path, statement_timeout and, if tenants share a login, the
tenant's role, all LOCAL. It costs no extra round trip and leaves nothing on the pooled connection. Ways round it are
refused: AUTOCOMMIT, raw connections, several statements in one string, and SQLAlchemy's transaction options, which this
BEGIN would ignore without an error.

A session of a tenant's own login starts in its schema and under its time-out. There `one_statement` needs no BEGIN, and
an engine's `reading` form sends it when a statement needs it: plain reads go without.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, LiteralString, NoReturn, cast

import psycopg
from psycopg import pq, sql
from psycopg.rows import TupleRow
from sqlalchemy import Connection, Engine, exc
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine.base import OptionEngineMixin
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor, ExecutionContext
from sqlalchemy.pool import PoolProxiedConnection

from tenant_schemas.context import Binding
from tenant_schemas.driver import DriverConnection, OneStatementCursor
from tenant_schemas.errors import BindingMismatch, BindingRefused, SchemaMissing
from tenant_schemas.plain_reads import ReadCompiler
from tenant_schemas.pool import CappedPool
from tenant_schemas.tenant import Tenant
from tenant_schemas.tracing import TRACING

# PostgreSQL searches pg_temp first unless it is named; named last, no temporary table can hide a real one. Shared
# tables are always written `shared.…`, so the shared side needs no schema in its path, and a missing table is an error.
SHARED_PATH = sql.SQL("pg_catalog, pg_temp")
LEAVE_SCHEMA: Final = "SET LOCAL search_path TO pg_catalog, pg_temp"

# Keys in a pooled connection's info: the BEGIN message of its current binding, and whether its session belongs to one
# binding only and has a server process of its own (no PgBouncer). In such a session a statement may go without BEGIN.
BEGIN = "tenant_schemas.begin"
IS_OWN_SESSION = "tenant_schemas.is_own_session"
# An engine's execution option, and the same in the info of a connection that it has checked out.
DEFERS_BEGIN = "tenant_schemas.defers_begin"


def path_of(schema_name: str) -> sql.Composed:
    return sql.SQL("{}, pg_temp").format(sql.Identifier(schema_name))


def begin_message(binding: Binding, statement_timeout_ms: int) -> str:
    """One simple query: BEGIN, the search_path and the statement_timeout, LOCAL to that db transaction."""
    return _begin(sql.SQL(""), binding, statement_timeout_ms).as_string()


def full_begin_message(binding: Binding, statement_timeout_ms: int, idle_timeout_ms: int, *, takes_role: bool) -> str:
    """`begin_message` for a session that is not the binding's own: it also resets all settings and may set the role."""
    role: sql.Composable = sql.SQL("")
    if takes_role and isinstance(binding, Tenant):
        role = sql.SQL(" SET LOCAL ROLE {};").format(sql.Identifier(binding.role_name))
    idle = sql.SQL("; SET LOCAL idle_in_transaction_session_timeout TO {}").format(idle_timeout_ms)
    # Settings of the session's previous user must not apply to the next.
    return (sql.SQL("RESET ALL; ") + _begin(role, binding, statement_timeout_ms) + idle).as_string()


def _begin(role: sql.Composable, binding: Binding, statement_timeout_ms: int) -> sql.Composed:
    path = path_of(binding.schema_name) if isinstance(binding, Tenant) else SHARED_PATH
    return sql.SQL("BEGIN;{} SET LOCAL search_path TO {}; SET LOCAL statement_timeout TO {}").format(
        role, path, statement_timeout_ms
    )


def set_role_default(role_name: str, schema_name: str | None) -> str:
    """The statement that sets a role's default search_path; `schema_name` is None for a role of the shared side."""
    path = SHARED_PATH if schema_name is None else path_of(schema_name)
    return sql.SQL("ALTER ROLE {} SET search_path TO {}").format(sql.Identifier(role_name), path).as_string()


def pin_functions(connection: Connection, schema_name: str) -> None:
    """Set the search_path of the schema's pinned functions to this schema. Open sessions recompile them."""
    pinned = """
        SELECT oid::regprocedure::text FROM pg_catalog.pg_proc WHERE pronamespace = %s::regnamespace
            AND EXISTS (SELECT FROM unnest(proconfig) AS setting WHERE setting ~ '^search_path=')"""
    path = path_of(schema_name).as_string()
    for signature in connection.exec_driver_sql(pinned, (schema_name,)).scalars().all():
        connection.exec_driver_sql(f"ALTER ROUTINE {signature} SET search_path TO {path}")


def bind_migration(connection: Connection, schema_name: str) -> None:
    """Make `schema_name` the only schema of the open db transaction, and verify it. Migrations begin with this. Raises
    BindingMismatch.
    """
    reachable = "SELECT has_schema_privilege(nspname, 'USAGE') FROM pg_catalog.pg_namespace WHERE nspname = %s"
    if schema_name.startswith("pg_") or not connection.exec_driver_sql(reachable, (schema_name,)).scalar():
        raise BindingMismatch(f"Schema {schema_name!r} does not exist, or this role has no USAGE on it.")
    path = sql.Identifier(schema_name).as_string()
    connection.exec_driver_sql(f"SET LOCAL search_path TO {path}, pg_temp")
    bound = connection.exec_driver_sql("SELECT current_schemas(false)").scalar_one()
    if bound != [schema_name]:
        raise BindingMismatch(f"The search_path must reach only schema {schema_name!r}, but it reaches {bound}.")


def migration_message(schema_name: str) -> str:
    """The statement of `bind_migration`, for SQL that is sent as one message. The caller must verify the schema."""
    return sql.SQL("SET LOCAL search_path TO {};").format(path_of(schema_name)).as_string()


def bind_driver_connection(connection: psycopg.Connection[Any], schema_name: str) -> None:
    """Make `schema_name` the only schema of a psycopg connection's open db transaction."""
    connection.execute(sql.SQL("SET LOCAL search_path TO {}").format(path_of(schema_name)))


def bind_session(connection: psycopg.Connection[Any], schema_name: str) -> None:
    """Make `schema_name` the only schema of a session in autocommit, for a statement that no db transaction may
    contain. End it with `unbind_session`. Raises BindingMismatch.
    """
    connection.execute(sql.SQL("SET search_path TO {}").format(path_of(schema_name)))
    ((bound,),) = connection.execute("SELECT current_schemas(false)::text[]").fetchall()
    if bound != [schema_name]:
        raise BindingMismatch(f"The search_path must reach only schema {schema_name!r}, but it reaches {bound}.")


def unbind_session(connection: psycopg.Connection[Any]) -> None:
    connection.execute("RESET search_path")


def verify_session(connection: psycopg.Connection[TupleRow], role_name: str, schema_name: str | None) -> None:
    """Check the role and schema of a new connection, before its first use. Closes it and raises SchemaMissing if the
    schema does not exist, BindingMismatch if role or schema are others.

    A backend number that differs from the client's shows PgBouncer. Behind it a session may get another's prepared
    statements, so they are switched off.
    """
    expected = (role_name, schema_name or "pg_catalog")
    try:
        query = "SELECT current_user, current_schema(), pg_catalog.pg_backend_pid()"
        *found, pid = connection.execute(query, prepare=False).fetchone() or (None,)
    except psycopg.errors.InsufficientPrivilege:
        # The schema is gone or revoked, so PostgreSQL tried pg_temp, which this role may not create.
        found, pid = [], None
    except BaseException:
        connection.close()
        raise
    if tuple(found) != expected:
        is_gone = schema_name is not None and _is_gone(connection, schema_name)
        connection.close()
        if is_gone:
            raise SchemaMissing(f"Schema {schema_name} of the login {role_name} is gone: it does not exist.")
        raise BindingMismatch(
            f"A new connection has (user, schema) {found}, not {expected}. Was the schema dropped or the role altered?"
        )
    if pid != connection.info.backend_pid:
        connection.prepare_threshold = None


def _is_gone(connection: psycopg.Connection[TupleRow], schema_name: str) -> bool:
    query, name = "SELECT pg_catalog.to_regnamespace(%s) IS NULL", sql.Identifier(schema_name).as_string()
    try:
        return connection.execute(query, (name,), prepare=False).fetchone() == (True,)
    except psycopg.Error:
        return False


def is_direct(connection: psycopg.Connection[TupleRow]) -> bool:
    """Whether a verified connection has a server process of its own, without PgBouncer in between."""
    return connection.prepare_threshold is not None


class BindingDialect(PGDialect_psycopg):
    """psycopg's dialect with this module's BEGIN. It is in the dialect, not in an event, so that SQLAlchemy handles its
    errors and discards a dead connection. The connections are in autocommit mode, so psycopg adds no BEGIN.
    """

    supports_statement_cache = True
    statement_compiler = ReadCompiler

    def connect(self, *arguments: Any, **named: Any) -> DBAPIConnection:
        return cast(DBAPIConnection, DriverConnection.connect(*arguments, **named))

    def do_begin(self, dbapi_connection: PoolProxiedConnection) -> None:
        connection, info = _driver(dbapi_connection), dbapi_connection.info
        if info[DEFERS_BEGIN]:
            connection.deferred_begin = info[BEGIN]
        else:
            _send_begin(connection, info[BEGIN])

    def do_commit(self, dbapi_connection: PoolProxiedConnection) -> None:
        if not _ends_idle(dbapi_connection):
            super().do_commit(dbapi_connection)  # type: ignore[no-untyped-call]

    def do_rollback(self, dbapi_connection: PoolProxiedConnection) -> None:
        if not _ends_idle(dbapi_connection):
            super().do_rollback(dbapi_connection)  # type: ignore[no-untyped-call]

    def do_execute(
        self, cursor: DBAPICursor, statement: LiteralString, parameters: Any, context: ExecutionContext | None = None
    ) -> None:
        compiled = context.compiled if context else None
        if TRACING.tracer is None:
            _execute(cursor, statement, parameters, compiled)
        else:
            with TRACING.tracer.statement(statement):
                _execute(cursor, statement, parameters, compiled)

    def set_isolation_level(self, dbapi_connection: DBAPIConnection, level: str) -> NoReturn:
        raise BindingRefused(f"isolation_level={level!r} is not allowed: the tenant's search_path is set in BEGIN.")

    def set_readonly(self, connection: DBAPIConnection, value: bool) -> NoReturn:
        raise BindingRefused("postgresql_readonly is not supported: execute SET TRANSACTION READ ONLY instead.")

    def set_deferrable(self, connection: DBAPIConnection, value: bool) -> NoReturn:
        raise BindingRefused("postgresql_deferrable is not supported: execute SET TRANSACTION DEFERRABLE instead.")


def _execute(cursor: Any, statement: LiteralString, parameters: Any, compiled: Any) -> None:
    connection: DriverConnection = cursor.connection
    # A cursor of the server, for a streamed result, lives in a db transaction.
    is_deferred = connection.deferred_begin is not None and isinstance(cursor, OneStatementCursor)
    if is_deferred and isinstance(compiled, ReadCompiler) and compiled.is_plain_read:
        connection.execute_plain_read(cursor, statement, parameters)
    else:
        cursor.execute(statement, parameters)


def _driver(dbapi_connection: PoolProxiedConnection) -> DriverConnection:
    # Not `driver_connection`, which asks the dialect: for psycopg the two are the same object.
    return cast(DriverConnection, dbapi_connection.dbapi_connection)


def _ends_idle(dbapi_connection: PoolProxiedConnection) -> bool:
    """Drop a BEGIN that is still deferred. True if no db transaction is open, so that there is nothing to send."""
    connection = _driver(dbapi_connection)
    connection.deferred_begin = None
    return connection.pgconn.transaction_status == pq.TransactionStatus.IDLE


def _send_begin(connection: DriverConnection, message: bytes) -> None:
    """Raises BindingMismatch if the tenant's role is missing or the pool role is not a member of it."""
    try:
        connection.begin(message)
    except (psycopg.errors.InvalidParameterValue, psycopg.errors.InsufficientPrivilege) as error:
        raise BindingMismatch(f"{error} Was the role dropped, or `python -m scripts.create_roles` not run?") from error


registry.register("postgresql.tenant_schemas", __name__, BindingDialect.__name__)


class BindingEngine(Engine):
    """An engine for one tenant or for the shared side. All its db transactions begin bound."""

    reading: "BindingEngine"
    """The same engine for a unit of work that reads. On a session of the tenant's own, it sends BEGIN before the first
    statement that is no plain read (`tenant_schemas/plain_reads.py`). Each read before that is its own db transaction.
    """

    def connect(self) -> Connection:
        proxied = self._checkout()
        # Behind PgBouncer and on a session that tenants share, only BEGIN says which tenant's schema is meant.
        proxied.info[DEFERS_BEGIN] = proxied.info[IS_OWN_SESSION] and DEFERS_BEGIN in self.get_execution_options()
        return Connection(self, connection=proxied)

    def raw_connection(self) -> NoReturn:
        raise BindingRefused("raw_connection() would bypass the binding: use connect(), begin() or one_statement().")

    def one_statement(
        self, query: LiteralString, params: Sequence[Any] | Mapping[str, Any], *, retry: bool = False
    ) -> list[TupleRow]:
        """Run one statement in its own db transaction, which is committed when this returns. Raises psycopg's errors;
        the statement then had no effect.

        A session that belongs to the tenant starts in the right schema and needs one round trip, without BEGIN and
        COMMIT. Other sessions send a binding BEGIN and a COMMIT. If the connection breaks, also during COMMIT, the
        outcome is unknown. `retry` then runs the statement once more: use it only if running twice does no harm.
        """
        if TRACING.tracer is not None:
            with TRACING.tracer.statement(query):
                return self._one_statement_or_two(query, params, retry=retry)
        return self._one_statement_or_two(query, params, retry=retry)

    def _one_statement_or_two(
        self, query: LiteralString, params: Sequence[Any] | Mapping[str, Any], *, retry: bool
    ) -> list[TupleRow]:
        try:
            return self._one_statement(query, params)
        except psycopg.OperationalError as error:
            if not retry or error.sqlstate not in DISCONNECTED:
                raise
            cast(CappedPool, self.pool).note_retry()
            return self._one_statement(query, params)

    def _one_statement(self, query: LiteralString, params: Sequence[Any] | Mapping[str, Any]) -> list[TupleRow]:
        pool = cast(CappedPool, self.pool)
        record = pool.borrow()
        try:
            connection = cast(DriverConnection, record.dbapi_connection)
            if record.info[IS_OWN_SESSION]:
                return connection.run(query, params)
            _send_begin(connection, record.info[BEGIN])
            rows = connection.run(query, params)
            connection.commit()
            return rows
        finally:
            pool.give_back(record)

    def _checkout(self) -> PoolProxiedConnection:
        try:
            return self.pool.connect()
        except psycopg.Error as error:
            raise exc.DBAPIError.instance(None, None, error, psycopg.Error, dialect=self.dialect) from error


class _BindingEngineWithOptions(OptionEngineMixin, BindingEngine):
    """The result of `execution_options`: it binds and refuses like the original engine."""

    def update_execution_options(self, **options: Any) -> None:
        Engine.update_execution_options(self, **options)


BindingEngine._option_cls = _BindingEngineWithOptions  # type: ignore[assignment]


# No SQLSTATE (the socket broke), connection_failure, admin_shutdown, crash_shutdown, cannot_connect_now.
DISCONNECTED = frozenset({None, "08006", "57P01", "57P02", "57P03"})


def make_engine(pool: CappedPool, template: Engine) -> BindingEngine:
    """An engine over `pool` with the dialect and the cache of compiled statements of `template`.

    Tenants differ only in their search_path, so all of them share compiled statements.
    """
    engine = BindingEngine(pool, template.dialect, template.url, hide_parameters=True)
    engine._compiled_cache = template._compiled_cache
    engine.reading = cast(BindingEngine, engine.execution_options(**{DEFERS_BEGIN: True}))
    return engine
