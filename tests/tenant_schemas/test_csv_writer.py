"""No cell is a formula; defusing takes time in proportion to the text, and changes what the definition changes."""

import csv
import re
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import StringIO
from itertools import product
from typing import Any
from uuid import UUID

import pytest

from tenant_schemas.csv_writer import CsvWriter, defused

# The definition: after each begin of a cell, look at all that follows. It takes quadratic time.
PLAIN = re.compile(r"""(^|[;\t\n]|\r\n?)(?=[\s"]*[=+\-@＝＋－＠])|^(?=[\t\r\n])""")
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
PLAIN_ID = UUID("e7a0fd16-8a4e-4a68-a2a5-34ef1b4c2b0c")


@pytest.mark.parametrize(("alphabet", "longest"), [('a=;\t\n\r "', 5), ("a=-1.\t;", 5), ("-1._ :,", 4)])
def test_every_short_text_is_changed_as_the_plain_definition_says(alphabet: str, longest: int) -> None:
    for length in range(longest + 1):
        for characters in product(alphabet, repeat=length):
            text = "".join(characters)
            expected = text if NUMBER.fullmatch(text) else PLAIN.sub(r"\1'", text)
            assert defused(text) == expected, repr(text)


@pytest.mark.parametrize("repeated", ["\t", '\t"', "\r\n", ";", " ", "=\t", "\t=", '";\n', "a", "-"])
def test_eight_times_the_text_takes_no_more_than_thirty_times_the_time(repeated: str) -> None:
    """The plain definition takes 64 times the time."""
    short, long = (least_seconds(repeated * times + "=") for times in (8_000, 64_000))
    assert long < 30 * short


@pytest.mark.parametrize("hostile", ["\t" * 499 + "=", "\r\n" * 249 + "=", ";=" * 250, "\t=" * 250, "=" * 500])
def test_no_text_of_a_member_takes_much_longer_than_another(hostile: str) -> None:
    """499 tabs took forty times as long as a usual text, and made an export 25 times slower."""
    usual = "Rent (May), 2 rooms & a garage; - 5 % " * 13
    assert least_seconds(hostile, 200) < 10 * least_seconds(usual, 200)


def least_seconds(text: str, times: int = 1) -> float:
    """The processor time of the fastest of five runs."""
    return min(_seconds(text, times) for _ in range(5))


def _seconds(text: str, times: int) -> float:
    started = time.process_time()
    for _ in range(times):
        defused(text)
    return time.process_time() - started


def written(*records: list[Any]) -> str:
    file = StringIO(newline="")
    CsvWriter(file).write_all(records)
    return file.getvalue()


def test_headers_and_cells_are_defused_and_quoted() -> None:
    told = written(["=name", "b"], ['@x "y"', "two\r\nlines"])
    assert told == '\'=name,b\r\n"\'@x ""y""","two\r\nlines"\r\n'
    file = StringIO(newline="")
    CsvWriter(file).write(["a", None])
    assert file.getvalue() == "a,\r\n"


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, ""),
        (-5, "-5"),
        (Decimal("-0.50"), "-0.50"),
        ("-0.50", "-0.50"),
        ("-0.50-1", "'-0.50-1"),
        ("-1+1", "'-1+1"),
        ("+5", "'+5"),
        ("-", "'-"),
        ("-٣", "'-٣"),
        ("-infinity", "'-infinity"),
        (timedelta(-1), "'-1 day, 0:00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02 00:00:00+00:00"),
        (PLAIN_ID, str(PLAIN_ID)),
        (True, "True"),
        ({"a": "=1"}, "{'a': '=1'}"),
        (["=1"], "['=1']"),
        (b"=1", "b'=1'"),
    ],
)
def test_numbers_and_dates_stay_and_all_else_is_text(value: Any, cell: str) -> None:
    assert list(csv.reader(StringIO(written(["x", value]), newline=""))) == [["x", cell]]
