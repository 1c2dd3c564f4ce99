"""A folder that anybody may have written blocks no reader, leads to no other file, and has no other content."""

import os
from collections.abc import Callable
from pathlib import Path
from socket import AF_UNIX, socket

import pytest

from tenant_schemas.backup import bundle_files
from tenant_schemas.backup.bundle import Bundle, open_bundle
from tenant_schemas.backup.bundle_files import read_small_file, stored_file
from tenant_schemas.errors import BundleBroken
from tests.factories.backups import KEYS

WALLETS = "tables/wallets.copy.gz"


def make_socket(path: Path) -> None:
    with socket(AF_UNIX) as made:
        made.bind(os.path.relpath(path))


REPLACEMENTS: list[Callable[[Path], None]] = [
    os.mkfifo,
    lambda path: path.symlink_to("/dev/zero"),
    lambda path: path.symlink_to(path.with_name("orders.copy.gz")),
    make_socket,
    Path.mkdir,
]


@pytest.mark.parametrize("replace", REPLACEMENTS, ids=["fifo", "device", "link", "socket", "folder"])
@pytest.mark.parametrize("name", [WALLETS, "manifest.json", "manifest.mac"])
def test_a_file_that_is_none_is_refused(
    bundle: Bundle, name: str, replace: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bundle.folder / name
    path.unlink()
    monkeypatch.chdir(path.parent)  # The path of a socket is short.
    replace(path)
    with pytest.raises(BundleBroken):
        open_bundle(bundle.folder, KEYS, accepts_foreign=True)


def test_a_folder_that_is_a_link_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    """Also if it is put there after all files were looked at."""
    (file,) = [each for each in bundle.manifest.tables if each.name == "wallets"]
    (bundle.folder / "tables").rename(tmp_path / "elsewhere")
    (bundle.folder / "tables").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleBroken, match="'tables' is no regular file"):
        open_bundle(bundle.folder, KEYS)
    with pytest.raises(OSError, match="Not a directory"), stored_file(bundle.folder, file.file, file.bytes, "") as _:
        pass


@pytest.mark.parametrize("name", ["notes.txt", "tables/more.copy.gz", "deep/er/file", "\x1b[31m"])
def test_a_file_that_the_manifest_does_not_name_is_refused(bundle: Bundle, name: str) -> None:
    path = bundle.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with pytest.raises(BundleBroken) as refused:
        open_bundle(bundle.folder, KEYS)
    assert repr(name) in str(refused.value)


def test_a_folder_of_too_many_files_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_files, "_MOST_FILES", 5)
    with pytest.raises(BundleBroken, match="more than 5 files"):
        open_bundle(bundle.folder, KEYS)


def test_a_file_that_grew_is_read_one_byte_too_far_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1_000_000))
    with stored_file(tmp_path, "file", 10, "") as stored:
        assert len(stored.read()) == 11
        with pytest.raises(BundleBroken, match="changed or damaged"):
            stored.check()
    with pytest.raises(BundleBroken, match="larger than 10 bytes"):
        read_small_file(tmp_path, "file", 10)


def test_a_file_that_changed_after_the_check_is_found_when_it_was_read(bundle: Bundle) -> None:
    (file,) = [each for each in bundle.manifest.tables if each.name == "ledger_accounts"]
    opened = open_bundle(bundle.folder, KEYS)
    path = bundle.folder / file.file
    content = bytearray(path.read_bytes())
    content[9] ^= 1  # The name of an operating system, which gzip's own checksum does not cover.
    path.write_bytes(content)
    with pytest.raises(BundleBroken, match=r"ledger_accounts\.copy\.gz.*changed or damaged"):
        list(opened.lines(file))
