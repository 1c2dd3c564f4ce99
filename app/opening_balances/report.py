"""The result of an import or a comparison: counts and sums by currency, and each member's line as CSV."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from app.money import format_minor
from app.opening_balances.rows import WrongFile
from app.opening_balances.service import Outcome
from app.sql_refusals import code_of
from tenant_schemas.csv_writer import CsvWriter

COLUMNS: Final = ("user", "email", "currency", "calculated", "posted", "difference", "refused")
WRONG_ROW: Final = "wrong_row"
_KEPT_DIFFERENCES: Final = 20


@dataclass(slots=True)
class Totals:
    """The totals of one currency. Amounts of different currencies are never added."""

    users: int = 0
    posted: int = 0
    posted_minor: int = 0
    unchanged: int = 0
    limits_raised: int = 0
    calculated_minor: int = 0
    standing_minor: int = 0
    off: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        self.users += 1
        self.posted += outcome.moved_minor != 0
        self.posted_minor += outcome.moved_minor
        self.unchanged += outcome.moved_minor == 0 and outcome.refused_by is None
        self.limits_raised += outcome.limit_raised
        self.calculated_minor += outcome.calculated_minor
        self.standing_minor += outcome.posted_minor
        self.off += outcome.difference_minor != 0
        if outcome.refused_by:
            self.refused[refusal(outcome)] += 1


@dataclass(slots=True)
class Report:
    """The result of one run in one tenant, so far."""

    by_currency: dict[str, Totals] = field(default_factory=dict)
    differences: list[Outcome] = field(default_factory=list)  # only the first

    def add(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            self.by_currency.setdefault(outcome.currency, Totals()).add(outcome)
            if outcome.difference_minor and len(self.differences) < _KEPT_DIFFERENCES:
                self.differences.append(outcome)

    @property
    def off(self) -> int:
        """The number of balances that differ from the posted ones."""
        return sum(totals.off for totals in self.by_currency.values())

    def posted(self) -> Iterator[str]:
        """The lines of an import's report."""
        for currency, totals in sorted(self.by_currency.items()):
            posted = f"{totals.posted} posted ({format_minor(totals.posted_minor, currency)})"
            yield f"{currency}: {posted}, {totals.unchanged} unchanged, {totals.limits_raised} limits raised"
            yield from (f"{currency}: {count} refused: {code}" for code, count in sorted(totals.refused.items()))

    def compared(self) -> Iterator[str]:
        """The lines of a comparison's report, with the first differences."""
        for currency, totals in sorted(self.by_currency.items()):
            sums = (format_minor(minor, currency) for minor in (totals.calculated_minor, totals.standing_minor))
            yield "{}: {} users, {} calculated, {} posted, {} differ".format(currency, totals.users, *sums, totals.off)
        for outcome in self.differences:
            calculated, posted, difference = _amounts(outcome)
            yield (
                f"  {outcome.user_id} {outcome.currency}: calculated {calculated}, posted {posted},"
                f" difference {difference} {refusal(outcome)}".rstrip()
            )
        if self.off > len(self.differences):
            yield f"  and {self.off - len(self.differences)} more"


def refusal(outcome: Outcome) -> str:
    """The stable code of the refusal; empty without one."""
    if outcome.refused_by is None:
        return ""
    return code_of(outcome.refused_by) or outcome.refused_by


def _amounts(outcome: Outcome) -> tuple[str, str, str]:
    minor = (outcome.calculated_minor, outcome.posted_minor, outcome.difference_minor)
    calculated, posted, difference = (format_minor(amount, outcome.currency) for amount in minor)
    return calculated, posted, difference


class ReconciliationFile:
    """The reconciliation as CSV."""

    def __init__(self, file: IO[str] | None) -> None:
        self._writer = None if file is None else CsvWriter(file)
        self._write(COLUMNS)

    def write(self, outcome: Outcome, email: str) -> None:
        amounts = _amounts(outcome)
        self._write((str(outcome.user_id), email, outcome.currency, *amounts, refusal(outcome)))

    def left_out(self, user_id: str, email: str) -> None:
        self._write((user_id, email, "", "", "", "", WRONG_ROW))

    def _write(self, cells: Sequence[str]) -> None:
        if self._writer is not None:
            self._writer.write(cells)


@contextmanager
def reconciliation_file(path: Path | None, *sources: Path | None) -> Iterator[ReconciliationFile]:
    """The file of --report. It appears only when the run succeeds. Without a path nothing is written. Raises WrongFile
    if it is one of the source files.
    """
    if path is None:
        yield ReconciliationFile(None)
        return
    if any(source and path.exists() and path.samefile(source) for source in sources):
        raise WrongFile(f"{path} is a source file: write the report to another file.")
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        yield ReconciliationFile(file)
    partial.replace(path)
