"""Work on tenants in turn, by a fixed number of threads; or on their endpoints.

A tenant that is offered waits at the end of the queue, once. It is never worked on by two threads of this queue at
once. A tenant with more to do than one turn allows goes to the end again, behind all others. A tenant whose turn failed
pauses. All this holds for each endpoint, where the queue is one of endpoints.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable
from threading import Condition, Thread
from typing import Final, Generic, Protocol, TypeVar

import structlog

from app.relay.pauses import Pauses

log = structlog.get_logger(__name__)


class HasTurns(Protocol):
    """A tenant, or an endpoint of a tenant. `slug` is the tenant's."""

    @property
    def id(self) -> Hashable: ...

    @property
    def slug(self) -> str: ...


Item = TypeVar("Item", bound=HasTurns)


class Turns(Generic[Item]):
    """A queue and its threads. `work` is one turn, and returns whether there is more to do. `may_start` tells whether
    an item may have its turn beside those that have theirs now; it must allow any item if there is none. Thread-safe.
    """

    def __init__(
        self,
        name: str,
        threads: int,
        work: Callable[[Item], bool],
        pauses: Pauses | None = None,
        may_start: Callable[[Item, Collection[Item]], bool] = lambda *_: True,
    ) -> None:
        self._name: Final = name
        self._work: Final = work
        self._pauses: Final = pauses or Pauses()
        self._may_start: Final = may_start
        self._waiting: OrderedDict[Hashable, Item] = OrderedDict()
        self._running: dict[Hashable, Item] = {}
        self._is_stopping = False
        self._changed = Condition()
        self._threads = [Thread(target=self._run, name=f"{name}-{number}", daemon=True) for number in range(threads)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def offer(self, item: Item) -> None:
        """Queue the item. One that waits already keeps its place, and its turn is for the registry row given last: it
        may have been renamed or restored meanwhile. One that is worked on gets one more turn afterwards, and one that
        pauses none.
        """
        if self._pauses.is_paused(item.id):
            return
        with self._changed:
            is_new = item.id not in self._waiting
            self._waiting[item.id] = item
            if is_new:  # Or idle threads would look through a long queue at each offer.
                self._changed.notify_all()

    def stop(self, seconds: float) -> bool:
        """Let each thread finish its turn and take no other. False if one of them is not done within these seconds."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._running, seconds)

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait until nothing waits or is worked on. False if that takes longer than these seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._running, seconds)

    def _run(self) -> None:
        while item := self._take():
            has_more = False
            try:
                has_more = self._work(item)
                self._pauses.clear(item.id)
            except Exception:  # One tenant's failure is its own. A later sweep offers the tenant again.
                seconds = self._pauses.add(item.id)
                log.exception("relay_turn_failed", work=self._name, tenant=item.slug, pause_seconds=seconds)
            self._give_back(item, has_more=has_more)

    def _take(self) -> Item | None:
        """The item that has waited longest of those that may have their turn. None when the work is to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopping or self._next() is not None)
            item = self._next()
            if self._is_stopping or item is None:
                return None
            del self._waiting[item.id]
            self._running[item.id] = item
            return item

    def _next(self) -> Item | None:
        running = self._running.values()
        free = (item for key, item in self._waiting.items() if key not in self._running)
        return next((item for item in free if self._may_start(item, running)), None)

    def _give_back(self, item: Item, *, has_more: bool) -> None:
        with self._changed:
            del self._running[item.id]
            if has_more:
                self._waiting.setdefault(item.id, item)
            self._changed.notify_all()
