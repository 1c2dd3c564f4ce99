"""Defusing takes time in proportion to the text, and changes what the plain definition changes."""

import re
import time
from itertools import product

import pytest

from app.statements.csv import defused

# The definition: after each begin of a cell, look at all that follows. It takes quadratic time.
PLAIN = re.compile(r"""(^|[;\t\n]|\r\n?)(?=[\s"]*[=+\-@＝＋－＠])|^(?=[\t\r\n])""")


def test_every_short_text_is_changed_as_the_plain_definition_says() -> None:
    for length in range(6):
        for characters in product('a=;\t\n\r "', repeat=length):
            text = "".join(characters)
            assert defused(text) == PLAIN.sub(r"\1'", text), repr(text)


@pytest.mark.parametrize("repeated", ["\t", '\t"', "\r\n", ";", " ", "=\t", "\t=", '";\n'])
def test_eight_times_the_text_takes_no_more_than_thirty_times_the_time(repeated: str) -> None:
    """The plain definition takes 64 times the time."""
    short, long = (least_seconds(repeated * times) for times in (8_000, 64_000))
    assert long < 30 * short


def least_seconds(text: str) -> float:
    """The processor time of the fastest of five runs."""
    return min(_seconds(text) for _ in range(5))


def _seconds(text: str) -> float:
    started = time.process_time()
    defused(text)
    return time.process_time() - started
