"""Concurrent requests of a tenant in one process. The limit keeps threads free for other tenants. A request above it is
refused at once, because a waiting request would occupy a thread too.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from threading import Lock
from typing import TYPE_CHECKING
from uuid import UUID

from app.errors import TooManyRequests

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

HELD = "app.limits.slot"


class TooManyConcurrentRequests(TooManyRequests):
    code = "too_many_concurrent_requests"


class ConcurrencySlots:
    """The number of running requests of each tenant in this process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._taken: Counter[UUID] = Counter()

    def take(self, environ: "WSGIEnvironment", tenant_id: UUID, most: int) -> None:
        """Reserve a slot until the request's response is closed. Raises TooManyConcurrentRequests."""
        with self._lock:
            if self._taken[tenant_id] >= most:
                raise TooManyConcurrentRequests(
                    f"This tenant has {most} requests running in this process; try again when one has ended."
                )
            self._taken[tenant_id] += 1
        environ[HELD] = (self, tenant_id)

    def taken(self, tenant_id: UUID) -> int:
        return self._taken[tenant_id]

    def release(self, tenant_id: UUID) -> None:
        with self._lock:
            self._taken[tenant_id] -= 1


class ReleaseSlot:
    """WSGI middleware that releases a request's slot exactly once, when its response is closed.

    It is no Flask hook, because a streamed response outlives all of Flask's hooks.
    """

    def __init__(self, wsgi_app: "WSGIApplication") -> None:
        self._wsgi_app = wsgi_app

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        try:
            return _Answer(self._wsgi_app(environ, start_response), environ)
        except BaseException:
            _release(environ)
            raise


class _Answer:
    def __init__(self, body: Iterable[bytes], environ: "WSGIEnvironment") -> None:
        self._body = body
        self._environ = environ

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        """WSGI servers always call it, also after the client has disconnected."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            _release(self._environ)


def _release(environ: "WSGIEnvironment") -> None:
    held: tuple[ConcurrencySlots, UUID] | None = environ.pop(HELD, None)
    if held is not None:
        slots, tenant_id = held
        slots.release(tenant_id)
