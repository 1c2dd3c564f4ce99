"""All connections of a process under one cap: SQLAlchemy's pools over one common store.

When the cap is reached, the connection that has been idle longest is closed, whichever tenant used it. A tenant that
uses its whole share waits for its own connections; other tenants do not wait for it.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from threading import Condition
from time import monotonic
from typing import Any, Final, Literal, cast
from uuid import UUID

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Dialect, Pool, event, exc
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from tenant_schemas.driver import DriverConnection
from tenant_schemas.errors import ConnectionsExhausted

SERVED: Final = "tenant_schemas.served"  # in a pooled connection's info: the tenants that it has served


class IdleConnections:
    """The idle connections of one login, for all pools with that login."""

    def __init__(self) -> None:
        self.records: list[ConnectionPoolEntry] = []
        self.is_retired = False


Kind = Literal["shared", "tenants"]
KINDS: Final[tuple[Kind, ...]] = ("shared", "tenants")
# Waits that nobody has read. Of more, the oldest are forgotten.
MOST_WAITS: Final = 10_000


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """The connections of a process, by kind: of the shared side or of tenants. `opened`, `closed` and `retries` count
    from the start of the process; a retry is a statement that was sent again after its connection broke. `waits` are
    the ends of waits for a connection since the figures were read before: the kind and the seconds.
    """

    in_use: Mapping[Kind, int]
    waiting: Mapping[Kind, int]
    opened: Mapping[Kind, int]
    open: int
    closed: int
    retries: int
    waits: Sequence[tuple[Kind, float]]


class ConnectionStore:
    """All connections of the process, idle and in use, and their count. One lock guards it."""

    def __init__(self, max_connections: int, wait_seconds: float) -> None:
        self._max_connections = max_connections
        self._wait_seconds = wait_seconds
        self._changed = Condition()
        self._idle: OrderedDict[ConnectionPoolEntry, IdleConnections] = OrderedDict()
        self._holders: dict[ConnectionPoolEntry, Hashable] = {}
        self._in_use: Counter[Hashable] = Counter()
        self._waiting: Counter[Kind] = Counter()
        self._opened: Counter[Kind] = Counter()
        self._waits: deque[tuple[Kind, float]] = deque(maxlen=MOST_WAITS)
        self._retries = 0
        self.open_count = 0

    def acquire(self, pool: "CappedPool", create: Callable[[], ConnectionPoolEntry]) -> ConnectionPoolEntry:
        """An idle connection of the pool's login, or a new one. Raises ConnectionsExhausted if it waited too long."""
        with self._changed:
            evicted = self._wait_for_place(pool)
            self._in_use[pool.holder] += 1
            if pool.idle.records:
                return self._set_holder(self._remove_idle(pool.idle.records[-1]), pool.holder)
            self._opened[pool.kind] += 1
            if evicted is None:
                self.open_count += 1
        try:
            if evicted is not None:
                evicted.close()
            record = create()
        except BaseException:
            with self._changed:
                self._in_use[pool.holder] -= 1
            self._count_closed()
            raise
        with self._changed:
            return self._set_holder(record, pool.holder)

    def figures(self) -> PoolFigures:
        """The figures now. The waits are given to one reader only."""
        with self._changed:
            in_use: Counter[Kind] = Counter()
            for holder, number in self._in_use.items():
                in_use[_kind_of(holder)] += number
            waits = [self._waits.popleft() for _ in range(len(self._waits))]
            return PoolFigures(
                in_use=in_use,
                waiting=self._waiting.copy(),
                opened=self._opened.copy(),
                open=self.open_count,
                closed=self._opened.total() - self.open_count,
                retries=self._retries,
                waits=waits,
            )

    def note_retry(self) -> None:
        with self._changed:
            self._retries += 1

    def _wait_for_place(self, pool: "CappedPool") -> ConnectionPoolEntry | None:
        """Wait until `pool` may use or open a connection; return the idle one that must be closed for it, if any."""
        deadline = monotonic() + self._wait_seconds
        waits_since = 0.0
        try:
            while True:
                is_full = self._in_use[pool.holder] >= pool.share
                if not is_full and (pool.idle.records or self.open_count < self._max_connections):
                    return None
                if not is_full and self._idle:
                    return self._remove_idle(next(iter(self._idle)))
                if not waits_since:
                    waits_since = monotonic()
                    self._waiting[pool.kind] += 1
                if not self._changed.wait(max(0.0, deadline - monotonic())) and monotonic() >= deadline:
                    side = "this tenant" if pool.kind == "tenants" else "the shared side"
                    scope, number = (side, pool.share) if is_full else ("this process", self._max_connections)
                    raise ConnectionsExhausted(f"All {number} connections of {scope} are in use; try again.")
        finally:
            if waits_since:
                self._waiting[pool.kind] -= 1
                self._waits.append((pool.kind, monotonic() - waits_since))

    def release(self, pool: "CappedPool", record: ConnectionPoolEntry) -> bool:
        """Keep a returned connection as idle. Returns False if it must be closed: its login was retired, or it is due
        for replacement.
        """
        with self._changed:
            self._in_use[self._holders.pop(record)] -= 1
            # Some wait for their share and others for the cap, so wake all to check for themselves.
            self._changed.notify_all()
            if pool.idle.is_retired or pool.is_due_for_replacement(record):
                return False
            self._idle[record] = pool.idle
            pool.idle.records.append(record)
            return True

    def has_idle(self, idle: IdleConnections) -> bool:
        with self._changed:
            return bool(idle.records)

    def _count_closed(self) -> None:
        with self._changed:
            self.open_count -= 1
            self._changed.notify_all()

    def retire(self, idle: IdleConnections) -> None:
        """Close the idle connections of a login now, and those in use when they are returned."""
        with self._changed:
            idle.is_retired = True
            records = [self._remove_idle(record) for record in list(idle.records)]
        for record in records:
            self.close(record)

    def close(self, record: ConnectionPoolEntry) -> None:
        try:
            record.close()
        finally:
            self._count_closed()

    def _set_holder(self, record: ConnectionPoolEntry, holder: Hashable) -> ConnectionPoolEntry:
        self._holders[record] = holder
        return record

    def _remove_idle(self, record: ConnectionPoolEntry) -> ConnectionPoolEntry:
        self._idle.pop(record).records.remove(record)
        return record


