"""Requests at once: a tenant holds no more threads of a process than its slots, so that its slow work leaves others
theirs. One too many is refused at once, for one that waited would hold a thread too.
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


class Slots:
    """How many requests of each tenant this process is at."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._taken: Counter[UUID] = Counter()

    def take(self, environ: "WSGIEnvironment", tenant_id: UUID, most: int) -> None:
        """Hold a slot until this request's answer is closed. Raises TooManyConcurrentRequests."""
        with self._lock:
            if self._taken[tenant_id] >= most:
                raise TooManyConcurrentRequests(
                    f"This tenant has {most} requests under way here already; send this one again when one has ended."
                )
            self._taken[tenant_id] += 1
        environ[HELD] = (self, tenant_id)

    def taken(self, tenant_id: UUID) -> int:
        return self._taken[tenant_id]

    def give_back(self, tenant_id: UUID) -> None:
        with self._lock:
            self._taken[tenant_id] -= 1


class GiveBack:
    """WSGI middleware: gives a request's slot back when its answer is closed, however it ended, and only once.

    It is here and not in a hook of Flask, since an answer that is streamed outlives all of those.
    """

    def __init__(self, wsgi_app: "WSGIApplication") -> None:
        self._wsgi_app = wsgi_app

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        try:
            return _Answer(self._wsgi_app(environ, start_response), environ)
        except BaseException:
            _give_back(environ)
            raise


class _Answer:
    def __init__(self, body: Iterable[bytes], environ: "WSGIEnvironment") -> None:
        self._body = body
        self._environ = environ

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        """WSGI servers call it in any case, also when the client has gone."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            _give_back(self._environ)


def _give_back(environ: "WSGIEnvironment") -> None:
    held: tuple[Slots, UUID] | None = environ.pop(HELD, None)
    if held is not None:
        slots, tenant_id = held
        slots.give_back(tenant_id)
