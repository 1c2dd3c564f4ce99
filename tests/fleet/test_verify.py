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

from app.belongings import BELONGINGS
from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.backup.manifest import MANIFEST_NAME, RowsFile
from tenant_schemas.errors import ProofFailed
from tenant_schemas.restoring.verifying import verify
from tenant_schemas.testing import Database
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
    assert world(fresh_database) == before


def test_a_forged_row_whose_sums_and_proof_were_forged_along_is_found_by_the_audit(
    fresh_database: Database, bundle: Bundle
) -> None:
    forged = rewritten(bundle, "wallet_transactions", lambda line: line.replace(b"Ana was billed twice", b"No reason"))
    with pytest.raises(ProofFailed, match="hash does not match the row"):
        verify(replace(destination(fresh_database), belongings=replace(BELONGINGS, prove=forged_proof(forged))), forged)


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
