"""The engines of a process: one for the shared side and one for each tenant, over connections under one cap.

Only this module knows how tenants log in. With a login per tenant, PostgreSQL itself confines a tenant's connections to
its schema. With a pool role, all tenants log in as that role, which has no privileges, and every db transaction takes
the tenant's role: for fleets with more active tenants than the server has connections.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, cast
from uuid import UUID

import psycopg
from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from tenant_schemas.context import SHARED, Binding
from tenant_schemas.driver import DriverConnection, OneStatementCursor
from tenant_schemas.pool import CappedPool, ConnectionStore, IdleConnections, PoolFigures
from tenant_schemas.roles import pool_password, tenant_password
from tenant_schemas.search_path import (
    BEGIN,
    IS_OWN_SESSION,
    BindingDialect,
    BindingEngine,
    begin_message,
    full_begin_message,
    is_direct,
    make_engine,
    verify_session,
)
from tenant_schemas.tenant import Tenant

Arguments = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits per process. A tenant's settings may lower these for that tenant: `max_connections`,
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
            # Leave one connection to tenants: work on the shared side may end with an entry in a tenant's audit log.
            return _Share(
                max(1, self.max_connections - 1), self.statement_timeout_ms, self.idle_in_transaction_timeout_ms
            )
        share = self.max_tenant_connections or self.max_connections // 2
        return _Share(
            _tenant_limit(binding, "max_connections", max(1, min(share, self.max_connections))),
            _tenant_limit(binding, "statement_timeout_ms", self.statement_timeout_ms),
            _tenant_limit(binding, "idle_in_transaction_timeout_ms", self.idle_in_transaction_timeout_ms),
        )


@dataclass(frozen=True, slots=True)
class _Share:
    connections: int
    statement_timeout_ms: int
    idle_timeout_ms: int


def _tenant_limit(tenant: Tenant, setting: str, ceiling: int) -> int:
    limit = int(tenant.settings.get(setting, ceiling))
    return min(limit, ceiling) if limit > 0 else ceiling  # A time-out of 0 would disable it in PostgreSQL.


class Connections:
    """The engines of the process: `shared` for the shared side, `engine(tenant)` for a tenant. Thread-safe. It opens
    connections on demand only. Create it after a fork, not before.

    `url` is the login of the shared side. With `pool_role` all tenants log in as that role.
    """

    def __init__(
        self, url: str, tenant_secret: str, limits: Limits | None = None, *, pool_role: str | None = None
    ) -> None:
        self._limits = limits or Limits()
        self._store = ConnectionStore(self._limits.max_connections, self._limits.wait_seconds)
        # Provides the dialect, the parsed URL and the statement cache. It connects once, to initialize the dialect.
        bound_url = make_url(url).set(drivername="postgresql+tenant_schemas")
        self._template = create_engine(bound_url, poolclass=NullPool, use_native_hstore=False)
        self._tenants: dict[UUID, tuple[Tenant, BindingEngine]] = {}
        dialect = cast(BindingDialect, self._template.dialect)
        _, self._arguments = dialect.create_connect_args(bound_url)  # type: ignore[no-untyped-call]
        self._arguments |= {"autocommit": True, "cursor_factory": OneStatementCursor}
        self._arguments.setdefault("connect_timeout", self._limits.connect_timeout_seconds)
        self._logins = (
            _SharedLogin(pool_role, tenant_secret) if pool_role else _TenantLogins(tenant_secret, self._arguments)
        )
        self.shared = self._open(SHARED, _Login(bound_url.username or "", None, _connect, IdleConnections()))

    def for_binding(self, binding: Binding) -> BindingEngine:
        return self.engine(binding) if isinstance(binding, Tenant) else self.shared

    def engine(self, tenant: Tenant) -> BindingEngine:
        """The tenant's engine. If its registry row has changed, the old engine is retired and a new one created."""
        known = self._tenants.get(tenant.id)
        if known and known[0] == tenant:
            return known[1]
        self.retire(tenant.id)
        engine = self._open(tenant, self._logins.of(tenant))
        return self._tenants.setdefault(tenant.id, (tenant, engine))[1]

    def retire(self, tenant_id: UUID) -> None:
        """Drop the tenant's engine. Connections of its own login are closed: idle ones now, those in use when they are
        returned. Connections of the pool role stay open.
        """
        known = self._tenants.pop(tenant_id, None)
        if known and self._logins.are_own:
            self._store.retire(_idle_connections(known[1]))

    def known_tenants(self) -> list[Tenant]:
        """The tenants that have an engine in this process, as read when it was created."""
        return [tenant for tenant, _ in list(self._tenants.values())]

    def refresh(self, known: Iterable[Tenant], rows: Iterable[Tenant]) -> None:
        """Retire the engines of `known` tenants that are not active or differ from their registry row in `rows`."""
        now = {tenant.id: tenant for tenant in rows}
        for tenant in known:
            held = self._tenants.get(tenant.id)
            if held and held[0] == tenant and not (tenant.is_active and now.get(tenant.id) == tenant):
                self.retire(tenant.id)

    def close(self) -> None:
        """Close all connections, at the end of the process or of a test."""
        for tenant_id in list(self._tenants):
            self.retire(tenant_id)
        for idle in (_idle_connections(self.shared), *self._logins.common_idle):
            self._store.retire(idle)

    def tenants_with_idle_connections(self) -> list[Tenant]:
        """The known tenants whose login has an idle connection now: a query for them opens none and closes none."""
        return [
            tenant for tenant, engine in list(self._tenants.values()) if self._store.has_idle(_idle_connections(engine))
        ]

    @property
    def open_count(self) -> int:
        return self._store.open_count

    def figures(self) -> PoolFigures:
        """The figures of the connections now, for metrics. Its `waits` are given to one reader only."""
        return self._store.figures()

    def _open(self, binding: Binding, login: "_Login") -> BindingEngine:
        share = self._limits.share_of(binding)
        # Statements without BEGIN need these too. psycopg can't read the end of the year 9999 in a zone east of UTC.
        options = (
            f"-c statement_timeout={share.statement_timeout_ms} -c TimeZone=UTC"
            f" -c idle_in_transaction_session_timeout={share.idle_timeout_ms}"
        )
        arguments = self._arguments | {"user": login.user, "options": options}

        def connect() -> DBAPIConnection:
            connection = login.connect(arguments)
            verify_session(connection, login.user, login.schema_name)
            return cast(DBAPIConnection, connection)

        pool = CappedPool(
            self._store,
            connect,
            cast(BindingDialect, self._template.dialect),
            bind=_begin_setter(binding, login, share),
            idle=login.idle,
            holder=binding.id if isinstance(binding, Tenant) else binding,
            share=share.connections,
            tenants_per_connection=self._limits.tenants_per_connection,
        )
        event.listen(pool, "connect", _own_session_marker(login))
        event.listen(pool, "connect", self._initialize_dialect)
        return make_engine(pool, self._template)

    def _initialize_dialect(self, _: DBAPIConnection, __: ConnectionPoolEntry) -> None:
        """SQLAlchemy's dialect reads the server's version and settings once; all engines share them."""
        _initialize_once(self._template)


