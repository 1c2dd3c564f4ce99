"""`scripts.verify_backup` reports whether each bundle is sound, and warns of objects that it could not remove."""

import json
from pathlib import Path

import pyrage
import pytest

from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.testing.plugin import Database
from tests.factories.bundles import SLUG, Furnished, audit, take, world
from tests.factories.script_runner import Run

pytestmark = pytest.mark.both_servers


def test_a_sealed_bundle_is_verified_and_restored_by_whoever_has_its_key(
    fresh_database: Database, furnished: Furnished, run: Run, tmp_path: Path
) -> None:
    identity, other = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    (tmp_path / "key").write_text(str(identity))
    (tmp_path / "other").write_text(str(other))
    (tmp_path / "none").write_text("none")
    folder = str(take(fresh_database, SLUG, tmp_path, str(identity.to_public())).folder)
    before = world(fresh_database)
    for key, code in (([], 1), (["other"], 1), (["none"], 2)):
        option = [part for name in key for part in ("--identity", str(tmp_path / name))]
        for script in ("verify_backup", "restore_tenant"):
            assert run(script, *option, folder, *(["--yes"] if script == "restore_tenant" else [])).exit_code == code
    assert world(fresh_database) == before
    assert run("verify_backup", folder, "--identity", str(tmp_path / "key")).exit_code == 0
    assert run("restore_tenant", folder, "--identity", str(tmp_path / "key"), "--yes").exit_code == 0
    assert audit(fresh_database, SLUG) == []


def test_each_of_several_bundles_is_told_of_whatever_is_wrong_with_another(
    fresh_database: Database, bundle: Bundle, run: Run, tmp_path: Path
) -> None:
    folders = [str(tmp_path / "nothing"), str(bundle.folder), str(tmp_path)]
    result = run("verify_backup", "--json", *folders)
    told = json.loads(result.output)
    assert (result.exit_code, [each["bundle"] for each in told]) == (1, folders)
    assert [bool(each["error"]) for each in told] == [True, False, True]


def test_the_newest_bundle_of_a_folder_is_none_that_is_unfinished_exported_or_past(
    fresh_database: Database, bundle: Bundle, run: Run
) -> None:
    """Names that `ls … | tail -1` would take."""
    parent, slug = bundle.folder.parent, bundle.manifest.tenant.slug
    newest = bundle.folder.rename(parent / f"{slug}-20260101T000000Z")
    newer = f"{slug}-20990101T000000Z"
    for name in (f"{newer}.partial", f"{newer}-export", f"{newer}-data-20200101T000000Z", f"{slug}2-20990101T000000Z"):
        (parent / name).mkdir()
    (told,) = json.loads(run("verify_backup", str(parent), "--latest", slug, "--json").output)
    assert (told["bundle"], told["error"]) == (str(newest), None)
    assert run("restore_tenant", str(parent), "--latest", slug, "--dry-run").exit_code == 0
    for script in ("verify_backup", "restore_tenant"):
        missing = run(script, str(parent), "--latest", "nobody")
        assert (missing.exit_code, "has no bundle nobody-TIME" in missing.output) == (1, True)
    assert run("restore_tenant", "--latest", slug, "--from-retired", "x").exit_code == 2


def test_a_verification_that_holds_beside_somebody_who_reads_only_warns(
    fresh_database: Database, bundle: Bundle, run: Run
) -> None:
    """A schema that refers to people can't be dropped while another session reads them, so it is dropped later."""
    reader = fresh_database.as_superuser()
    with reader.transaction():
        reader.execute("SELECT FROM shared.users")
        result = run("verify_backup", "--json", str(bundle.folder))
    (told,) = json.loads(result.output)
    assert (result.exit_code, told["error"]) == (0, None)
    (retired,) = world(fresh_database)["retired"]
    assert f"drop_retired_schemas --now {retired[0]}" in told["warnings"][0]
    assert run("drop_retired_schemas").exit_code == 0
    assert world(fresh_database)["retired"] == []
