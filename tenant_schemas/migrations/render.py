"""A history as SQL: each revision's statements are rendered once and are the same for every schema.

The text names no schema and no role: it runs with the search_path of one schema, and grants to the role in the setting
`tenant_schemas.tenant_role`. A revision that must look at a schema to know what to do says `runs_python = True` in its
file and is run by Alembic in each one. It may also name `checks`: queries that must find nothing once it has run.
"""

from collections.abc import Callable, Iterator
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
from tenant_schemas.sql_lint.lexer import statements_of

# Alembic's `op` is a global of its module: one revision runs at a time in a process, whoever asks.
_op = Lock()
_ENDS = ("abort", "begin", "commit", "end", "prepare", "release", "rollback", "savepoint", "start")


class History(StrEnum):
    """The two lines of migrations; the value is the section of setup.cfg."""

    SHARED = "alembic:shared"
    TENANT = "alembic"


@dataclass(frozen=True, slots=True)
class Step:
    """One revision done, or undone: from `before` to `after`, None being a schema with no revision. `sql` is empty for
    one that runs Python.
    """

    revision: str
    title: str
    before: str | None
    after: str | None
    sql: str
    checks: tuple[str, ...]
    python: Callable[[], None] | None

    @property
    def runs_python(self) -> bool:
        return self.python is not None


@dataclass(frozen=True, slots=True)
class Line:
    """A linear history, first revision first. Equal revisions of a file are read and rendered once."""

    revisions: tuple[Script, ...]

    @property
    def head(self) -> str | None:
        return self.revisions[-1].revision if self.revisions else None

    def steps(self, at: str | None, to: str | None) -> tuple[Step, ...]:
        """The way from one revision to another, up or down. Raises RevisionRefused for one that is not in this
        history, and for one that can't be undone.
        """
        start, end = self._index(at), self._index(to)
        if start <= end:
            return tuple(_step(script) for script in self.revisions[start:end])
        return tuple(_step_back(script) for script in reversed(self.revisions[end:start]))

    def _index(self, revision: str | None) -> int:
        """How many revisions a schema at this one has had."""
        if revision is None:
            return 0
        for index, script in enumerate(self.revisions, start=1):
            if script.revision == revision:
                return index
        raise RevisionRefused(f"Revision {revision} is not in this history, which ends at {self.head}.")


def line_of(setup_cfg: Path, history: History) -> Line:
    """The history in a setup.cfg, read again only when a file of it has changed. Raises Alembic's CommandError for one
    that is not linear.
    """
    folder = _folder(setup_cfg, history)
    stamp = tuple(sorted((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in folder.glob("*.*")))
    return _read(folder, stamp)


@lru_cache(maxsize=16)
def _folder(setup_cfg: Path, history: History) -> Path:
    return Path(alembic_config(setup_cfg, history).get_main_option("version_locations") or "")


def alembic_config(setup_cfg: Path, history: History) -> Config:
    """Alembic's own settings for one history, with paths that hold wherever the process stands."""
    config = Config(setup_cfg, ini_section=history)
    for option in ("script_location", "version_locations"):
        config.set_main_option(option, str(setup_cfg.parent / (config.get_main_option(option) or "")))
    return config


@lru_cache(maxsize=16)
def _read(folder: Path, _: tuple[Any, ...]) -> Line:
    directory = ScriptDirectory(str(folder.parent), version_locations=[str(folder)])
    head = directory.get_current_head()
    line = Line(tuple(directory.walk_revisions("base", head))[::-1] if head else ())
    for before, script in zip((None, *line.revisions), line.revisions, strict=False):
        if script.down_revision != (before and before.revision):
            raise RevisionRefused(f"Revision {script.revision} does not follow {before and before.revision} alone.")
    return line


@lru_cache(maxsize=256)
def _step(script: Script) -> Step:
    before = script.down_revision
    return _made(script, script.module.upgrade, before if isinstance(before, str) else None, script.revision)


@lru_cache(maxsize=256)
def _step_back(script: Script) -> Step:
    before = script.down_revision
    return _made(script, script.module.downgrade, script.revision, before if isinstance(before, str) else None)


def _made(script: Script, run: Callable[[], None], before: str | None, after: str | None) -> Step:
    runs_python = bool(getattr(script.module, "runs_python", False))
    # What must hold after a revision need not hold when it is undone.
    checks = tuple(getattr(script.module, "checks", ())) if after == script.revision else ()
    sql = "" if runs_python else _render(script, run)
    return Step(script.revision, script.doc, before, after, sql, checks, run if runs_python else None)


def _render(script: Script, run: Callable[[], None]) -> str:
    text = StringIO()
    # With named parameters a percent sign stays one percent sign.
    offline = MigrationContext.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},
        opts={"as_sql": True, "output_buffer": text},
    )
    # A comment at the end of a statement must not swallow what ends it.
    offline.impl.command_terminator = "\n;"
    _refuse_tabs(script)
    try:
        with operating(offline):
            run()
    except NotImplementedError as error:
        raise RevisionRefused(f"Revision {script.revision} can't be undone. {error}") from error
    except Exception as error:
        raise RevisionRefused(
            f"Revision {script.revision} can't be rendered as SQL: {type(error).__name__}: {error}. "
            "If it must look at a schema to know what to do, write `runs_python = True` in its file."
        ) from error
    _refuse_ends(script, text.getvalue())
    return text.getvalue()


def _refuse_tabs(script: Script) -> None:
    """Alembic makes spaces of them, also inside a literal."""
    file = Path(script.path)
    if any("\t" in part.read_text(encoding="utf-8") for part in file.parent.glob(f"{file.stem}.*")):
        raise RevisionRefused(f"Revision {script.revision} has a tab, which Alembic would change: write spaces.")


def _refuse_ends(script: Script, text: str) -> None:
    """A step that ended the db transaction could leave a schema between two revisions."""
    for statement in statements_of(text):
        first, *others = statement.tokens
        if first.is_any(*_ENDS) or (first.is_any("copy") and any(token.is_any("stdin") for token in others)):
            raise RevisionRefused(
                f"Revision {script.revision} has {statement.summary}: it runs inside a db transaction."
            )


@contextmanager
def operating(context: MigrationContext) -> Iterator[None]:
    """Let Alembic's `op` mean this context, for one thread at a time."""
    with _op, Operations.context(context):
        yield
