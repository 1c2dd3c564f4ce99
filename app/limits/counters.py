"""Where requests are counted: in the process, or in a Redis that all processes share. Windows are fixed: the first
request begins one.

The in-memory storage of the library `limits` is not used: it reads a count again after it has let go of its lock, so
that of requests at the border too few may pass, and its clean-up may forget one, so that too many do.
"""

from threading import Lock
from time import monotonic, time
from typing import Final, NamedTuple, Protocol

import structlog
from limits import RateLimitItem
from limits.errors import StorageError
from limits.storage import RedisStorage
from redis.backoff import NoBackoff
from redis.retry import Retry

log = structlog.get_logger(__name__)

SWEEP_SECONDS: Final = 60
REDIS_SECONDS: Final = 0.25  # to connect, and to answer: a rate limit is not worth more of a request's time
LOST_SECONDS: Final = 1.0  # how long a Redis that was not there is left alone
PREFIX: Final = "schema-wallet"


class Counted(NamedTuple):
    """How many requests there were in the current window, this one included, and when (of the clock) it ends."""

    number: int
    ends_at: float


class Counts(Protocol):
    def add(self, limit: RateLimitItem, *who: str) -> Counted:
        """Count one request of somebody."""


class OwnCounts:
    """In memory, exact between threads. Whoever never comes back is forgotten."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._windows: dict[str, Counted] = {}
        self._next_sweep = 0.0

    def add(self, limit: RateLimitItem, *who: str) -> Counted:
        key = limit.key_for(*who)
        with self._lock:
            now = time()
            window = self._windows.get(key)
            if window is None or window.ends_at <= now:
                self._sweep(now)
                window = Counted(0, now + limit.get_expiry())
            self._windows[key] = counted = Counted(window.number + 1, window.ends_at)
            return counted

    def _sweep(self, now: float) -> None:
        if now >= self._next_sweep:
            self._windows = {key: window for key, window in self._windows.items() if window.ends_at > now}
            self._next_sweep = now + SWEEP_SECONDS


class SharedCounts:
    """In Redis. While that can't be reached the process counts for itself: a rate limit protects the service, so it
    must neither take it down together with Redis nor leave it open to whoever breaks Redis.
    """

    def __init__(self, url: str) -> None:
        waits = {"socket_connect_timeout": REDIS_SECONDS, "socket_timeout": REDIS_SECONDS}
        self._redis = RedisStorage(url, key_prefix=PREFIX, wrap_exceptions=True, retry=Retry(NoBackoff(), 0), **waits)  # type: ignore[arg-type]
        self._own = OwnCounts()
        self._lost_until = 0.0

    def add(self, limit: RateLimitItem, *who: str) -> Counted:
        if monotonic() < self._lost_until:
            return self._own.add(limit, *who)
        key = limit.key_for(*who)
        try:
            return Counted(self._redis.incr(key, limit.get_expiry()), self._redis.get_expiry(key))
        except StorageError as error:
            self._lost_until = monotonic() + LOST_SECONDS
            log.warning("rate_limit_storage_lost", error=str(error))
            return self._own.add(limit, *who)
