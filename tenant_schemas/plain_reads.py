"""Decides which statements are plain reads: SELECTs that write nothing, lock nothing and set nothing. They need no db
transaction around them.

Only SQLAlchemy's own constructs can be plain reads. SQL text is not examined, and a function that is not named here may
write: both count as no plain read, which costs a BEGIN and nothing else.
"""

import re
from functools import cached_property
from typing import Any, Final

from sqlalchemy import CompoundSelect, Select
from sqlalchemy.dialects.postgresql.psycopg import PGCompiler_psycopg
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import ColumnClause, TextClause
from sqlalchemy.sql.functions import Function, FunctionElement, GenericFunction, next_value

READING_FUNCTIONS: Final = frozenset({"clock_timestamp", "statement_timestamp"})
# What hints, prefixes and locks could add to the text. Found in a name or a literal, a word costs a BEGIN only.
OTHER_WORDS: Final = re.compile(r"\b(FOR|INTO|INSERT|UPDATE|DELETE|MERGE|CALL)\b", re.IGNORECASE)


class ReadCompiler(PGCompiler_psycopg):
    """psycopg's compiler. Compiled statements are cached, so each is examined once."""

    has_text = False

    def visit_textclause(self, textclause: TextClause, *arguments: Any, **named: Any) -> str:
        """Notes SQL text wherever it stands: prefixes are not among the elements that a statement lists."""
        self.has_text = True
        text: str = super().visit_textclause(textclause, *arguments, **named)  # type: ignore[no-untyped-call]
        return text

    @cached_property
    def is_plain_read(self) -> bool:
        return (
            isinstance(self.statement, Select | CompoundSelect)
            and not self.has_text
            and not OTHER_WORDS.search(self.string)
            and all(map(_is_plain, visitors.iterate(self.statement)))
        )


def _is_plain(element: visitors.ExternallyTraversible) -> bool:
    if not type(element).__module__.startswith("sqlalchemy."):
        return False  # The program's own construct may compile to any SQL.
    if isinstance(element, FunctionElement):
        return _is_reading(element)
    # A literal column is SQL text, except the star of count(*).
    return not (isinstance(element, ColumnClause) and element.is_literal and element.name != "*")


def _is_reading(function: FunctionElement[object]) -> bool:
    if type(function) is Function:
        return function.name in READING_FUNCTIONS and not function.packagenames
    # SQLAlchemy's own classes (count, sum, coalesce, now, …), not the program's.
    is_sqlalchemys = isinstance(function, GenericFunction) and type(function).__module__ == GenericFunction.__module__
    return is_sqlalchemys and not isinstance(function, next_value)
