"""Reads the files of a bundle that anybody may have written: regular files only, of a known size, and no links.

A pipe would block its reader for ever, a link leads out of the folder, and a large file fills the memory.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tenant_schemas.errors import BundleBroken

_MOST_FILES: Final = 10_000


class StoredFile:
    """An open file of a bundle. It is hashed while it is read, and `check` compares it with the manifest."""

    def __init__(self, descriptor: int, name: str, size: int, digest: str) -> None:
        self._file = os.fdopen(descriptor, "rb")
        self._name, self._size, self._digest = name, size, digest
        self._hash, self._read = hashlib.sha256(), 0

    def read(self, size: int = -1, /) -> bytes:
        """At most one byte more than the manifest says: enough to find that the file is longer."""
        rest = self._size + 1 - self._read
        data = self._file.read(rest if size < 0 else min(size, rest))
        self._hash.update(data)
        self._read += len(data)
        return data

    def check(self) -> None:
        """Read the rest. Raises BundleBroken unless the file has the size and the digest of the manifest."""
        while self.read(1 << 20):
            pass
        if self._read != self._size or self._hash.hexdigest() != self._digest:
            raise BundleBroken(
                f"{self._name} was changed or damaged: its size or sha256 is not the manifest's. Use another bundle."
            )

    def close(self) -> None:
        self._file.close()


@contextmanager
def stored_file(folder: Path, name: str, size: int, digest: str) -> Iterator[StoredFile]:
    """A file of the manifest. Raises BundleBroken if it is no regular file, and OSError."""
    stored = StoredFile(_open_regular(folder, name), name, size, digest)
    try:
        yield stored
    finally:
        stored.close()


def read_small_file(folder: Path, name: str, most_bytes: int) -> bytes:
    """The content of a file. Raises BundleBroken if it is larger or no regular file, and OSError."""
    with os.fdopen(_open_regular(folder, name), "rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise BundleBroken(f"{name} is larger than {most_bytes} bytes, so it is none of a bundle.")
    return content


def files_in(folder: Path) -> set[str]:
    """The paths of all files, relative to the folder. Raises BundleBroken for anything but files and folders, and for
    too many files.
    """
    found: set[str] = set()
    pending = [""]
    while pending:
        inside = pending.pop()
        with os.scandir(folder / inside) as entries:
            for entry in entries:
                path = f"{inside}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{path}/")
                elif entry.is_file(follow_symlinks=False):
                    found.add(path)
                else:
                    raise BundleBroken(f"{path!r} is no regular file: a bundle has no links, pipes and devices.")
                if len(found) + len(pending) > _MOST_FILES:
                    raise BundleBroken(f"it has more than {_MOST_FILES} files.")
    return found


def _open_regular(folder: Path, name: str) -> int:
    """Opens each folder of the path without following links: one may have been put there after the look at all files.
    O_NONBLOCK keeps a pipe from blocking.
    """
    *folders, file = name.split("/")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for each in folders:
            inner = os.open(each, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        opened = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=descriptor)
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise BundleBroken(f"{name!r} is no regular file.")
    return opened
