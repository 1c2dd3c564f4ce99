"""The engines of a process: one for the shared side and one for each tenant, over connections under one cap.

How tenants log in is known here and nowhere else. With a login for each, PostgreSQL itself keeps a tenant's connections
inside its schema. With a pool role they all log in as that, which reaches nothing, and every db transaction takes the
tenant's role: for fleets with more active tenants than a server has connections.
"""

import select
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, cast
from uuid import UUID

import psycopg
from psycopg.rows import TupleRow
from sqlalchemy import Engine, create_engine, event, exc, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, PoolProxiedConnection

from tenant_schemas.context import SHARED, Binding
from tenant_schemas.pool import SERVED, CappedPool, Shelf, Store
from tenant_schemas.roles import pool_password, tenant_password
from tenant_schemas.search_path import (
    BEGIN,
    IS_OWN_SESSION,
    BindingDialect,
    BindingEngine,
    OneStatementCursor,
    begin_message,
    full_begin_message,
    is_direct,
    make_engine,
    prove,
)
from tenant_schemas.tenant import Tenant

Arguments = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """Per process. With settings of its own a tenant may lower what is for one tenant: `max_connections`,
    `statement_timeout_ms`, `idle_in_transaction_timeout_ms`.
    """

    max_connections: int = 20
    max_tenant_connections: int = 0  # 0 is half of max_connections
    tenants_per_connection: int = 100
    wait_seconds: float = 5.0
    connect_timeout_seconds: int = 5
    statement_timeout_ms: int = 10_000
    idle_in_transaction_timeout_ms: int = 60_000

    def share_of(self, binding: Binding) -> "_Share":
        if not isinstance(binding, Tenant):
            # One place is left to tenants, for what is done on the shared side may end with an entry in a tenant's log.
            return _Share(
                max(1, self.max_connections - 1), self.statement_timeout_ms, self.idle_in_transaction_timeout_ms
            )
        share = self.max_tenant_connections or self.max_connections // 2
        return _Share(
            _lowered(binding, "max_connections", max(1, min(share, self.max_connections))),
            _lowered(binding, "statement_timeout_ms", self.statement_timeout_ms),
            _lowered(binding, "idle_in_transaction_timeout_ms", self.idle_in_transaction_timeout_ms),
        )


@dataclass(frozen=True, slots=True)
class _Share:
    connections: int
    statement_timeout_ms: int
    idle_timeout_ms: int


def _lowered(tenant: Tenant, setting: str, ceiling: int) -> int:
    wished = int(tenant.settings.get(setting, ceiling))
    return min(wished, ceiling) if wished > 0 else ceiling  # To PostgreSQL a time-out of 0 would mean none at all.


