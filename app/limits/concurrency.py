"""Concurrent requests of one process: which request runs, which waits, which is refused.

A waiting request occupies a thread, so a process has more threads than slots (`scripts/serve.py`), and the number of
waiting requests is bounded too.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Final
from uuid import UUID

import structlog

from app.config import Settings
from app.errors import TooManyRequests, Unavailable
from app.limits.fair_queue import FairQueue, QueueFull
from app.metrics.definitions import LIMITED
from app.metrics.observations import count

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = structlog.get_logger(__name__)

HELD: Final = "app.limits.slot"
STARTED: Final = "app.limits.started"
# The group of log-ins and password changes, which belong to no tenant. Each takes about 0.1 s of a core and 64 MiB.
LOG_INS: Final = UUID(int=0)
# The group of authenticated callers who use no tenant, for instance to ask who they are.
SHARED_SIDE: Final = UUID(int=1)
# The group of log-ins from devices that have logged in before, and of callers who prove their password again.
KNOWN_LOG_INS: Final = UUID(int=2)
LOG_INS_AT_ONCE: Final = 2
LOG_IN_WAIT_SECONDS: Final = 1.0

# How the log and the caller are told whose slots are used up.
_NAMES: Final = {"caller": "caller", "group": "tenant", "process": "process", "log_ins": "log-ins"}
_DETAILS: Final = {
    "caller": "You have too many requests in progress; send the next when one has ended.",
    "group": "This tenant has too many requests in progress; try again shortly.",
    "process": "The service has too many requests in progress; try again shortly.",
    "log_ins": "Too many log-ins are in progress; try again shortly.",
}


class TooManyConcurrentRequests(TooManyRequests):
    """Too many requests of this caller or tenant run at once, and no slot became free in time."""

    code = "too_many_concurrent_requests"


class DeadlineExceeded(Unavailable):
    """The request's time was over before it was done."""

    code = "deadline_exceeded"


@dataclass(frozen=True, slots=True)
class Share:
    """A tenant's slots: `share` while other tenants want some, `most` in any case."""

    share: int
    most: int


class ConcurrencySlots:
    """The slots of this process. `take` is called once in a request; its WSGI environment holds the slot."""

    def __init__(self, settings: Settings) -> None:
        self._queue = FairQueue(settings.request_concurrency, settings.request_queue)
        self._wait_seconds = settings.queue_seconds
        self._request_seconds = settings.request_seconds

    def take(self, environ: "WSGIEnvironment", tenant_id: UUID, caller_id: UUID, share: Share) -> None:
        """Reserve a slot until the response is closed. Raises TooManyConcurrentRequests or DeadlineExceeded."""
        left_seconds = environ.get(STARTED, monotonic()) + self._request_seconds - monotonic()
        if left_seconds <= 0:
            raise DeadlineExceeded("The request's time was over before it began to run; send it again.")
        self._take(tenant_id, caller_id, share, min(self._wait_seconds, left_seconds))
        environ[HELD] = (self, tenant_id, caller_id)

    def log_in(self, address: str) -> AbstractContextManager[None]:
        """Reserve a slot for the block, which hashes a password. Raises TooManyConcurrentRequests."""
        return self._hashing(LOG_INS, address, min(self._wait_seconds, LOG_IN_WAIT_SECONDS))

    def known_log_in(self, user: str) -> AbstractContextManager[None]:
        """As `log_in`, for a user at a known device, or logged in: strangers take none of these slots. Turns go by the
        user, who can make any number of devices and sessions.
        """
        return self._hashing(KNOWN_LOG_INS, user, self._wait_seconds)

    @contextmanager
    def _hashing(self, group: UUID, caller: str, wait_seconds: float) -> Iterator[None]:
        self._take(group, caller, Share(LOG_INS_AT_ONCE, LOG_INS_AT_ONCE), wait_seconds)
        try:
            yield
        finally:
            self._queue.release(group, caller)

    def running(self, tenant_id: UUID) -> int:
        return self._queue.running(tenant_id)

    def waiting(self, tenant_id: UUID) -> int:
        return self._queue.waiting(tenant_id)

    def release(self, tenant_id: UUID, caller_id: UUID) -> None:
        self._queue.release(tenant_id, caller_id)

    def _take(self, group: UUID, caller: UUID | str, share: Share, wait_seconds: float) -> None:
        try:
            self._queue.take(group, caller, share=share.share, most=share.most, wait_seconds=wait_seconds)
        except QueueFull as full:
            whose = "log_ins" if group in {LOG_INS, KNOWN_LOG_INS} else full.limit
            limit_of = str(group if whose in {"group", "process"} else caller)
            count(LIMITED, "concurrency", _NAMES[whose])
            structlog.contextvars.bind_contextvars(limit=f"concurrency of the {_NAMES[whose]}", limit_of=limit_of)
            raise TooManyConcurrentRequests(_DETAILS[whose]) from None


class ReleaseSlot:
    """WSGI middleware that notes when a request begins, releases its slot exactly once, when its response is closed,
    and ends a response that is sent for longer than `stream_seconds`.

    It is no Flask hook, because a streamed response outlives all of Flask's hooks.
    """

    def __init__(self, wsgi_app: "WSGIApplication", stream_seconds: float) -> None:
        self._wsgi_app = wsgi_app
        self._stream_seconds = stream_seconds

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        environ[STARTED] = started = monotonic()
        try:
            return _Answer(self._wsgi_app(environ, start_response), environ, started + self._stream_seconds)
        except BaseException:
            release_slot(environ)
            raise


class _Answer:
    def __init__(self, body: Iterable[bytes], environ: "WSGIEnvironment", ends_at: float) -> None:
        self._body = body
        self._environ = environ
        self._ends_at = ends_at

    def __iter__(self) -> Iterator[bytes]:
        """Raises DeadlineExceeded to the WSGI server, which closes the connection: the client sees that the response
        is incomplete.
        """
        for number, piece in enumerate(self._body):
            if number and monotonic() > self._ends_at:
                log.warning("stream_ended", reason="STREAM_SECONDS have passed", path=self._environ.get("PATH_INFO"))
                raise DeadlineExceeded("The response took longer than STREAM_SECONDS.")
            yield piece

    def close(self) -> None:
        """WSGI servers always call it, also after the client has disconnected."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            release_slot(self._environ)


def release_slot(environ: "WSGIEnvironment") -> None:
    """Return the request's slot, if it has one."""
    held: tuple[ConcurrencySlots, UUID, UUID] | None = environ.pop(HELD, None)
    if held is not None:
        slots, tenant_id, caller_id = held
        slots.release(tenant_id, caller_id)
