"""A small pool of connections for the shared side and for each tenant, all under one cap for the process.

Each tenant logs in as its own role, so PostgreSQL itself keeps its connections inside its schema. When the cap is
reached, the connection that has been idle longest is closed to make room, whosever it is.
"""

import select
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition
from time import monotonic
from typing import Any, cast
from uuid import UUID

import psycopg
from psycopg.rows import TupleRow
from sqlalchemy import Engine, Pool, create_engine, event, exc, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, PoolProxiedConnection

from tenant_schemas.context import SHARED, Binding
from tenant_schemas.errors import ConnectionsExhausted
from tenant_schemas.roles import tenant_password
from tenant_schemas.search_path import BEGIN, BindingDialect, BindingEngine, begin_message, make_engine, prove
from tenant_schemas.tenant import Tenant


@dataclass(frozen=True, slots=True)
class Limits:
    """Per process. A tenant may lower its statement time-out with the setting `statement_timeout_ms`."""

    max_connections: int = 20
    wait_seconds: float = 5.0
    connect_timeout_seconds: int = 5
    statement_timeout_ms: int = 10_000


class Connections:
    """The engines of the process: `shared` for the shared side, `engine(tenant)` for a tenant. Opens nothing until
    asked; safe to share between threads; to be made after a fork, not before.
    """

    def __init__(self, url: str, tenant_secret: str, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._tenant_secret = tenant_secret
        self._store = _Store(self._limits.max_connections, self._limits.wait_seconds)
        # Made for its dialect, its parsed URL and its cache; its pool is never used but for the dialect's first look.
        bound_url = make_url(url).set(drivername="postgresql+tenant_schemas")
        self._template = create_engine(bound_url, poolclass=NullPool, use_native_hstore=False)
        self._tenants: dict[UUID, tuple[Tenant, BindingEngine]] = {}
        self.shared = self._open(SHARED, user=bound_url.username or "", password=bound_url.password or "", schema=None)

    def for_binding(self, binding: Binding) -> BindingEngine:
        return self.engine(binding) if isinstance(binding, Tenant) else self.shared

    def engine(self, tenant: Tenant) -> BindingEngine:
        """The tenant's engine. A tenant whose registry row has changed gets a new one, and the old one is retired."""
        known = self._tenants.get(tenant.id)
        if known and known[0] == tenant:
            return known[1]
        self.retire(tenant.id)
        engine = self._open(
            tenant,
            user=tenant.role_name,
            password=tenant_password(self._tenant_secret, tenant.id, tenant.login_epoch),
            schema=tenant.schema_name,
        )
        return self._tenants.setdefault(tenant.id, (tenant, engine))[1]

    def retire(self, tenant_id: UUID) -> None:
        """Close the tenant's idle connections now, and those in use as they come back."""
        known = self._tenants.pop(tenant_id, None)
        if known:
            cast(_CappedPool, known[1].pool).retire()

    def close(self) -> None:
        """Close everything. For the end of the process, and for tests."""
        for tenant_id in list(self._tenants):
            self.retire(tenant_id)
        cast(_CappedPool, self.shared.pool).retire()

    def tenants_at_hand(self) -> list[Tenant]:
        """The tenants that have an idle connection at this moment: a look at them opens none, and closes nobody's."""
        return [tenant for tenant, engine in list(self._tenants.values()) if self._store.has_idle(engine.pool)]

    @property
    def open_count(self) -> int:
        return self._store.open_count

    def _open(self, binding: Binding, *, user: str, password: str, schema: str | None) -> BindingEngine:
        dialect = cast(BindingDialect, self._template.dialect)
        _, arguments = dialect.create_connect_args(self._template.url)  # type: ignore[no-untyped-call]
        timeout_ms = _statement_timeout_ms(binding, self._limits.statement_timeout_ms)
        arguments |= {"user": user, "password": password, "autocommit": True}
        # What goes without a BEGIN is bounded too. In a zone east of UTC psycopg can't read the end of the year 9999.
        arguments["options"] = f"-c statement_timeout={timeout_ms} -c TimeZone=UTC"
        arguments.setdefault("connect_timeout", self._limits.connect_timeout_seconds)

        def connect() -> DBAPIConnection:
            connection: psycopg.Connection[TupleRow] = psycopg.connect(**cast(dict[str, Any], arguments))
            prove(connection, user, schema)
            return cast(DBAPIConnection, connection)

        begin = begin_message(binding, timeout_ms)

        def on_connect(_: DBAPIConnection, record: ConnectionPoolEntry) -> None:
            record.info[BEGIN] = begin

        pool = _CappedPool(self._store, connect, dialect)
        event.listen(pool, "connect", on_connect)
        event.listen(pool, "connect", self._learn_the_server)
        event.listen(pool, "checkout", _refuse_dead)
        return make_engine(pool, self._template)

    def _learn_the_server(self, _: DBAPIConnection, __: ConnectionPoolEntry) -> None:
        """SQLAlchemy's dialect asks a server for its version and settings once; all engines here share the answer."""
        _initialize_once(self._template)


def _initialize_once(template: Engine) -> None:
    if not getattr(template.dialect, "server_version_info", None):
        with template.connect():
            pass


def _statement_timeout_ms(binding: Binding, ceiling_ms: int) -> int:
    if not isinstance(binding, Tenant):
        return ceiling_ms
    wished_ms = int(binding.settings.get("statement_timeout_ms", ceiling_ms))
    return min(wished_ms, ceiling_ms) if wished_ms > 0 else ceiling_ms  # To PostgreSQL 0 would mean none at all.


def _refuse_dead(connection: DBAPIConnection, _: ConnectionPoolEntry, __: PoolProxiedConnection) -> None:
    """A server says nothing on an idle connection but goodbye, so one with something to read is not used again: the
    pool opens a new one in its place. Asking the socket costs no round trip.
    """
    poll = select.poll()
    poll.register(cast(psycopg.Connection[Any], connection).pgconn.socket, select.POLLIN)
    if poll.poll(0):
        raise exc.DisconnectionError("The server has ended an idle connection.")


class _Store:
    """The idle connections of all pools, and the count of all that are open. One lock guards it."""

    def __init__(self, max_connections: int, wait_seconds: float) -> None:
        self._max_connections = max_connections
        self._wait_seconds = wait_seconds
        self._changed = Condition()
        self._idle: OrderedDict[ConnectionPoolEntry, Pool] = OrderedDict()
        self._idle_of: defaultdict[Pool, list[ConnectionPoolEntry]] = defaultdict(list)
        self.open_count = 0

    def take(self, pool: Pool, create: Callable[[], ConnectionPoolEntry]) -> ConnectionPoolEntry:
        """An idle connection of `pool`, or a new one. Raises ConnectionsExhausted if neither comes in time."""
        evicted: ConnectionPoolEntry | None = None
        deadline = monotonic() + self._wait_seconds
        with self._changed:
            while True:
                if self._idle_of.get(pool):
                    return self._forget(self._idle_of[pool][-1])
                if self.open_count < self._max_connections:
                    self.open_count += 1
                    break
                if self._idle:
                    evicted = self._forget(next(iter(self._idle)))
                    break
                if not self._changed.wait(max(0.0, deadline - monotonic())) and monotonic() >= deadline:
                    raise ConnectionsExhausted(
                        f"All {self._max_connections} connections of this process are in use; try again."
                    )
        try:
            if evicted is not None:
                evicted.close()
            return create()
        except BaseException:
            self.gone()
            raise

    def give(self, pool: "_CappedPool", record: ConnectionPoolEntry) -> bool:
        """Keep a connection that is idle now; False if its pool was retired and it must be closed."""
        with self._changed:
            if pool.is_retired:
                return False
            self._idle[record] = pool
            self._idle_of[pool].append(record)
            self._changed.notify()
            return True

    def has_idle(self, pool: Pool) -> bool:
        with self._changed:
            return bool(self._idle_of.get(pool))

    def gone(self) -> None:
        with self._changed:
            self.open_count -= 1
            self._changed.notify()

    def retire(self, pool: "_CappedPool") -> list[ConnectionPoolEntry]:
        """Take no more connections of `pool`; return those that are idle, to be closed."""
        with self._changed:
            pool.is_retired = True
            return [self._forget(record) for record in list(self._idle_of.get(pool, ()))]

    def _forget(self, record: ConnectionPoolEntry) -> ConnectionPoolEntry:
        pool = self._idle.pop(record)
        self._idle_of[pool].remove(record)
        if not self._idle_of[pool]:
            del self._idle_of[pool]
        return record


class _CappedPool(Pool):
    """SQLAlchemy's pool, keeping its idle connections in the common store."""

    def __init__(self, store: _Store, creator: Callable[[], DBAPIConnection], dialect: BindingDialect) -> None:
        super().__init__(creator, dialect=dialect)
        self._store = store
        self.is_retired = False

    def retire(self) -> None:
        for record in self._store.retire(self):
            self._close(record)

    def _do_get(self) -> ConnectionPoolEntry:
        return self._store.take(self, self._create_connection)

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        if not self._store.give(self, record):
            self._close(record)

    def _close(self, record: ConnectionPoolEntry) -> None:
        try:
            record.close()
        finally:
            self._store.gone()
