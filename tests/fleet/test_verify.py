"""A verification finds whatever was done to a bundle, names it, and leaves nothing."""

import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pyrage
import pytest

from app.backup_policy import BACKUP_POLICY
from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.backup.manifest import MANIFEST_NAME, RowsFile
from tenant_schemas.backup.table_io import write_rows
from tenant_schemas.errors import VerificationFailed
from tenant_schemas.restore.verify import verify
from tenant_schemas.testing.plugin import Database
from tests.factories.door import Run
from tests.fleet.bundles import SLUG, Furnished, audit, content, destination, forge, rewritten, take, world


def test_a_bundle_that_was_not_touched_holds_in_every_way(fresh_database: Database, bundle: Bundle, run: Run) -> None:
    before, rows = world(fresh_database), content(fresh_database, SLUG)
    verified = verify(destination(fresh_database), bundle)
    assert (verified.slug, verified.tables, verified.files, verified.same_form) == (SLUG, 12, 14, True)
    assert verified.rows == sum(file.rows for file in bundle.manifest.tables)
    result = run("verify_backup", str(bundle.folder), str(bundle.folder))
    assert result.exit_code == 0
    assert result.output.count("holds") == 2
    assert (world(fresh_database), content(fresh_database, SLUG)) == (before, rows)


def file_of(bundle: Bundle, table: str = "wallets") -> Path:
    return bundle.folder / named(bundle, table).file


def named(bundle: Bundle, table: str) -> RowsFile:
    (file,) = (each for each in bundle.manifest.tables if each.name == table)
    return file


def flip(bundle: Bundle) -> None:
    path = file_of(bundle)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def lose(bundle: Bundle) -> None:
    file_of(bundle).unlink()


def cut(bundle: Bundle) -> None:
    path = file_of(bundle)
    path.write_bytes(path.read_bytes()[:-20])


def tell(bundle: Bundle, **told: Any) -> None:
    """Let the manifest say something else of the wallets."""
    manifest = bundle.manifest
    tables = tuple(replace(each, **told) if each.name == "wallets" else each for each in manifest.tables)
    forge(bundle, replace(manifest, tables=tables))


def cut_with_its_sum(bundle: Bundle) -> None:
    """The manifest is changed along, so that only unpacking can find it."""
    cut(bundle)
    data = file_of(bundle).read_bytes()
    tell(bundle, sha256=sha256(data).hexdigest(), bytes=len(data))


def garble(bundle: Bundle) -> None:
    (bundle.folder / MANIFEST_NAME).write_text("{")


def raise_balance(line: bytes) -> bytes:
    return line.replace(b"\tBAM\tactive\t", b"\tBAM\tactive\t1")


def prove_otherwise(bundle: Bundle) -> None:
    forge(bundle, replace(bundle.manifest, proof={**bundle.manifest.proof, "wallets": []}))


def form_otherwise(bundle: Bundle) -> None:
    forge(bundle, replace(bundle.manifest, fingerprint="0" * 32))


def keep_sums(bundle: Bundle, name: str, change: Callable[[bytes], bytes]) -> None:
    """Other rows of a table of `shared`; only the file's own sum is made to fit."""
    (file,) = (each for each in bundle.manifest.shared if each.name == name)
    lines = [change(line) for line in bundle.lines(file)]
    (bundle.folder / file.file).unlink()
    written = write_rows(filter(None, lines), bundle.folder, file.file, name=name, columns=file.columns)
    tell_of_shared(bundle, name, sha256=written.sha256, bytes=written.bytes)


def tell_of_shared(bundle: Bundle, name: str, **told: Any) -> None:
    shared = tuple(replace(each, **told) if each.name == name else each for each in bundle.manifest.shared)
    forge(bundle, replace(bundle.manifest, shared=shared))


def rename_columns(bundle: Bundle, name: str) -> None:
    (file,) = (each for each in bundle.manifest.shared if each.name == name)
    tell_of_shared(bundle, name, columns=tuple(f"{column}_x" for column in file.columns))


def make_admin(line: bytes) -> bytes:
    return line.replace(b"\tmember\t", b"\tadmin\t")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (flip, "wallets"),
        (lose, "wallets"),
        (cut, "wallets"),
        (cut_with_its_sum, "wallets"),
        (garble, MANIFEST_NAME),
        (lambda bundle: tell(bundle, rows=7), "Table wallets has 1 rows, and the manifest says 7"),
        (lambda bundle: tell(bundle, hash="0" * 64), "Table wallets has other rows"),
        (lambda bundle: tell(bundle, columns=("id", "user_id")), "wallets"),
        (lambda bundle: rewritten(bundle, "orders", lambda _: b"no row\n"), "orders"),
        (lambda bundle: rewritten(bundle, "wallet_transactions", lambda _: b""), "wallet_transactions"),
        (lambda bundle: rewritten(bundle, "wallets", raise_balance), "proof"),
        (prove_otherwise, "proof"),
        (form_otherwise, "fingerprint"),
        (lambda bundle: keep_sums(bundle, "memberships", lambda _: b""), "Table memberships has 0 rows"),
        (lambda bundle: keep_sums(bundle, "memberships", make_admin), "Table memberships has other rows"),
        (lambda bundle: keep_sums(bundle, "users", lambda line: line.upper()), "Table users has other rows"),
        (lambda bundle: keep_sums(bundle, "memberships", lambda _: b"one\n"), "row 1 of memberships has not its"),
        (lambda bundle: rename_columns(bundle, "memberships"), "memberships lacks tenant_id, tenant_role, user_id"),
    ],
)
def test_whatever_was_done_to_a_bundle_is_found_and_named(
    fresh_database: Database, bundle: Bundle, run: Run, spoil: Callable[[Bundle], Any], said: str
) -> None:
    before = world(fresh_database)
    spoil(bundle)
    result = run("verify_backup", "--json", str(bundle.folder))
    (told,) = json.loads(result.output)
    assert (result.exit_code, told["bundle"]) == (1, str(bundle.folder))
    assert said in told["error"]
    if spoil is not form_otherwise:  # A restore makes the form of the revision.
        restored = run("restore_tenant", "--as", "shop2", str(bundle.folder))
        assert (restored.exit_code, said in restored.output) == (1, True), restored
    assert world(fresh_database) == before


