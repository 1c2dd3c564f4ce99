"""The connections of a process under one cap, shared out fairly: SQLAlchemy's pools, with one store behind them all.

When the cap is reached, the connection that has been idle longest is closed to make room, whosever it is. A tenant
that uses its whole share waits for its own connections, and nobody waits for it.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from threading import Condition
from time import monotonic
from typing import Final

from sqlalchemy import Pool
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from tenant_schemas.errors import ConnectionsExhausted
from tenant_schemas.search_path import BindingDialect

SERVED: Final = "tenant_schemas.served"  # where a pooled connection keeps the ids of the tenants it has served


class Shelf:
    """Idle connections of one login: whoever logs in like that may take them."""

    def __init__(self) -> None:
        self.records: list[ConnectionPoolEntry] = []
        self.is_retired = False


class Store:
    """The shelves, and the count of all connections that are open. One lock guards it."""

    def __init__(self, max_connections: int, wait_seconds: float) -> None:
        self._max_connections = max_connections
        self._wait_seconds = wait_seconds
        self._changed = Condition()
        self._idle: OrderedDict[ConnectionPoolEntry, Shelf] = OrderedDict()
        self._lent: dict[ConnectionPoolEntry, Hashable] = {}
        self._in_use: Counter[Hashable] = Counter()
        self.open_count = 0

    def take(self, pool: "CappedPool", create: Callable[[], ConnectionPoolEntry]) -> ConnectionPoolEntry:
        """An idle connection of the pool's login, or a new one; ConnectionsExhausted if neither comes in time."""
        with self._changed:
            evicted = self._wait_for_place(pool)
            self._in_use[pool.holder] += 1
            if pool.shelf.records:
                return self._lend(self._forget(pool.shelf.records[-1]), pool.holder)
            if evicted is None:
                self.open_count += 1
        try:
            if evicted is not None:
                evicted.close()
            record = create()
        except BaseException:
            with self._changed:
                self._in_use[pool.holder] -= 1
            self.gone()
            raise
        with self._changed:
            return self._lend(record, pool.holder)

    def _wait_for_place(self, pool: "CappedPool") -> ConnectionPoolEntry | None:
        """Wait until `pool` may take or open a connection; return the idle one that must make room for it, if any."""
        deadline = monotonic() + self._wait_seconds
        while True:
            is_full = self._in_use[pool.holder] >= pool.share
            if not is_full and (pool.shelf.records or self.open_count < self._max_connections):
                return None
            if not is_full and self._idle:
                return self._forget(next(iter(self._idle)))
            if not self._changed.wait(max(0.0, deadline - monotonic())) and monotonic() >= deadline:
                whose = "one side's share" if is_full else "this process"
                number = pool.share if is_full else self._max_connections
                raise ConnectionsExhausted(f"All {number} connections of {whose} are in use; try again.")

    def give(self, pool: "CappedPool", record: ConnectionPoolEntry) -> bool:
        """Keep a connection that is idle now; False if it must be closed, for its login was retired or it is worn."""
        with self._changed:
            self._in_use[self._lent.pop(record)] -= 1
            # A tenant may be waiting for its share and others for any place, so all look for themselves.
            self._changed.notify_all()
            if pool.shelf.is_retired or pool.is_worn(record):
                return False
            self._idle[record] = pool.shelf
            pool.shelf.records.append(record)
            return True

    def has_idle(self, shelf: Shelf) -> bool:
        with self._changed:
            return bool(shelf.records)

    def gone(self) -> None:
        with self._changed:
            self.open_count -= 1
            self._changed.notify_all()

    def retire(self, shelf: Shelf) -> None:
        """Close the idle connections of a login, and let those in use be closed as they come back."""
        with self._changed:
            shelf.is_retired = True
            idle = [self._forget(record) for record in list(shelf.records)]
        for record in idle:
            self.close(record)

    def close(self, record: ConnectionPoolEntry) -> None:
        try:
            record.close()
        finally:
            self.gone()

    def _lend(self, record: ConnectionPoolEntry, holder: Hashable) -> ConnectionPoolEntry:
        self._lent[record] = holder
        return record

    def _forget(self, record: ConnectionPoolEntry) -> ConnectionPoolEntry:
        self._idle.pop(record).records.remove(record)
        return record


class CappedPool(Pool):
    """SQLAlchemy's pool for one `holder`, who may use `share` connections at once. Its idle ones lie on a shelf of the
    common store, perhaps with those of others; the pool that opened a connection is the one that gets it back.
    """

    def __init__(
        self,
        store: Store,
        creator: Callable[[], DBAPIConnection],
        dialect: BindingDialect,
        *,
        shelf: Shelf,
        holder: Hashable,
        share: int,
        tenants_per_connection: int,
    ) -> None:
        super().__init__(creator, dialect=dialect)
        self._store = store
        self._tenants_per_connection = tenants_per_connection
        self.shelf = shelf
        self.holder = holder
        self.share = share

    def is_worn(self, record: ConnectionPoolEntry) -> bool:
        """PostgreSQL's caches in a connection grow with every tenant it serves, and only closing it empties them."""
        return len(record.info.get(SERVED, ())) >= self._tenants_per_connection

    def _do_get(self) -> ConnectionPoolEntry:
        return self._store.take(self, self._create_connection)

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        if not self._store.give(self, record):
            self._store.close(record)
