"""The parts of a schema as SQL text: tables with their columns and constraints, grants, and all else as one statement.

Each part keeps the comments that explain it in the revisions. A table is laid out anew, because its columns may come
from several revisions; all other text stays as it was written.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from tenant_schemas.sql_lint.lexer import Reader, Token, comments_of, split_by_commas, tokens_of

# The words that end a column's type.
_CLAUSES: Final = (
    *("not", "null", "default", "generated", "constraint", "check", "unique", "primary", "references", "collate"),
    *("storage", "compression"),
)


@dataclass(slots=True)
class Column:
    """A column: `clauses` are what follows its type, such as `NOT NULL`. `beside` is the comment on its line."""

    name: str
    type: str
    clauses: list[str]
    above: list[str] = field(default_factory=list)
    beside: str = ""

    def set_clause(self, word: str, clause: str) -> None:
        """Put a clause in the place of the one that begins with the same word; an empty one removes it."""
        at = next((at for at, old in enumerate(self.clauses) if old.lower().startswith(word)), None)
        if at is not None:
            self.clauses[at : at + 1] = [clause] if clause else []
        elif clause:
            self.clauses.insert(0 if word == "not null" else len(self.clauses), clause)


@dataclass(slots=True)
class Constraint:
    """A constraint of a table; without a name, if the revision gave it none."""

    name: str
    text: str
    above: list[str] = field(default_factory=list)
    beside: str = ""


@dataclass(slots=True)
class Part:
    """One statement, or a table or grant that is written as one. It stands beside its `owner`: a table's name, or its
    own.
    """

    kind: str
    name: str
    owner: str
    text: str
    comments: list[str] = field(default_factory=list)

    def sql(self) -> str:
        return f"{self.text};"

    def printed(self) -> str:
        return "\n".join([*self.comments, self.sql()])


@dataclass(slots=True)
class Table(Part):
    """`text` is what comes before the columns, `tail` what follows them."""

    columns: list[Column] = field(default_factory=list)
    constraints: list[Constraint] = field(default_factory=list)
    tail: str = ""

    def sql(self) -> str:
        elements = [*_column_lines(self.columns), *((one.above, one.text, one.beside) for one in self.constraints)]
        if not elements:
            return f"{self.text}{self.tail};"
        texts = [f"    {text}," for _, text, _ in elements]
        texts[-1] = texts[-1][:-1]
        commented = [len(text) for text, (_, _, beside) in zip(texts, elements, strict=True) if beside]
        width = max([_usual_width(self.columns), *commented])
        lines = [f"{self.text} ("]
        for text, (above, _, beside) in zip(texts, elements, strict=True):
            lines += [f"    {comment}" for comment in above]
            lines.append(f"{text:<{width}}   {beside}" if beside else text)
        return "\n".join([*lines, f"){self.tail};"])


@dataclass(slots=True)
class Grant(Part):
    """Privileges on one object for some roles; `text` is the object as GRANT names it, with its kind."""

    privileges: list[str] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)

    def sql(self) -> str:
        return f"GRANT {', '.join(self.privileges)} ON {self.text} TO {', '.join(self.roles)};"


@dataclass(slots=True)
class Schema:
    """Every object by kind and name. `dropped` has the places and comments of the constraints that the revision being
    folded has dropped, for it may make them anew.
    """

    parts: dict[tuple[str, str], Part] = field(default_factory=dict)
    grants: list[Grant] = field(default_factory=list)
    dropped: dict[tuple[str, str], tuple[int, list[str]]] = field(default_factory=dict)

    def remove(self, kind: str, name: str) -> Part | None:
        """Remove an object, if it is a part of its own, and the COMMENT ON it."""
        self.parts.pop(("comment", f"{kind} {name}"), None)
        return self.parts.pop((kind, name), None)


class NotFoldable(Exception):
    """A statement is of a kind that is not known here."""


@dataclass(frozen=True, slots=True)
class Source:
    """SQL whose tokens are read, and the text of any of them as it is written."""

    sql: str

    def text(self, tokens: Sequence[Token]) -> str:
        return self.sql[tokens[0].start : tokens[-1].end] if tokens else ""

    def comments_between(self, start: int, end: int) -> tuple[list[str], list[str]]:
        """The comments on the line where a part ends, and those on lines of their own below it."""
        beside: list[str] = []
        below: list[str] = []
        for comment in comments_of(self.sql[start:end]):
            is_below = "\n" in self.sql[start : start + comment.start]
            (below if is_below else beside).append(comment.text)
        return beside, below


def read_table(source: Source, tokens: Sequence[Token], comments: list[str]) -> Table:
    """The table that a CREATE TABLE makes."""
    reader = Reader(tokens)
    reader.skip_past("table")
    reader.take("if", "not", "exists")
    name = reader.name()
    opening = len(tokens) - len(reader.rest)
    table = Table("table", name, name, source.text(tokens[:opening]), comments)
    # `PARTITION OF` and `AS SELECT` have no columns of their own.
    closing = _closing_bracket(tokens, opening) if reader.take("(") else opening - 1
    table.tail = source.sql[tokens[closing].end : tokens[-1].end]
    elements = split_by_commas(tokens[opening + 1 : closing])
    ends = [*(element[0].start for element in elements[1:]), tokens[closing].start]
    above = source.comments_between(tokens[opening].end, elements[0][0].start)[1] if elements else []
    for element, end in zip(elements, ends if elements else [], strict=True):
        one = read_element(source, element)
        beside, below = source.comments_between(element[-1].end, end)
        one.above, one.beside, above = above, " ".join(beside), below
        if isinstance(one, Column):
            table.columns.append(one)
        else:
            table.constraints.append(one)
    table.comments = joined([comments, above])
    return table


def _closing_bracket(tokens: Sequence[Token], opening: int) -> int:
    depth = 0
    for at, token in enumerate(tokens[opening:], start=opening):
        depth += token.is_any("(") - token.is_any(")")
        if depth == 0:
            return at
    return len(tokens) - 1


def read_element(source: Source, tokens: Sequence[Token]) -> Column | Constraint:
    """A column or constraint of CREATE TABLE, or what ADD adds."""
    reader = Reader(tokens)
    if reader.take("constraint"):
        return Constraint(reader.name(), source.text(tokens))
    if tokens[0].is_any("primary", "unique", "check", "foreign", "exclude", "like"):
        return Constraint("", source.text(tokens))
    name = reader.name()
    starts = [*_clause_starts(tokens), len(tokens)]
    clauses = [source.text(tokens[start:end]) for start, end in pairwise(starts)]
    return Column(name, source.text(tokens[1 : starts[0]]), clauses)


def _clause_starts(tokens: Sequence[Token]) -> Iterator[int]:
    depth = 0
    for at, token in enumerate(tokens[1:], start=1):
        depth += token.is_any("(", "[") - token.is_any(")", "]")
        before = tokens[at - 1]
        # `NOT NULL`, `BY DEFAULT`, `ON DELETE SET NULL`, `PRIMARY KEY` of `CONSTRAINT a PRIMARY KEY`.
        continues = before.is_any("not", "by", "set", "default") or tokens[at - 2].is_any("constraint")
        if depth == 0 and token.is_any(*_CLAUSES) and not (at > 1 and continues):
            yield at


def _column_lines(columns: Sequence[Column]) -> Iterator[tuple[list[str], str, str]]:
    name_width, type_width = _widths(columns)
    for column in columns:
        line = f"{column.name:<{name_width}} {column.type:<{type_width}} {' '.join(column.clauses)}"
        yield column.above, line.rstrip(), column.beside


def _usual_width(columns: Sequence[Column]) -> int:
    """The width of a column's line that has no clause but NOT NULL: comments stand at least that far to the right."""
    name_width, type_width = _widths(columns)
    return len(f"    {'':<{name_width}} {'':<{type_width}} NOT NULL,")


def _widths(columns: Sequence[Column]) -> tuple[int, int]:
    names, types = [len(column.name) for column in columns], [len(column.type) for column in columns]
    return max(names, default=0), max(types, default=0)


def mentioned(text: str, *, in_strings: bool = False) -> set[str]:
    """Every name in a text, with its schema and without; those inside strings, such as functions' bodies, if wanted."""
    found: set[str] = set()
    name, is_going_on = "", False
    for token in tokens_of(text):
        if token.kind in ("word", "name"):
            name = f"{name}." * is_going_on + Reader([token]).name()
            found.add(name)
        elif token.kind == "string" and in_strings:
            found |= mentioned(token.text, in_strings=True)
        is_going_on = token.is_any(".")
    return found


def joined(blocks: Iterable[Sequence[str]]) -> list[str]:
    """Blocks of comment lines as one, with empty comment lines between them."""
    found: list[str] = []
    for block in blocks:
        found += ["--", *block] if found and block else block
    return found


def refuse_cascade(tokens: Sequence[Token]) -> None:
    """Raises NotFoldable for a CASCADE: the text does not say what else it drops."""
    if any(token.is_any("cascade") for token in tokens):
        raise NotFoldable