class Connections:
    """The engines of the process: `shared` for the shared side, `engine(tenant)` for a tenant. Opens nothing until
    asked; safe to share between threads; to be made after a fork, not before.

    `url` logs in to the shared side. With `pool_role` all tenants log in as that role.
    """

    def __init__(
        self, url: str, tenant_secret: str, limits: Limits | None = None, *, pool_role: str | None = None
    ) -> None:
        self._limits = limits or Limits()
        self._store = Store(self._limits.max_connections, self._limits.wait_seconds)
        # Made for its dialect, its parsed URL and its cache; its pool is never used but for the dialect's first look.
        bound_url = make_url(url).set(drivername="postgresql+tenant_schemas")
        self._template = create_engine(bound_url, poolclass=NullPool, use_native_hstore=False)
        self._tenants: dict[UUID, tuple[Tenant, BindingEngine]] = {}
        dialect = cast(BindingDialect, self._template.dialect)
        _, self._arguments = dialect.create_connect_args(bound_url)  # type: ignore[no-untyped-call]
        self._arguments |= {"autocommit": True, "cursor_factory": OneStatementCursor}
        self._arguments.setdefault("connect_timeout", self._limits.connect_timeout_seconds)
        self._logins = (
            _SharedLogin(pool_role, tenant_secret) if pool_role else _OwnLogins(tenant_secret, self._arguments)
        )
        self.shared = self._open(SHARED, _Login(bound_url.username or "", None, _connect, Shelf()))

    def for_binding(self, binding: Binding) -> BindingEngine:
        return self.engine(binding) if isinstance(binding, Tenant) else self.shared

    def engine(self, tenant: Tenant) -> BindingEngine:
        """The tenant's engine. A tenant whose registry row has changed gets a new one, and the old one is retired."""
        known = self._tenants.get(tenant.id)
        if known and known[0] == tenant:
            return known[1]
        self.retire(tenant.id)
        engine = self._open(tenant, self._logins.of(tenant))
        return self._tenants.setdefault(tenant.id, (tenant, engine))[1]

    def retire(self, tenant_id: UUID) -> None:
        """Forget the tenant's engine. Connections of its own are closed: idle ones now, those in use as they come back;
        a pool's connections are no tenant's, and stay.
        """
        known = self._tenants.pop(tenant_id, None)
        if known and self._logins.are_own:
            self._store.retire(_shelf(known[1]))

    def known_tenants(self) -> list[Tenant]:
        """The tenants that have an engine in this process, as it knows them."""
        return [tenant for tenant, _ in list(self._tenants.values())]

    def refresh(self, known: Iterable[Tenant], rows: Iterable[Tenant]) -> None:
        """Retire which of the `known` tenants are not active or not the same in these `rows` of the registry."""
        now = {tenant.id: tenant for tenant in rows}
        for tenant in known:
            held = self._tenants.get(tenant.id)
            if held and held[0] == tenant and not (tenant.is_active and now.get(tenant.id) == tenant):
                self.retire(tenant.id)

    def close(self) -> None:
        """Close everything. For the end of the process, and for tests."""
        for tenant_id in list(self._tenants):
            self.retire(tenant_id)
        for shelf in (_shelf(self.shared), *self._logins.common_shelves):
            self._store.retire(shelf)

    def tenants_with_idle_connections(self) -> list[Tenant]:
        """The known tenants that could have an idle connection at this moment: a look at them opens none, and closes
        nobody's.
        """
        return [tenant for tenant, engine in list(self._tenants.values()) if self._store.has_idle(_shelf(engine))]

    @property
    def open_count(self) -> int:
        return self._store.open_count

    def _open(self, binding: Binding, login: "_Login") -> BindingEngine:
        share = self._limits.share_of(binding)
        # What goes without a BEGIN is bounded too. In a zone east of UTC psycopg can't read the end of the year 9999.
        options = (
            f"-c statement_timeout={share.statement_timeout_ms} -c TimeZone=UTC"
            f" -c idle_in_transaction_session_timeout={share.idle_timeout_ms}"
        )
        arguments = self._arguments | {"user": login.user, "options": options}

        def connect() -> DBAPIConnection:
            connection = login.connect(arguments)
            prove(connection, login.user, login.schema_name)
            return cast(DBAPIConnection, connection)

        pool = CappedPool(
            self._store,
            connect,
            cast(BindingDialect, self._template.dialect),
            shelf=login.shelf,
            holder=binding.id if isinstance(binding, Tenant) else binding,
            share=share.connections,
            tenants_per_connection=self._limits.tenants_per_connection,
        )
        _hand_out_bound(pool, binding, login, share)
        event.listen(pool, "connect", self._learn_the_server)
        return make_engine(pool, self._template)

    def _learn_the_server(self, _: DBAPIConnection, __: ConnectionPoolEntry) -> None:
        """SQLAlchemy's dialect asks a server for its version and settings once; all engines here share the answer."""
        _initialize_once(self._template)


