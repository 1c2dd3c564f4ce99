"""What is still to be done, shared by the workers of a run. Whatever must be tried again goes to the back."""

from collections import deque
from collections.abc import Iterable
from threading import Condition
from time import monotonic

from tenant_schemas.migrations.runner.plan import TenantMigration


class Queue:
    """Safe to share between threads."""

    def __init__(self, works: Iterable[TenantMigration], workers: int, failure_budget: float = float("inf")) -> None:
        self._workers = workers
        self._failures_left = failure_budget
        self._ready = deque(works)
        self._delayed: list[tuple[float, TenantMigration]] = []
        self._changed = Condition()
        self._is_closed = False

    def take(self, most: int) -> list[TenantMigration]:
        """The next ones of one way, waiting for those that are delayed; none when all is done or the queue is closed.
        What runs Python goes alone.
        """
        with self._changed:
            while not self._is_closed:
                self._wake_delayed()
                if self._ready:
                    return self._next(most)
                if not self._delayed:
                    break
                self._changed.wait(max(0.0, min(moment for moment, _ in self._delayed) - monotonic()))
            return []

    def put_back(self, work: TenantMigration, delay_seconds: float) -> None:
        with self._changed:
            self._delayed.append((monotonic() + delay_seconds, work))
            self._changed.notify_all()

    def put_first(self, works: Iterable[TenantMigration]) -> None:
        """Give back what was taken and not begun."""
        with self._changed:
            self._ready.extendleft(reversed(list(works)))
            self._changed.notify_all()

    def note_failure(self) -> None:
        """One more than the budget, and no more are given out. Those under way are finished."""
        with self._changed:
            self._failures_left -= 1
            if self._failures_left < 0:
                self._is_closed = True
                self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def close(self) -> list[TenantMigration]:
        """Give out no more, and say what is left, once."""
        with self._changed:
            self._is_closed = True
            left = [*self._ready, *(work for _, work in self._delayed)]
            self._ready.clear()
            self._delayed.clear()
            self._changed.notify_all()
            return left

    def _wake_delayed(self) -> None:
        now = monotonic()
        self._ready.extend(work for moment, work in self._delayed if moment <= now)
        self._delayed = [(moment, work) for moment, work in self._delayed if moment > now]

    def _next(self, most: int) -> list[TenantMigration]:
        most = min(most, len(self._ready) // self._workers)  # So that the last ones don't all wait for one worker.
        taken = [self._ready.popleft()]
        # PostgreSQL parses a whole message first, so a fault of one way would be the others' too.
        while self._ready and len(taken) < most and self._ready[0].steps == taken[0].steps and not taken[0].runs_python:
            taken.append(self._ready.popleft())
        return taken
