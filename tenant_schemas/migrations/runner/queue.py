"""The queue of tenant migrations that the workers of a run share. A migration to retry goes to the back, with a
delay.
"""

from collections import deque
from collections.abc import Iterable
from threading import Condition
from time import monotonic

from tenant_schemas.migrations.runner.plan import TenantMigration


class Queue:
    """A thread-safe queue that closes when the failure budget is exceeded."""

    def __init__(
        self, migrations: Iterable[TenantMigration], workers: int, failure_budget: float = float("inf")
    ) -> None:
        self._workers = workers
        self._failures_left = failure_budget
        self._ready = deque(migrations)
        self._delayed: list[tuple[float, TenantMigration]] = []
        self._changed = Condition()
        self._is_closed = False

    def take(self, most: int) -> list[TenantMigration]:
        """The next migrations, at most `most`, all with the same steps; one alone if it must. Waits for delayed
        ones. Empty when nothing is left or the queue is closed.
        """
        with self._changed:
            while not self._is_closed:
                self._release_due()
                if self._ready:
                    return self._next(most)
                if not self._delayed:
                    break
                self._changed.wait(max(0.0, min(moment for moment, _ in self._delayed) - monotonic()))
            return []

    def put_back(self, migration: TenantMigration, delay_seconds: float) -> None:
        with self._changed:
            self._delayed.append((monotonic() + delay_seconds, migration))
            self._changed.notify_all()

    def put_first(self, migrations: Iterable[TenantMigration]) -> None:
        """Return migrations that were taken and not started."""
        with self._changed:
            self._ready.extendleft(reversed(list(migrations)))
            self._changed.notify_all()

    def note_failure(self) -> None:
        """Count a failure. If the budget is exceeded, the queue closes; migrations that have started still finish."""
        with self._changed:
            self._failures_left -= 1
            if self._failures_left < 0:
                self._is_closed = True
                self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def close(self) -> list[TenantMigration]:
        """Close the queue and return the migrations that are left. A second call returns none."""
        with self._changed:
            self._is_closed = True
            left = [*self._ready, *(migration for _, migration in self._delayed)]
            self._ready.clear()
            self._delayed.clear()
            self._changed.notify_all()
            return left

    def _release_due(self) -> None:
        now = monotonic()
        self._ready.extend(migration for moment, migration in self._delayed if moment <= now)
        self._delayed = [(moment, migration) for moment, migration in self._delayed if moment > now]

    def _next(self, most: int) -> list[TenantMigration]:
        most = min(most, len(self._ready) // self._workers)  # So that one worker does not take all of the last ones.
        batch = [self._ready.popleft()]
        # PostgreSQL parses a whole message first: a syntax error in one step would fail tenants with other steps too.
        while self._ready and len(batch) < most and self._ready[0].steps == batch[0].steps and not batch[0].goes_alone:
            batch.append(self._ready.popleft())
        return batch
