"""What a person sees of a run of migrations while it goes on: a live bar on a terminal, plain lines elsewhere.

All of it goes to standard error, so that the report stands alone.
"""

from time import monotonic
from types import TracebackType
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from scripts.support.migration_plan import plan_lines
from tenant_schemas.migrations.history import Migrations, Outcome
from tenant_schemas.migrations.runner import Plan

_LINE_EVERY_SECONDS: Final = 5.0
_COLUMNS: Final = (
    TextColumn("Migrating"),
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("{task.fields[rate]:.0f}/s, {task.fields[failed]} failed"),
    TimeRemainingColumn(),
)


class Watch:
    """Told of the plan and of each outcome. With `is_quiet` it says nothing."""

    def __init__(self, migrations: Migrations, *, is_quiet: bool) -> None:
        self._migrations = migrations
        self._console = Console(stderr=True, quiet=is_quiet, soft_wrap=True)
        self._bar = Progress(
            *_COLUMNS, console=self._console, transient=True, disable=is_quiet or not self._console.is_terminal
        )
        self._task = self._bar.add_task("", total=None, rate=0.0, failed=0)
        self._total = self._done = self._failed = 0
        self._started = self._said = monotonic()

    def __enter__(self) -> "Watch":
        self._bar.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._bar.stop()

    def plan(self, plan: Plan) -> None:
        """What is going to be done, before it is."""
        for line in plan_lines(self._migrations, plan):
            self._console.print(line, markup=False, highlight=False)
        self._total = len(plan.tenant_migrations)
        self._started = self._said = monotonic()
        self._bar.update(self._task, total=self._total)

    def tell(self, outcome: Outcome) -> None:
        if outcome.slug is None or not self._total:
            return
        self._done += outcome.attempts > 0 or outcome.was_skipped
        self._failed += outcome.has_failed
        rate = self._done / max(monotonic() - self._started, 0.001)
        self._bar.update(self._task, completed=self._done, rate=rate, failed=self._failed)
        if self._bar.disable and monotonic() - self._said > _LINE_EVERY_SECONDS:
            self._said = monotonic()
            left = (self._total - self._done) / max(rate, 0.001)
            said = f"{self._done}/{self._total} tenants, {rate:.0f}/s, {self._failed} failed, {left:.0f} s left"
            self._console.print(said, highlight=False)
