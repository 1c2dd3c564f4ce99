"""A verification finds every change of a bundle, names it, and leaves nothing."""

import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.backup.manifest import MANIFEST_NAME, RowsFile
from tenant_schemas.backup.policy import BackupPolicy
from tenant_schemas.backup.table_io import write_rows
from tenant_schemas.errors import VerificationFailed
from tenant_schemas.restore.verify import verify
from tenant_schemas.testing.plugin import Database
from tests.factories.bundles import SLUG, change_proof, content, destination, forge, rewritten, world
from tests.factories.histories import HEAD, add_revision, copied_histories
from tests.factories.script_runner import Run

pytestmark = pytest.mark.both_servers


def test_a_bundle_that_was_not_touched_holds_in_every_way(fresh_database: Database, bundle: Bundle, run: Run) -> None:
    before, rows = world(fresh_database), content(fresh_database, SLUG)
    verified = verify(destination(fresh_database), bundle)
    assert (verified.slug, verified.tables, verified.files, verified.same_form) == (SLUG, 27, 30, True)
    assert verified.rows == sum(file.rows for file in bundle.manifest.tables)
    result = run("verify_backup", str(bundle.folder), str(bundle.folder))
    assert result.exit_code == 0
    assert result.output.count("is valid") == 2
    assert (world(fresh_database), content(fresh_database, SLUG)) == (before, rows)


def test_a_bundle_is_migrated_to_the_head_as_by_a_restore(
    fresh_database: Database, bundle: Bundle, tmp_path: Path
) -> None:
    """And is not valid if its rows do not allow that."""
    before = world(fresh_database)
    histories = copied_histories(tmp_path)
    later = replace(destination(fresh_database), migrations=histories)
    head = add_revision(histories, 'op.execute("ALTER TABLE wallets ADD COLUMN note text")')
    verified = verify(later, bundle)
    assert (verified.revision, verified.migrated_to) == (HEAD, head)
    head = add_revision(histories, 'op.execute("ALTER TABLE wallets ADD CHECK (balance_minor < 0)")')
    with pytest.raises(VerificationFailed, match=rf"can.t be migrated from revision {HEAD} to {head}: CheckViolation"):
        verify(later, bundle)
    assert world(fresh_database) == before


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
    """Change fields of the wallets in the manifest."""
    manifest = bundle.manifest
    tables = tuple(replace(each, **told) if each.name == "wallets" else each for each in manifest.tables)
    forge(bundle, replace(manifest, tables=tables))


def cut_with_its_sum(bundle: Bundle) -> None:
    """The manifest is changed to match, so that only unpacking can find it."""
    cut(bundle)
    data = file_of(bundle).read_bytes()
    tell(bundle, sha256=sha256(data).hexdigest(), bytes=len(data))


def garble(bundle: Bundle) -> None:
    (bundle.folder / MANIFEST_NAME).write_text("{")


def raise_balance(line: bytes) -> bytes:
    return line.replace(b"\tBAM\tactive\t", b"\tBAM\tactive\t1")


def form_otherwise(bundle: Bundle) -> None:
    forge(bundle, replace(bundle.manifest, fingerprint="0" * 32))


def keep_sums(bundle: Bundle, name: str, change: Callable[[bytes], bytes]) -> None:
    """Change rows of a table of `shared`; only the file's own checksum is made to match."""
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
        (lambda bundle: tell(bundle, rows=7), "Table wallets has 1 rows, but the manifest says 7"),
        (lambda bundle: tell(bundle, hash="0" * 64), "Table wallets has other rows"),
        (lambda bundle: tell(bundle, columns=("id", "user_id")), "wallets"),
        (lambda bundle: rewritten(bundle, "orders", lambda _: b"no row\n"), "orders"),
        (lambda bundle: rewritten(bundle, "wallet_transactions", lambda _: b""), "wallet_transactions"),
        (lambda bundle: rewritten(bundle, "wallets", raise_balance), "proof"),
        (change_proof, "proof"),
        (form_otherwise, "fingerprint"),
        (lambda bundle: keep_sums(bundle, "memberships", lambda _: b""), "Table memberships has 0 rows"),
        (lambda bundle: keep_sums(bundle, "memberships", make_admin), "Table memberships has other rows"),
        (lambda bundle: keep_sums(bundle, "users", lambda line: line.upper()), "Table users has other rows"),
        (lambda bundle: keep_sums(bundle, "memberships", lambda _: b"one\n"), "row 1 of memberships does not have"),
        (
            lambda bundle: rename_columns(bundle, "memberships"),
            "memberships lack the columns tenant_id, tenant_role, user_id",
        ),
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
    if spoil is not form_otherwise:  # A restore makes the revision's form.
        restored = run("restore_tenant", "--as", "shop2", str(bundle.folder))
        assert (restored.exit_code, said in restored.output) == (1, True), restored
    assert world(fresh_database) == before


def test_a_forged_row_whose_sums_and_proof_were_forged_along_is_found_by_the_audit(
    fresh_database: Database, bundle: Bundle, backup_policy: BackupPolicy
) -> None:
    forged = rewritten(bundle, "wallet_transactions", lambda line: line.replace(b"Ana was billed twice", b"No reason"))
    with pytest.raises(VerificationFailed, match="hash does not match the row"):
        verify(
            replace(destination(fresh_database), backup_policy=replace(backup_policy, prove=forged_proof(forged))),
            forged,
        )


def forged_proof(bundle: Bundle) -> Callable[[psycopg.Connection[Any]], dict[str, Any]]:
    return lambda _: dict(bundle.manifest.proof)