class CappedPool(Pool):
    """SQLAlchemy's pool for one `holder` (a tenant's id or the shared side), which may use `share` connections at once.
    Pools with the same login share their idle connections. The pool that opened a connection gets it back.

    `bind` prepares a connection for this holder, at each checkout: another holder may have used it before.
    """

    def __init__(
        self,
        store: ConnectionStore,
        creator: Callable[[], DBAPIConnection],
        dialect: Dialect,
        *,
        bind: Callable[[ConnectionPoolEntry], None],
        idle: IdleConnections,
        holder: Hashable,
        share: int,
        tenants_per_connection: int,
    ) -> None:
        super().__init__(creator, dialect=dialect)
        self._store = store
        self._bind = bind
        self._tenants_per_connection = tenants_per_connection
        self.idle = idle
        self.holder = holder
        self.kind = _kind_of(holder)
        self.share = share
        event.listen(self, "checkout", self._on_checkout)

    def is_due_for_replacement(self, record: ConnectionPoolEntry) -> bool:
        """PostgreSQL's caches in a connection grow with every tenant that it serves, and only closing it frees them. A
        setting of the session is for its setter only.
        """
        connection: Any = record.dbapi_connection
        is_altered = connection is not None and connection.is_altered
        return bool(is_altered) or len(record.info.get(SERVED, ())) >= self._tenants_per_connection

    def borrow(self) -> ConnectionPoolEntry:
        """A connection without SQLAlchemy's proxy and events, which cost more than a short statement. `give_back` must
        follow.
        """
        record: Any = self._do_get()
        try:
            if record.get_connection().has_ended():
                record.invalidate()
                record.get_connection()
            self._mark(record)
        except BaseException as error:
            record.invalidate(error)
            self._do_return_conn(record)
            raise
        return cast(ConnectionPoolEntry, record)

    def give_back(self, record: ConnectionPoolEntry) -> None:
        """Give a borrowed connection back. An open db transaction is rolled back, a broken connection discarded."""
        connection: Any = record.dbapi_connection
        try:
            if connection is not None and connection.pgconn.transaction_status != TransactionStatus.IDLE:
                connection.rollback()
        except BaseException as error:
            record.invalidate(error)
            if not isinstance(error, psycopg.Error):
                raise
        finally:
            self._do_return_conn(record)

    def _on_checkout(self, connection: DBAPIConnection, record: ConnectionPoolEntry, _: object) -> None:
        if cast(DriverConnection, connection).has_ended():
            raise exc.DisconnectionError("The server has ended an idle connection.")
        self._mark(record)

    def _mark(self, record: ConnectionPoolEntry) -> None:
        record.info.setdefault(SERVED, set()).add(self.holder)
        self._bind(record)

    def _do_get(self) -> ConnectionPoolEntry:
        return self._store.acquire(self, self._create_connection)

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        if not self._store.release(self, record):
            self._store.close(record)

    def note_retry(self) -> None:
        """Count a statement that is sent again after its connection broke."""
        self._store.note_retry()


def _kind_of(holder: Hashable) -> Kind:
    return "tenants" if isinstance(holder, UUID) else "shared"
