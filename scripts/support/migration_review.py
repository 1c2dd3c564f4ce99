"""Static review of the SQL of revisions. squawk (settings in .squawk.toml) finds statements that block or break running
clients, `tenant_schemas.sql_lint.rules` finds statements that this project does not allow.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from app.config import ROOT
from app.tenancy import MIGRATIONS
from tenant_schemas.migrations.history import History, Step
from tenant_schemas.sql_lint.lexer import statements_of
from tenant_schemas.sql_lint.rules import violations_of

# The first revisions to review: the ones before are frozen, and were reviewed by people.
FIRST_REVIEWED: Final = {History.SHARED: "0004", History.TENANT: "0009"}


@dataclass(frozen=True, slots=True)
class Violation:
    """A statement of a revision that breaks a rule. `where` is the revision, `message` the rule in words."""

    where: str
    rule: str
    message: str
    statement: str

    def __str__(self) -> str:
        return f"{self.where}: {self.rule}: {self.message}\n    {self.statement}"


class SquawkMissing(Exception):
    """squawk is not installed: without it no migration is drafted or passes the check."""

    def __str__(self) -> str:
        return "squawk is not installed: run `pip install --editable '.[dev]'`."


def review_histories() -> list[Violation]:
    """The violations in the revisions that are not frozen. Raises SquawkMissing."""
    return [
        violation
        for history, first in FIRST_REVIEWED.items()
        for violation in review_steps(history, MIGRATIONS.steps(history, None), f"{history.name.lower()} ", first=first)
    ]


def review_steps(history: History, steps: Sequence[Step], prefix: str, *, first: str) -> list[Violation]:
    """The violations in a history's revisions, from revision `first` on. `steps` are those of the whole history.
    `prefix` and the revision are the printed name. Raises SquawkMissing.
    """
    texts: dict[str, str] = {}
    before: dict[str, str] = {}
    earlier = ""
    for step in steps:
        if step.revision >= first:
            texts[prefix + step.revision], before[prefix + step.revision] = step.sql, earlier
        earlier += step.sql
    return review(texts, before, is_shared=history is History.SHARED)


def review(
    texts: Mapping[str, str], before: Mapping[str, str] = MappingProxyType({}), *, is_shared: bool = False
) -> list[Violation]:
    """The violations in these SQL texts of one history; the keys are the printed names. `before` has under the same
    names the SQL that runs before each text. Raises SquawkMissing.
    """
    found = _squawk(texts)
    for where, sql in texts.items():
        rule_violations = violations_of(sql, before.get(where, ""), is_shared=is_shared)
        found += [Violation(where, "rule", each.rule, each.statement) for each in rule_violations]
    return sorted(found, key=lambda violation: violation.where)


def find_squawk() -> str:
    """The path of squawk: beside this Python, else on the PATH. Raises SquawkMissing."""
    found = shutil.which("squawk", path=str(Path(sys.executable).parent)) or shutil.which("squawk")
    if not found:
        raise SquawkMissing
    return found


def _squawk(texts: Mapping[str, str]) -> list[Violation]:
    squawk = find_squawk()
    with tempfile.TemporaryDirectory(prefix="review-") as folder:
        names = {Path(folder) / f"{number}.sql": where for number, where in enumerate(texts)}
        for file, where in names.items():
            file.write_text(texts[where], encoding="utf-8")
        command = [squawk, "--config", str(ROOT / ".squawk.toml"), "--reporter", "json", *map(str, names)]
        done = subprocess.run(command, capture_output=True, text=True, check=False) if names else None
    if done is None:
        return []
    if done.returncode not in (0, 1):
        raise RuntimeError(f"squawk ended with {done.returncode}: {done.stderr}")
    return [_violation(texts, names[Path(report["file"])], report) for report in json.loads(done.stdout)]


def _violation(texts: Mapping[str, str], where: str, report: Mapping[str, Any]) -> Violation:
    lines = texts[where].splitlines(keepends=True)
    offset = len("".join(lines[: report["line"]])) + report["column"]
    begun = [statement.summary for statement in statements_of(texts[where]) if statement.tokens[0].start <= offset]
    message = f"{report['message']} {report['help'] or ''}".strip()
    return Violation(where, report["rule_name"], message, begun[-1] if begun else "")
