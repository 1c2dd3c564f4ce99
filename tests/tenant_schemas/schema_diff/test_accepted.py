"""The file of accepted differences: what it accepts, and what it refuses."""

from pathlib import Path

import pytest

from tenant_schemas.errors import AcceptedDriftRefused
from tenant_schemas.schema_diff.accepted import read_accepted_drift
from tenant_schemas.schema_diff.effects import DriftedObject, Effect


def test_an_object_is_accepted_by_its_name_or_a_pattern_and_never_if_it_breaks_a_restore(tmp_path: Path) -> None:
    file = tmp_path / "accepted"
    file.write_text("# Of the reporting team\nindex report_*\nfunction f(text[])  # by hand\n\ncolumn wallets.*\n")
    accepted = read_accepted_drift(file)
    objects = [
        DriftedObject("index report_by_day", Effect.HARMLESS),
        DriftedObject("function f(text[])", Effect.LOST),
        DriftedObject("index other", Effect.HARMLESS),
        DriftedObject("column wallets.nickname", Effect.BREAKS),
        DriftedObject("column wallets.status", Effect.HARMLESS),
    ]
    assert [each.name for each in accepted.without_accepted(objects)] == ["index other", "column wallets.nickname"]


@pytest.mark.parametrize("line", ["wallets_report_idx", "table extra", "index", "rights on wallets SELECT"])
def test_a_line_without_the_kind_of_an_object_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    file = tmp_path / "accepted"
    file.write_text(f"index a\n{line}\n")
    with pytest.raises(AcceptedDriftRefused, match="line 2"):
        read_accepted_drift(file)


@pytest.mark.parametrize("content", [None, b"index \xff"])
def test_a_file_that_can_not_be_read_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "accepted"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(AcceptedDriftRefused, match="can't be read"):
        read_accepted_drift(file)
