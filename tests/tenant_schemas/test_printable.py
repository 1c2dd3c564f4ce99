"""Foreign text reaches a terminal without its control characters."""

import pytest

from tenant_schemas.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Amra Hadžić, 漢字 🙂", "Amra Hadžić, 漢字 🙂"),
        ("a\x1b[2Kb", r"a\x1b[2Kb"),
        ("km\u202egnp", r"km\u202egnp"),
        ("a\u2066b\u2028c\x9b\x7f\0", r"a\u2066b\u2028c\x9b\x7f\x00"),
        ("a\nb\r", r"a\nb\r"),
        ("\ud800", r"\ud800"),
        ("\U000e0001", r"\U000e0001"),
    ],
)
def test_what_is_not_printable_is_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_characters_to_keep_are_kept() -> None:
    assert printable("a\nb\rc", "\n") == "a\nb\\rc"