def _hand_out_bound(pool: CappedPool, binding: Binding, login: "_Login", share: _Share) -> None:
    """Give each connection that is taken out the BEGIN of this binding, whoever had it before."""
    begin = begin_message(binding, share.statement_timeout_ms)
    whole_begin = full_begin_message(
        binding, share.statement_timeout_ms, share.idle_timeout_ms, takes_role=not login.is_own
    )

    def on_connect(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        session = cast("psycopg.Connection[TupleRow]", connection)
        record.info[IS_OWN_SESSION] = login.is_own and is_direct(session)
        if not login.is_own:  # Nor is what one tenant prepared run for another, whatever it says.
            session.prepare_threshold = None

    def on_checkout(connection: DBAPIConnection, record: ConnectionPoolEntry, _: PoolProxiedConnection) -> None:
        _refuse_dead(connection)
        record.info[BEGIN] = begin if record.info[IS_OWN_SESSION] else whole_begin
        record.info.setdefault(SERVED, set()).add(pool.holder)

    event.listen(pool, "connect", on_connect)
    event.listen(pool, "checkout", on_checkout)


def _refuse_dead(connection: DBAPIConnection) -> None:
    """A server says nothing on an idle connection but goodbye, so one with something to read is not used again: the
    pool opens a new one in its place. Asking the socket costs no round trip.
    """
    poll = select.poll()
    poll.register(cast(psycopg.Connection[Any], connection).pgconn.socket, select.POLLIN)
    if poll.poll(0):
        raise exc.DisconnectionError("The server has ended an idle connection.")


def _initialize_once(template: Engine) -> None:
    if not getattr(template.dialect, "server_version_info", None):
        with template.connect():
            pass


def _shelf(engine: BindingEngine) -> Shelf:
    return cast(CappedPool, engine.pool).shelf


@dataclass(frozen=True, slots=True)
class _Login:
    """As whom a binding's connections log in and in which schema they then are (None: in none), how they are opened,
    and where the idle ones lie.
    """

    user: str
    schema_name: str | None
    connect: Callable[[Arguments], psycopg.Connection[TupleRow]]
    shelf: Shelf
    is_own: bool = True


def _connect(arguments: Arguments) -> psycopg.Connection[TupleRow]:
    return psycopg.connect(**arguments)


class _SharedLogin:
    """All tenants log in as the pool's role, and may take each other's idle connections."""

    are_own = False

    def __init__(self, pool_role: str, secret: str) -> None:
        self._pool_role = pool_role
        self._password = pool_password(secret)
        self._shelf = Shelf()
        self.common_shelves = (self._shelf,)

    def of(self, _: Tenant) -> _Login:
        return _Login(self._pool_role, None, self._connect, self._shelf, is_own=False)

    def _connect(self, arguments: Arguments) -> psycopg.Connection[TupleRow]:
        return _connect(arguments | {"password": self._password})


class _OwnLogins:
    """Each tenant logs in as its own role. If its password was replaced since, the registry says which it is now."""

    are_own = True
    common_shelves = ()

    def __init__(self, secret: str, shared_arguments: Arguments) -> None:
        self._secret = secret
        self._shared_arguments = shared_arguments
        self._epochs: dict[UUID, int] = {}
        self._asking = Lock()

    def of(self, tenant: Tenant) -> _Login:
        return _Login(tenant.role_name, tenant.schema_name, partial(self._connect, tenant), Shelf())

    def _connect(self, tenant: Tenant, arguments: Arguments) -> psycopg.Connection[TupleRow]:
        epoch = max(tenant.login_epoch, self._epochs.get(tenant.id, 0))
        while True:
            password = tenant_password(self._secret, tenant.id, epoch)
            try:
                return _connect(arguments | {"password": password})
            except psycopg.OperationalError as error:
                # The only sign of a refused password that is in no language: libpq knows no SQLSTATE here.
                current = self._epoch_after(tenant.id, epoch) if error.pgconn and error.pgconn.used_password else epoch
                if current == epoch:
                    raise
                epoch = current

    def _epoch_after(self, tenant_id: UUID, tried: int) -> int:
        """The tenant's current epoch, asked for by one thread at a time: on a connection past the cap, for whoever
        needs it may hold the last place there is.
        """
        with self._asking:
            if self._epochs.get(tenant_id, 0) <= tried:
                with _connect(self._shared_arguments) as connection:
                    query = "SELECT login_epoch FROM shared.tenants WHERE id = %s"
                    row = connection.execute(query, (tenant_id,)).fetchone()
                self._epochs[tenant_id] = row[0] if row else tried
            return self._epochs[tenant_id]
