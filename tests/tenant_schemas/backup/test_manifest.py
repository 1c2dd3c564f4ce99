"""A manifest is valid, or it is refused with the place of its fault."""

from collections.abc import Callable
from typing import Any

import pytest

from tenant_schemas.backup.bundle import Bundle, open_bundle
from tenant_schemas.backup.manifest import manifest_from_json
from tenant_schemas.errors import BundleBroken
from tests.factories.backups import KEYS, edited

pytestmark = pytest.mark.both_servers


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda told: told.update(format=4), "format '4'"),
        (lambda told: told.update(format=True), "format 'True'"),
        (lambda told: told.update(format=[]), "format"),
        (lambda told: told.pop("format"), "format 'None'"),
        (lambda told: told.pop("proof"), r"missing fields \['proof'\]"),
        (lambda told: told.update(more=1), r"unknown fields \['more'\]"),
        (lambda told: told["tenant"].update(id="x"), "tenant.id"),
        (lambda told: told["tenant"].update(status="sold"), "tenant.status"),
        (lambda told: told["tables"][0].update(rows="3"), "rows"),
        (lambda told: told["tables"][0].update(rows=-1), "rows"),
        (lambda told: told["tables"][0].update(columns="id"), "columns"),
        (lambda told: told["tables"][0].update(file="../../etc/passwd"), "outside"),
        (lambda told: told["tables"][0].update(file="/etc/passwd"), "outside"),
        (lambda told: told["tables"][0].update(sha256="0"), "sha256"),
        (lambda told: told.update(taken_at="yesterday"), "taken_at"),
        (lambda told: told.update(taken_at="2026-01-01T00:00:00"), "taken_at: it has no time zone"),
        (lambda told: told.update(taken_at="0001-01-01T00:00:00+14:00"), "taken_at"),
        (lambda told: told["tables"][0].update(file="tables/\0"), "not printable"),
        (lambda told: told["tables"][0].update(name="a\x1b[2K"), r"a\\x1b\[2K has characters that are not printable"),
        (lambda told: told["tables"][0].update(columns=["a\u202eb"]), r"a\\u202eb has"),
        (lambda told: told["tenant"].update(slug="km\n"), "slug"),
        (lambda told: told["tenant"].update(slug="KM"), "not a valid name"),
        (lambda told: told["tenant"].update(slug="km; DROP ROLE x"), "not a valid name"),
        (lambda told: told["tenant"].update(schema_name="shared"), "reserved"),
        (lambda told: told["tenant"].update(name="a\0"), "NUL"),
        (lambda told: told["tables"][0].update(file=told["tables"][1]["file"]), "twice"),
        (lambda told: told["tables"][0].update(file="tables//x"), "outside"),
        (lambda told: told["tables"][0].update(file="tables/./x"), "outside"),
        (lambda told: told["tables"][0].update(longest_row=-1), "longest_row"),
        (lambda told: told["tables"][0].update(file="tables/\ud800"), "surrogates"),
    ],
)
def test_a_manifest_that_is_not_exactly_one_is_refused_with_the_place(
    bundle: Bundle, edit: Callable[[dict[str, Any]], object], says: str
) -> None:
    with pytest.raises(BundleBroken, match=says):
        open_bundle(edited(bundle, edit), KEYS)


@pytest.mark.parametrize("text", ["", "[]", "null", '"x"', "{", '{"format": 1}', "\ud800", "[" * 100_000])
def test_no_text_at_all_makes_reading_a_manifest_fail_otherwise(text: str) -> None:
    with pytest.raises(BundleBroken):
        manifest_from_json(text)


def test_a_manifest_comes_back_from_its_json(bundle: Bundle) -> None:
    assert manifest_from_json(bundle.manifest.to_json()) == bundle.manifest


def test_a_tenants_name_may_have_any_characters(bundle: Bundle) -> None:
    """Tenants of earlier versions may have such a name, and must be restorable."""
    folder = edited(bundle, lambda told: told["tenant"].update(name="a\u202eb\x1b"))
    assert open_bundle(folder, KEYS).manifest.tenant.name == "a\u202eb\x1b"


def test_a_manifest_of_format_1_has_no_bounds(bundle: Bundle) -> None:
    def old(told: dict[str, Any]) -> None:
        told["format"] = 1
        for file in (*told["tables"], *told["shared"]):
            del file["unpacked_bytes"], file["longest_row"]

    opened = open_bundle(edited(bundle, old), KEYS)
    assert {file.longest_row for file in opened.manifest.tables} == {None}
    assert len(list(opened.lines(opened.manifest.tables[0]))) == opened.manifest.tables[0].rows
