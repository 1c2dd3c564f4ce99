"""Renders a history as SQL: each revision once, with the same text for every schema.

The text names no schema and no role: it runs with the search_path of one schema, and grants to the role in the setting
`tenant_schemas.tenant_role`. A revision that must read a schema to know what to do sets `runs_python = True` in its
file, and Alembic runs it in each schema. It may also set `checks`: queries that must return no row after it has run. A
revision of one CREATE or DROP INDEX CONCURRENTLY sets `concurrently = True`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from io import StringIO
from pathlib import Path
from threading import Lock
from typing import Any

from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory

from tenant_schemas.errors import RevisionRefused
from tenant_schemas.migrations.concurrent_index import ConcurrentIndex, read_concurrent_index
from tenant_schemas.sql_lint.lexer import statements_of

# Alembic's `op` is a module global, so only one revision may run at a time in a process.
_op_lock = Lock()
_TRANSACTION_CONTROL = ("abort", "begin", "commit", "end", "prepare", "release", "rollback", "savepoint", "start")


class History(StrEnum):
    """The two histories; the value is the section of setup.cfg."""

    SHARED = "alembic:shared"
    TENANT = "alembic"


@dataclass(frozen=True, slots=True)
class Step:
    """One revision, up or down: from `before` to `after`; None stands for a schema without a revision. `sql` is empty
    for a revision that runs Python. A revision with a `concurrent` index has the plain statement as its `sql`.
    """

    revision: str
    title: str
    before: str | None
    after: str | None
    sql: str
    checks: tuple[str, ...]
    python: Callable[[], None] | None
    concurrent: ConcurrentIndex | None = None

    @property
    def runs_python(self) -> bool:
        return self.python is not None


def legs_of(steps: Sequence[Step]) -> tuple[tuple[Step, ...], ...]:
    """The steps in groups that are committed together: each with a concurrent index alone, and those between. A new
    schema's steps are one group, because its tables have no writers yet.
    """
    legs: list[tuple[Step, ...]] = []
    is_new = bool(steps) and steps[0].before is None
    for step in steps:
        if legs and (is_new or not (step.concurrent or legs[-1][-1].concurrent)):
            legs[-1] += (step,)
        else:
            legs.append((step,))
    return tuple(legs)


@dataclass(frozen=True, slots=True)
class LinearHistory:
    """The revisions of one history, the first one first. Each is rendered once."""

    revisions: tuple[Script, ...]

    @property
    def head(self) -> str | None:
        return self.revisions[-1].revision if self.revisions else None

    def steps(self, at: str | None, to: str | None) -> tuple[Step, ...]:
        """The steps from one revision to another, up or down. Raises RevisionRefused for a revision that is not in this
        history or has no downgrade.
        """
        start, end = self._index(at), self._index(to)
        if start <= end:
            return tuple(_step(script) for script in self.revisions[start:end])
        return tuple(_step_back(script) for script in reversed(self.revisions[end:start]))

    def is_older_than(self, revision: str | None) -> bool:
        """Whether a schema's revision comes after this history: revisions are numbered."""
        head, at = self.head or "", revision or ""
        return head.isdecimal() and at.isdecimal() and int(head) < int(at)

    def _index(self, revision: str | None) -> int:
        """The number of revisions up to and including this one."""
        if revision is None:
            return 0
        for index, script in enumerate(self.revisions, start=1):
            if script.revision == revision:
                return index
        raise RevisionRefused(f"Revision {revision} is not in this history, which ends at {self.head}.")