def _begin_setter(binding: Binding, login: "_Login", share: _Share) -> Callable[[ConnectionPoolEntry], None]:
    """Sets this binding's BEGIN message on a connection."""
    begin = begin_message(binding, share.statement_timeout_ms).encode()
    full_begin = full_begin_message(
        binding, share.statement_timeout_ms, share.idle_timeout_ms, takes_role=not login.is_own
    ).encode()

    def set_begin(record: ConnectionPoolEntry) -> None:
        record.info[BEGIN] = begin if record.info[IS_OWN_SESSION] else full_begin

    return set_begin


def _own_session_marker(login: "_Login") -> Callable[[DBAPIConnection, ConnectionPoolEntry], None]:
    def mark_own_session(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        session = cast(DriverConnection, connection)
        record.info[IS_OWN_SESSION] = login.is_own and is_direct(session)
        if not login.is_own:  # One tenant's prepared statement must not run for another.
            session.prepare_threshold = None

    return mark_own_session


def _initialize_once(template: Engine) -> None:
    if not getattr(template.dialect, "server_version_info", None):
        with template.connect():
            pass


def _idle_connections(engine: BindingEngine) -> IdleConnections:
    return cast(CappedPool, engine.pool).idle


@dataclass(frozen=True, slots=True)
class _Login:
    """How a binding's connections log in: the user, the schema in which they start (None: no schema), the function that
    opens them, and the idle ones.
    """

    user: str
    schema_name: str | None
    connect: Callable[[Arguments], DriverConnection]
    idle: IdleConnections
    is_own: bool = True


def _connect(arguments: Arguments) -> DriverConnection:
    return DriverConnection.connect(**arguments)


class _SharedLogin:
    """All tenants log in as the pool role and share their idle connections."""

    are_own = False

    def __init__(self, pool_role: str, secret: str) -> None:
        self._pool_role = pool_role
        self._password = pool_password(secret)
        self._idle = IdleConnections()
        self.common_idle = (self._idle,)

    def of(self, _: Tenant) -> _Login:
        return _Login(self._pool_role, None, self._connect, self._idle, is_own=False)

    def _connect(self, arguments: Arguments) -> DriverConnection:
        return _connect(arguments | {"password": self._password})


class _TenantLogins:
    """Each tenant logs in as its own role. If its password is rejected, the current epoch is read from the registry."""

    are_own = True
    common_idle = ()

    def __init__(self, secret: str, shared_arguments: Arguments) -> None:
        self._secret = secret
        self._shared_arguments = shared_arguments
        self._epochs: dict[UUID, int] = {}
        self._epoch_lock = Lock()

    def of(self, tenant: Tenant) -> _Login:
        return _Login(tenant.role_name, tenant.schema_name, partial(self._connect, tenant), IdleConnections())

    def _connect(self, tenant: Tenant, arguments: Arguments) -> DriverConnection:
        epoch = max(tenant.login_epoch, self._epochs.get(tenant.id, 0))
        while True:
            password = tenant_password(self._secret, tenant.id, epoch)
            try:
                return _connect(arguments | {"password": password})
            except psycopg.OperationalError as error:
                # libpq reports no SQLSTATE at login: this flag is the only locale-independent sign of a rejection.
                is_rejected = error.pgconn is not None and error.pgconn.used_password
                current = self._current_epoch(tenant.id, epoch) if is_rejected else epoch
                if current == epoch:
                    raise
                epoch = current

    def _current_epoch(self, tenant_id: UUID, rejected: int) -> int:
        """The tenant's current epoch, read by one thread at a time, on a connection beyond the cap: the caller may
        hold the last connection within the cap.
        """
        with self._epoch_lock:
            if self._epochs.get(tenant_id, 0) <= rejected:
                with _connect(self._shared_arguments) as connection:
                    query = "SELECT login_epoch FROM shared.tenants WHERE id = %s"
                    row = connection.execute(query, (tenant_id,)).fetchone()
                self._epochs[tenant_id] = row[0] if row else rejected
            return self._epochs[tenant_id]
