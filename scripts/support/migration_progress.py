"""The progress of a run of migrations: a live bar on a terminal, plain lines elsewhere.

It is printed on standard error, so that standard output has the report alone.
"""

from time import monotonic
from types import TracebackType
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from scripts.support.migration_plan import plan_lines
from tenant_schemas.migrations.history import Migrations, Outcome
from tenant_schemas.migrations.runner import Plan

_LINE_INTERVAL_SECONDS: Final = 5.0
_COLUMNS: Final = (
    TextColumn("Migrating"),
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("{task.fields[rate]:.0f}/s, {task.fields[failed]} failed"),
    TimeRemainingColumn(),
)


class MigrationProgress:
    """Shows the plan and counts the outcomes. With `is_quiet` it prints nothing. `planned_tenants` is known with the
    plan.
    """

    planned_tenants = 0

    def __init__(self, migrations: Migrations, *, is_quiet: bool) -> None:
        self._migrations = migrations
        self._console = Console(stderr=True, quiet=is_quiet, soft_wrap=True)
        self._bar = Progress(
            *_COLUMNS, console=self._console, transient=True, disable=is_quiet or not self._console.is_terminal
        )
        self._task = self._bar.add_task("", total=None, rate=0.0, failed=0)
        self._total = self._done = self._failed = 0
        self._started = self._last_line_at = monotonic()

    def __enter__(self) -> "MigrationProgress":
        self._bar.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._bar.stop()

    def show_plan(self, plan: Plan) -> None:
        """Print the plan and start the clock. Call it once, before the first tenant."""
        for line in plan_lines(self._migrations, plan):
            self._console.print(line, markup=False, highlight=False)
        self.planned_tenants = len(plan.tenant_migrations) + len(plan.without_steps)
        self._total = len(plan.tenant_migrations)
        self._started = self._last_line_at = monotonic()
        self._bar.update(self._task, total=self._total)

    def count(self, outcome: Outcome) -> None:
        """Count a tenant's outcome and show the new state."""
        if outcome.slug is None or not self._total:
            return
        self._done += outcome.attempts > 0 or outcome.was_skipped
        self._failed += outcome.has_failed
        rate = self._done / max(monotonic() - self._started, 0.001)
        self._bar.update(self._task, completed=self._done, rate=rate, failed=self._failed)
        if self._bar.disable and monotonic() - self._last_line_at > _LINE_INTERVAL_SECONDS:
            self._last_line_at = monotonic()
            left = (self._total - self._done) / max(rate, 0.001)
            line = f"{self._done}/{self._total} tenants, {rate:.0f}/s, {self._failed} failed, {left:.0f} s left"
            self._console.print(line, highlight=False)
