"""A bundle opens only with the keys that signed it, and every byte of it is signed."""

import random
from pathlib import Path

import pytest

from tenant_schemas.backup.bundle import Bundle, open_bundle, read_manifest
from tenant_schemas.backup.signature import SIGNATURE_NAME, BundleKeys, Origin, derived_key, read_key_file
from tenant_schemas.errors import BackupError, BundleBroken, BundleForeign, KeyRefused
from tests.factories.backups import FOREIGN_KEYS, KEYS, write_manifest


def test_a_bundle_of_another_installation_needs_to_be_accepted_by_name(bundle: Bundle) -> None:
    with pytest.raises(BundleForeign, match=r"foreign.*--accept-foreign"):
        open_bundle(bundle.folder, FOREIGN_KEYS)
    assert open_bundle(bundle.folder, FOREIGN_KEYS, accepts_foreign=True).origin is Origin.FOREIGN
    assert open_bundle(bundle.folder, KEYS, accepts_foreign=True).origin is Origin.OWN


def test_a_bundle_without_a_signature_needs_to_be_accepted_by_name(bundle: Bundle) -> None:
    """As those of earlier versions are."""
    (bundle.folder / SIGNATURE_NAME).unlink()
    with pytest.raises(BundleForeign, match="unsigned"):
        open_bundle(bundle.folder, KEYS)
    assert open_bundle(bundle.folder, KEYS, accepts_foreign=True).origin is Origin.UNSIGNED


def test_after_a_rotation_the_newest_key_signs_and_older_ones_are_believed(bundle: Bundle, tmp_path: Path) -> None:
    rotated = BundleKeys([b"n" * 32, *KEYS.keys])
    assert open_bundle(bundle.folder, rotated).origin is Origin.OWN
    write_manifest(bundle.folder, bundle.manifest.to_json(), rotated)
    assert read_manifest(bundle.folder, BundleKeys([b"n" * 32]))[1] is Origin.OWN
    assert read_manifest(bundle.folder, KEYS)[1] is Origin.FOREIGN


def test_any_changed_byte_of_any_file_is_found(bundle: Bundle) -> None:
    """Also if the bundle may be foreign: what this installation signed must be as it was signed."""
    picked = random.Random(1)
    for path in sorted(each for each in bundle.folder.rglob("*") if each.is_file()):
        content = path.read_bytes()
        for place in {0, len(content) - 1, *(picked.randrange(len(content)) for _ in range(3))}:
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            with pytest.raises(BackupError):
                open_bundle(bundle.folder, KEYS)
        path.write_bytes(content)
    open_bundle(bundle.folder, KEYS)
    manifest = (bundle.folder / "manifest.json").read_text()
    (bundle.folder / "manifest.json").write_text(manifest.replace('"rows": 1', '"rows": 2', 1))
    with pytest.raises(BundleBroken, match="changed after it was signed"):
        open_bundle(bundle.folder, KEYS, accepts_foreign=True)


@pytest.mark.parametrize("content", [b"", b"hmac-sha256\n", b"x" * 2000, b"hmac-sha256 0123456789abcdef 00\n"])
def test_what_is_no_signature_is_refused(bundle: Bundle, content: bytes) -> None:
    (bundle.folder / SIGNATURE_NAME).write_bytes(content)
    with pytest.raises(BundleBroken):
        open_bundle(bundle.folder, KEYS, accepts_foreign=True)


def test_a_key_file_has_keys_newest_first(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# of today\n{'0b' * 32}\n\n{'0a' * 32}\n")
    assert read_key_file(file) == [b"\x0b" * 32, b"\x0a" * 32]
    for content in ("", "# nothing\n", "0b" * 31, "0B" * 32, f"{'0b' * 32} x", "\udcff"):
        file.write_bytes(content.encode("utf-8", "surrogateescape"))
        with pytest.raises(KeyRefused, match="keys"):
            read_key_file(file)
    with pytest.raises(KeyRefused, match="No such file"):
        read_key_file(tmp_path / "none")


def test_a_derived_key_is_that_of_one_secret() -> None:
    assert derived_key("a") == derived_key("a") != derived_key("b")
    assert len(derived_key("a")) == 32
