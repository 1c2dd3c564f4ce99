"""Counters of requests in fixed windows, in the process or in a Redis that all processes share. The first request
starts a window.

The in-memory storage of the library `limits` is not used: it reads the count again after releasing its lock, so it may
refuse one request too early, and its clean-up may lose a count.
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
REDIS_SECONDS: Final = 0.25  # to connect, and to answer
LOST_SECONDS: Final = 1.0  # pause after a failed call
PREFIX: Final = "schema-wallet"


class WindowCount(NamedTuple):
    """The number of requests in the current window, including this one, and the POSIX time at which the window ends."""

    number: int
    ends_at: float


class Counters(Protocol):
    def add(self, limit: RateLimitItem, *who: str) -> WindowCount:
        """Count one request of this caller."""

    def take_back(self, limit: RateLimitItem, *who: str) -> None:
        """Undo one count of this caller, if its window lasts."""

    def clear(self, limit: RateLimitItem, *who: str) -> None:
        """Forget all counts of this caller."""


class ProcessCounters:
    """Counters in memory, exact between threads. Ended windows are removed, and above `most` windows the oldest."""

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._lock = Lock()
        self._windows: dict[str, WindowCount] = {}
        self._next_sweep = 0.0

    def add(self, limit: RateLimitItem, *who: str) -> WindowCount:
        key = limit.key_for(*who)
        with self._lock:
            now = time()
            window = self._windows.get(key)
            if window is None or window.ends_at <= now:
                self._sweep(now)
                self._forget_oldest()
                window = WindowCount(0, now + limit.get_expiry())
            self._windows[key] = counted = WindowCount(window.number + 1, window.ends_at)
            return counted

    def take_back(self, limit: RateLimitItem, *who: str) -> None:
        key = limit.key_for(*who)
        with self._lock:
            window = self._windows.pop(key, None)
            if window is not None and window.number > 1 and window.ends_at > time():
                self._windows[key] = WindowCount(window.number - 1, window.ends_at)

    def clear(self, limit: RateLimitItem, *who: str) -> None:
        with self._lock:
            self._windows.pop(limit.key_for(*who), None)

    def _forget_oldest(self) -> None:
        if self._most is not None and len(self._windows) >= self._most:
            del self._windows[next(iter(self._windows))]

    def _sweep(self, now: float) -> None:
        if now >= self._next_sweep:
            self._windows = {key: window for key, window in self._windows.items() if window.ends_at > now}
            self._next_sweep = now + SWEEP_SECONDS


class RedisCounters:
    """Counters in Redis. While Redis does not answer, the process counts by itself: a failing Redis must neither stop
    the service nor remove the limit.
    """

    def __init__(self, url: str) -> None:
        waits = {"socket_connect_timeout": REDIS_SECONDS, "socket_timeout": REDIS_SECONDS}
        self._redis = RedisStorage(url, key_prefix=PREFIX, wrap_exceptions=True, retry=Retry(NoBackoff(), 0), **waits)  # type: ignore[arg-type]
        self._own = ProcessCounters()
        self._lost_until = 0.0

    def add(self, limit: RateLimitItem, *who: str) -> WindowCount:
        if monotonic() < self._lost_until:
            return self._own.add(limit, *who)
        key = limit.key_for(*who)
        try:
            return WindowCount(self._redis.incr(key, limit.get_expiry()), self._redis.get_expiry(key))
        except StorageError as error:
            self._lost_until = monotonic() + LOST_SECONDS
            log.warning("rate_limit_storage_lost", error=str(error))
            return self._own.add(limit, *who)

    def take_back(self, limit: RateLimitItem, *who: str) -> None:
        if monotonic() < self._lost_until:
            self._own.take_back(limit, *who)
            return
        try:
            self._redis.incr(limit.key_for(*who), limit.get_expiry(), -1)
        except StorageError as error:
            self._lost_until = monotonic() + LOST_SECONDS
            log.warning("rate_limit_storage_lost", error=str(error))

    def clear(self, limit: RateLimitItem, *who: str) -> None:
        self._own.clear(limit, *who)
        if monotonic() < self._lost_until:
            return
        try:
            self._redis.clear(limit.key_for(*who))
        except StorageError as error:
            self._lost_until = monotonic() + LOST_SECONDS
            log.warning("rate_limit_storage_lost", error=str(error))
