"""Static review of the SQL of revisions: squawk finds statements that block or break, `tenant_schemas.sql_lint.rules`
finds statements that this project does not allow. squawk's settings are in .squawk.toml.
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

# The revisions before these are frozen and were read by people.
FIRST_REVIEWED: Final = {History.SHARED: "0004", History.TENANT: "0009"}


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong with one statement of a revision, and the rule that says so."""

    where: str
    rule: str
    what: str
    statement: str

    def __str__(self) -> str:
        return f"{self.where}: {self.rule}: {self.what}\n    {self.statement}"


class SquawkMissing(Exception):
    """It comes with the extra `dev`, and nothing is drafted or passed without it."""

    def __str__(self) -> str:
        return "squawk is not installed: run `pip install --editable '.[dev]'`."


def review_histories() -> list[Complaint]:
    """Everything wrong with the revisions that are not frozen. Raises SquawkMissing."""
    return [
        complaint
        for history, first in FIRST_REVIEWED.items()
        for complaint in review_steps(MIGRATIONS.steps(history, None), f"{history.name.lower()} ", first=first)
    ]


def review_steps(steps: Sequence[Step], prefix: str, *, first: str) -> list[Complaint]:
    """Everything wrong with a history's revisions from the first one to review on. `steps` begin with the history.
    Raises SquawkMissing.
    """
    texts: dict[str, str] = {}
    before: dict[str, str] = {}
    earlier = ""
    for step in steps:
        if step.revision >= first:
            texts[prefix + step.revision], before[prefix + step.revision] = step.sql, earlier
        earlier += step.sql
    return review(texts, before)


def review(texts: Mapping[str, str], before: Mapping[str, str] = MappingProxyType({})) -> list[Complaint]:
    """Everything wrong with these texts, which are named as people shall see them. `before` has the SQL that runs
    before a text, under the text's name. Raises SquawkMissing.
    """
    found = _squawk(texts)
    for where, sql in texts.items():
        violations = violations_of(sql, before.get(where, ""))
        found += [Complaint(where, "sql-lint", violation.rule, violation.statement) for violation in violations]
    return sorted(found, key=lambda complaint: complaint.where)


def find_squawk() -> str:
    """Its path, beside this Python first. Raises SquawkMissing."""
    found = shutil.which("squawk", path=str(Path(sys.executable).parent)) or shutil.which("squawk")
    if not found:
        raise SquawkMissing
    return found


def _squawk(texts: Mapping[str, str]) -> list[Complaint]:
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
    return [_complaint(texts, names[Path(told["file"])], told) for told in json.loads(done.stdout)]


def _complaint(texts: Mapping[str, str], where: str, told: Mapping[str, Any]) -> Complaint:
    lines = texts[where].splitlines(keepends=True)
    offset = len("".join(lines[: told["line"]])) + told["column"]
    begun = [statement.summary for statement in statements_of(texts[where]) if statement.tokens[0].start <= offset]
    what = f"{told['message']} {told['help'] or ''}".strip()
    return Complaint(where, told["rule_name"], what, begun[-1] if begun else "")