def test_a_forged_row_whose_sums_and_proof_were_forged_along_is_found_by_the_audit(
    fresh_database: Database, bundle: Bundle
) -> None:
    forged = rewritten(bundle, "wallet_transactions", lambda line: line.replace(b"Ana was billed twice", b"No reason"))
    with pytest.raises(VerificationFailed, match="hash does not match the row"):
        verify(
            replace(destination(fresh_database), backup_policy=replace(BACKUP_POLICY, prove=forged_proof(forged))),
            forged,
        )


def forged_proof(bundle: Bundle) -> Callable[[psycopg.Connection[Any]], dict[str, Any]]:
    return lambda _: dict(bundle.manifest.proof)


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


def test_a_restore_is_asked_for_twice_before_it_replaces_the_living(
    fresh_database: Database, bundle: Bundle, run: Run
) -> None:
    before = world(fresh_database)
    refused = run("restore_tenant", str(bundle.folder), input="km\n")
    assert (refused.exit_code, world(fresh_database)) == (1, before)
    done = run("restore_tenant", str(bundle.folder), input=f"{SLUG}\n")
    assert done.exit_code == 0, done.output
    replaced = fresh_database.tenant(SLUG).schema_name
    again = run("restore_tenant", str(bundle.folder), "--yes", "--json", "--keep-days", "1")
    assert json.loads(again.output)["replaced_schema"] == replaced != f"{SLUG}_schema"
    beside = run("restore_tenant", str(bundle.folder), "--as", "shop2", "--name", "Second")
    assert beside.exit_code == 0, beside.output
    assert fresh_database.tenant("shop2").name == "Second"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("--as", "eur"), 1), (("--as", "no slug"), 2), (("--as", "wallet"), 2), (("--name", "x"), 2)],
)
def test_what_can_not_be_restored_is_refused_with_a_reason(
    fresh_database: Database, bundle: Bundle, run: Run, arguments: tuple[str, ...], code: int
) -> None:
    before = world(fresh_database)
    result = run("restore_tenant", str(bundle.folder), *arguments)
    assert (result.exit_code, world(fresh_database)) == (code, before)
    assert result.output
    assert "Traceback" not in result.output


def test_each_of_several_bundles_is_told_of_whatever_is_wrong_with_another(
    fresh_database: Database, bundle: Bundle, run: Run, tmp_path: Path
) -> None:
    folders = [str(tmp_path / "nothing"), str(bundle.folder), str(tmp_path)]
    result = run("verify_backup", "--json", *folders)
    told = json.loads(result.output)
    assert (result.exit_code, [each["bundle"] for each in told]) == (1, folders)
    assert [bool(each["error"]) for each in told] == [True, False, True]


def test_a_verification_that_holds_beside_somebody_who_reads_only_warns(
    fresh_database: Database, bundle: Bundle, run: Run
) -> None:
    """Nobody can drop a schema that refers to people while somebody reads them; so it is dropped later."""
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


def test_a_restore_that_fails_beside_somebody_who_reads_says_what_is_left(
    fresh_database: Database, bundle: Bundle, run: Run
) -> None:
    before = world(fresh_database)
    prove_otherwise(bundle)
    reader = fresh_database.as_superuser()
    with reader.transaction():
        reader.execute("SELECT FROM shared.users")
        result = run("restore_tenant", str(bundle.folder), "--as", "shop2")
    assert result.exit_code == 1
    assert "The proof differs" in result.output
    assert "Schema shop2_schema could not be dropped and is left" in result.output
    assert run("drop_retired_schemas").exit_code == 0
    assert world(fresh_database) == before


def test_a_tenant_that_was_renamed_since_goes_back_only_by_its_name_of_today(
    fresh_database: Database, bundle: Bundle, run: Run
) -> None:
    assert run("rename_tenant", SLUG, "store").exit_code == 0
    before = world(fresh_database)
    refused = run("restore_tenant", str(bundle.folder), "--yes")
    assert (refused.exit_code, world(fresh_database)) == (2, before)
    done = run("restore_tenant", str(bundle.folder), input="store\n")
    assert done.exit_code == 0, done.output
    for output in (refused.output, done.output):
        assert "was taken as shop, and that tenant is store now" in output
