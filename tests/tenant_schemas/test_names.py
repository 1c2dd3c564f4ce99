"""The parts of the rule of names. `tests/app/api/test_text_fields.py` has the examples."""

import pytest

from tenant_schemas.names import has_format_character, is_blank, is_printable


@pytest.mark.parametrize(
    ("name", "is_hidden", "is_empty", "is_shown"),
    [
        ("می\u200cخو", False, False, True),
        ("a\u200db", True, False, True),
        ("a\xadb", True, False, False),
        ("\u3164", False, True, True),
        ("a\tb", False, False, False),
        ("", False, True, True),
    ],
)
def test_a_name_is_asked_for_what_it_hides(name: str, is_hidden: bool, is_empty: bool, is_shown: bool) -> None:
    assert (has_format_character(name), is_blank(name), is_printable(name)) == (is_hidden, is_empty, is_shown)
