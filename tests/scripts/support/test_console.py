"""What commands print of foreign text is printable."""

import pytest

from scripts.support.console import exit_with, show_table


def test_a_message_keeps_its_line_feeds_and_no_other_control_character(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        exit_with("a\nb\x1b[2J\u202ec", 3)
    assert left.value.code == 3
    assert capsys.readouterr().err == "a\nb\\x1b[2J\\u202ec\n"


@pytest.mark.parametrize("rows", [1, 200])
def test_a_table_shows_control_characters_as_escapes(capsys: pytest.CaptureFixture[str], rows: int) -> None:
    show_table("Names", ("name",), [("a\x1b[2J\u202eb",)] * rows)
    assert capsys.readouterr().out.count(r"a\x1b[2J\u202eb") == rows
