"""Writes CSV (RFC 4180: CRLF, and the same number of cells in each record). All CSV of the service, the scripts and the
engine comes from here.

Spreadsheets run text that looks like a formula, and members write texts, so such text gets a leading apostrophe. Where
the decimal sign is a comma, spreadsheets also split cells at semicolons, and then quotes protect nothing: so the
apostrophe also follows each semicolon, tab and end of line in a text. Numbers stay unchanged, with their sign.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, Final, Protocol
from uuid import UUID

# OWASP's list; the last four are full-width signs, which some spreadsheets read as the plain ones. Spreadsheets may
# drop spaces and quotes before a sign.
_SIGN: Final = r"[=+\-@＝＋－＠]"
# The spaces and quotes before a sign, and the places where a cell begins with a sign. The look-behind lets a run be
# tried at its first character only, and the possessive quantifier only once: otherwise a long run without a sign takes
# quadratic time.
_BEFORE_SIGN: Final = re.compile(rf"""((?<![\s"])[\s"]++(?={_SIGN})|^(?={_SIGN})|(?<=;)(?={_SIGN}))""")
# Most texts: a number, or one in which no second cell can begin and that begins with a letter, a digit or _.
_HARMLESS: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?|\w[\w.,:\- ]*")
_PLAIN: Final = (int, float, Decimal, UUID, date)


class Output(Protocol):
    def write(self, text: str, /) -> object: ...


class CsvWriter:
    """Writes records to a file that was opened with newline="". Texts are defused, also those of a header."""

    def __init__(self, file: Output) -> None:
        self._writer = csv.writer(file, lineterminator="\r\n")

    def write(self, cells: Iterable[Any]) -> None:
        self._writer.writerow([_cell(value) for value in cells])

    def write_all(self, records: Iterable[Sequence[Any]]) -> None:
        self._writer.writerows([_cell(value) for value in cells] for cells in records)


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, _PLAIN) else defused(str(value))


def defused(text: str) -> str:
    """The text, changed so that no spreadsheet reads a formula in it. Takes time in proportion to the text's length."""
    if _HARMLESS.fullmatch(text):
        return text
    pieces = _BEFORE_SIGN.split(text)
    if len(pieces) > 1:
        for number in range(1, len(pieces), 2):
            before, run = pieces[number - 1], pieces[number]
            # A loop in Python over each character would make a text of tabs forty times slower than another.
            run = run.replace("\t", "\t'").replace("\n", "\n'").replace("\r", "\r'").replace("\r'\n", "\r\n")
            pieces[number] = f"'{run}" if not before or before[-1] == ";" else run
        text = "".join(pieces)
    return f"'{text}" if text.startswith(("\t", "\r", "\n")) else text
