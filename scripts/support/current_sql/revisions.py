"""A revision's SQL as statements with the comments that explain them, and the note at its head."""

import re
from dataclasses import dataclass, field
from typing import Final

from scripts.support.current_sql.parts import Source, joined
from tenant_schemas.migrations.render import Step
from tenant_schemas.sql_lint.lexer import Reader, Statement, comments_of, statements_of

# True of a revision, and not of what is made of it.
_OF_THE_REVISION: Final = re.compile(r"(?<= )Frozen once merged[^.\n]*\.\s*")
_FOR_SQUAWK: Final = "-- squawk-ignore"


@dataclass(slots=True)
class Commented:
    """A statement and the comment lines above it."""

    statement: Statement
    comments: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Revision:
    """`note` is the comment at the head of its SQL, or else the title of its file."""

    number: str
    note: list[str]
    source: Source
    statements: list[Commented]


def read_revision(step: Step) -> Revision:
    """A comment above the first statement with a blank line below it is the revision's note. Any other belongs to the
    statement below it. If that makes an index, and the lines directly below it make a table, view or function, the
    comment belongs to the first of those.
    """
    note: list[str] = []
    statements: list[Commented] = []
    paragraph: list[Commented] = []
    end = 0
    source = Source(step.sql)
    for statement in statements_of(step.sql):
        start = statement.tokens[0].start
        end = _take_beside(source, statements, end, start)
        blocks, is_apart = _blocks(step.sql, end, start)
        end = statement.tokens[-1].end
        if not statements:
            of_statement = 0 if is_apart else 1
            note, blocks = joined(blocks[: len(blocks) - of_statement]), blocks[len(blocks) - of_statement :]
        if blocks or is_apart:
            paragraph = []
        statements.append(Commented(statement, joined(blocks)))
        paragraph.append(statements[-1])
        _hand_over(paragraph)
    end = _take_beside(source, statements, end, len(step.sql))
    note = joined([note, *_blocks(step.sql, end, len(step.sql))[0]])
    return Revision(step.revision, note or [f"-- {step.title}"], source, statements)


def _take_beside(source: Source, statements: list[Commented], start: int, end: int) -> int:
    """Give the last statement the comments that follow it on its line. Returns where they end."""
    beside = source.comments_between(start, end)[0] if statements else []
    for comment in beside:
        statements[-1].comments.append(comment)
        start = source.sql.index(comment, start) + len(comment)
    return start


def _hand_over(paragraph: list[Commented]) -> None:
    first, last = paragraph[0], paragraph[-1]
    if first.comments and _makes(first.statement, "index") and _makes(last.statement, "table", "view", "function"):
        last.comments, first.comments = first.comments, []


def _makes(statement: Statement, *kinds: str) -> bool:
    reader = Reader(statement.tokens)
    reader.take("create")
    reader.skip("unique", "unlogged", "materialized", "recursive")
    return bool(reader.take_one_of(*kinds))


def _blocks(sql: str, start: int, end: int) -> tuple[list[list[str]], bool]:
    """The comments in a part of the SQL, divided by blank lines, and whether a blank line follows the last of them."""
    blocks: list[list[str]] = [[]]
    at = start
    for comment in comments_of(sql[start:end]):
        if _is_blank(sql[at : start + comment.start]):
            blocks.append([])
        at = start + comment.end
        if not comment.text.startswith(_FOR_SQUAWK):
            blocks[-1] += _OF_THE_REVISION.sub("", comment.text).rstrip().splitlines()
    return [block for block in blocks if block], _is_blank(sql[at:end])


def _is_blank(between: str) -> bool:
    return between.count("\n") > 1