def read_history(setup_cfg: Path, history: History) -> LinearHistory:
    """A history of a setup.cfg; its files are read again only if one has changed. Raises Alembic's CommandError or
    RevisionRefused if the history is not linear.
    """
    folder = _folder(setup_cfg, history)
    stamp = tuple(sorted((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in folder.glob("*.*")))
    return _read(folder, stamp)


@lru_cache(maxsize=16)
def _folder(setup_cfg: Path, history: History) -> Path:
    return Path(alembic_config(setup_cfg, history).get_main_option("version_locations") or "")


def alembic_config(setup_cfg: Path, history: History) -> Config:
    """Alembic's configuration for one history, with absolute paths."""
    config = Config(setup_cfg, ini_section=history)
    for option in ("script_location", "version_locations"):
        config.set_main_option(option, str(setup_cfg.parent / (config.get_main_option(option) or "")))
    return config


@lru_cache(maxsize=16)
def _read(folder: Path, _: tuple[Any, ...]) -> LinearHistory:
    directory = ScriptDirectory(str(folder.parent), version_locations=[str(folder)])
    head = directory.get_current_head()
    history = LinearHistory(tuple(directory.walk_revisions("base", head))[::-1] if head else ())
    for before, script in zip((None, *history.revisions), history.revisions, strict=False):
        if script.down_revision != (before and before.revision):
            raise RevisionRefused(
                f"Revision {script.revision} does not follow {before and before.revision}: the history must be linear. "
                "Correct its down_revision."
            )
    return history


@lru_cache(maxsize=256)
def _step(script: Script) -> Step:
    before = script.down_revision
    return _make_step(script, script.module.upgrade, before if isinstance(before, str) else None, script.revision)


@lru_cache(maxsize=256)
def _step_back(script: Script) -> Step:
    before = script.down_revision
    return _make_step(script, script.module.downgrade, script.revision, before if isinstance(before, str) else None)


def _make_step(script: Script, run: Callable[[], None], before: str | None, after: str | None) -> Step:
    runs_python = bool(getattr(script.module, "runs_python", False))
    # Checks apply after the upgrade of a revision, not after its downgrade.
    checks = tuple(getattr(script.module, "checks", ())) if after == script.revision else ()
    sql, concurrent = "" if runs_python else _render(script, run), None
    if getattr(script.module, "concurrently", False):
        concurrent = read_concurrent_index(script.revision, sql, checks)
        sql = concurrent.plain_sql
    return Step(script.revision, script.doc, before, after, sql, checks, run if runs_python else None, concurrent)


def _render(script: Script, run: Callable[[], None]) -> str:
    text = StringIO()
    # With the paramstyle `named`, a percent sign is not doubled.
    offline = MigrationContext.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},
        opts={"as_sql": True, "output_buffer": text},
    )
    # On a line of its own, so that a comment at the end of a statement does not comment the semicolon out.
    offline.impl.command_terminator = "\n;"
    _refuse_tabs(script)
    try:
        with alembic_operations(offline):
            run()
    except NotImplementedError as error:
        raise RevisionRefused(f"Revision {script.revision} can't be undone. {error}") from error
    except Exception as error:
        raise RevisionRefused(
            f"Revision {script.revision} can't be rendered as SQL: {type(error).__name__}: {error}. "
            "If it must read a schema to know what to do, set `runs_python = True` in its file."
        ) from error
    _refuse_transaction_control(script, text.getvalue())
    return text.getvalue()


def _refuse_tabs(script: Script) -> None:
    """Raises RevisionRefused for a tab, which Alembic replaces by spaces, even inside a literal."""
    file = Path(script.path)
    if any("\t" in part.read_text(encoding="utf-8") for part in file.parent.glob(f"{file.stem}.*")):
        raise RevisionRefused(f"Revision {script.revision} contains a tab, which Alembic would change: use spaces.")


def _refuse_transaction_control(script: Script, text: str) -> None:
    """Raises RevisionRefused for a statement that ends the db transaction: it could leave a schema between
    revisions.
    """
    for statement in statements_of(text):
        first, *others = statement.tokens
        if first.is_any(*_TRANSACTION_CONTROL) or (
            first.is_any("copy") and any(token.is_any("stdin") for token in others)
        ):
            raise RevisionRefused(
                f"Revision {script.revision} contains {statement.summary}, but runs inside a db transaction: remove it."
            )


@contextmanager
def alembic_operations(context: MigrationContext) -> Iterator[None]:
    """Bind Alembic's `op` to this context, for one thread at a time."""
    with _op_lock, Operations.context(context):
        yield
