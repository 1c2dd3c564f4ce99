"""Counters in PostgreSQL, one count over all processes without Redis. They are for rare work only, log-ins, because
each counted request costs a query.
"""

from hashlib import blake2b
from time import monotonic, time
from typing import Final

import psycopg
import structlog
from limits import RateLimitItem, RateLimitItemPerMinute
from sqlalchemy.exc import DBAPIError

from app.limits.counters import SWEEP_SECONDS, ProcessCounters, WindowCount
from tenant_schemas.errors import TenancyError
from tenant_schemas.flask import connections

log = structlog.get_logger(__name__)

MAX_NUMBER: Final = 1_000_000_000
REMEMBERED_WINDOWS: Final = 50_000
OWN_SECONDS: Final = 60
_COUNT: Final = """
    INSERT INTO shared.attempt_counts AS counted (key, number, ends_at)
    VALUES (%(key)s, 1, now() + make_interval(secs => %(seconds)s))
    ON CONFLICT (key) DO UPDATE SET
        number = CASE WHEN counted.ends_at <= now() THEN 1 ELSE least(counted.number, %(most)s) + 1 END,
        ends_at = CASE WHEN counted.ends_at <= now() THEN excluded.ends_at ELSE counted.ends_at END
    RETURNING number, extract(epoch FROM ends_at - now())::double precision"""
# A count of nobody is deleted: only failures leave rows for as long as a window lasts.
_TAKE_BACK: Final = """
    WITH ended AS (DELETE FROM shared.attempt_counts WHERE key = %(key)s AND number <= 1)
    UPDATE shared.attempt_counts SET number = number - 1 WHERE key = %(key)s AND number > 1"""
_CLEAR: Final = "DELETE FROM shared.attempt_counts WHERE key = %(key)s"
# In a statement of its own: one that deletes other rows and then waits for its own row could deadlock with its like.
_SWEEP: Final = """
    DELETE FROM shared.attempt_counts WHERE key IN (
        SELECT key FROM shared.attempt_counts WHERE ends_at < now() ORDER BY ends_at LIMIT 10000
        FOR UPDATE SKIP LOCKED)"""


class DatabaseCounters:
    """The process counts first, in windows of a minute at most. A request that its own count refuses costs no query, so
    a flood of refused log-ins costs the database nothing. The table decides about longer windows: who deletes its rows
    unlocks accounts within a minute. While the database does not answer, each process counts for itself. The table
    contains keyed hashes, no address and no account.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()[:64]
        self._own = ProcessCounters(REMEMBERED_WINDOWS)
        self._next_sweep = monotonic() + SWEEP_SECONDS

    def add(self, limit: RateLimitItem, *who: str) -> WindowCount:
        own = self._own.add(_of_a_minute(limit), *who)
        if own.number > limit.amount:
            return own
        told = {"key": self._key(limit, who), "seconds": limit.get_expiry(), "most": MAX_NUMBER}
        try:
            self._sweep()
            rows = connections().shared.one_statement(_COUNT, told)
        except (psycopg.Error, DBAPIError, TenancyError) as error:
            log.warning("login_count_lost", error=str(error))
            return own
        number, seconds_left = rows[0]
        return WindowCount(number, time() + seconds_left)

    def take_back(self, limit: RateLimitItem, *who: str) -> None:
        self._own.take_back(_of_a_minute(limit), *who)
        try:
            connections().shared.one_statement(_TAKE_BACK, {"key": self._key(limit, who)})
        except (psycopg.Error, DBAPIError, TenancyError) as error:
            log.warning("login_count_lost", error=str(error))

    def clear(self, limit: RateLimitItem, *who: str) -> None:
        """What other processes have counted by themselves lasts for a minute at most."""
        self._own.clear(_of_a_minute(limit), *who)
        try:
            connections().shared.one_statement(_CLEAR, {"key": self._key(limit, who)})
        except (psycopg.Error, DBAPIError, TenancyError) as error:
            log.warning("login_count_lost", error=str(error))

    def _key(self, limit: RateLimitItem, who: tuple[str, ...]) -> bytes:
        return blake2b(limit.key_for(*who).encode(), key=self._secret, digest_size=16).digest()

    def _sweep(self) -> None:
        """Delete the counts of ended windows. Each process does so once a minute."""
        if monotonic() >= self._next_sweep:
            self._next_sweep = monotonic() + SWEEP_SECONDS
            connections().shared.one_statement(_SWEEP, ())


def _of_a_minute(limit: RateLimitItem) -> RateLimitItem:
    """The limit with a window of a minute, if its own is longer."""
    return limit if limit.get_expiry() <= OWN_SECONDS else RateLimitItemPerMinute(limit.amount)
