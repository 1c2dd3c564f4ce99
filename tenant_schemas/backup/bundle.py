"""A bundle as a folder on disk: opened only if every file that its manifest names is there, and is what it was.

A folder whose name ends in `.partial` is never a bundle: it is what a backup that did not end has left.
"""

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tenant_schemas.backup.encryption import SUFFIX, Identities, read_identities, unsealed
from tenant_schemas.backup.manifest import MANIFEST_NAME, DumpFile, Manifest, RowsFile, manifest_from_json
from tenant_schemas.errors import BundleBroken

PARTIAL = ".partial"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A whole bundle: `open_bundle` gives none that isn't."""

    folder: Path
    manifest: Manifest
    identities: Identities = field(default=(), repr=False)

    def lines(self, rows: RowsFile) -> Iterator[bytes]:
        """A table's rows as COPY … FROM STDIN takes them, each with its line feed; raises BundleEncrypted if they are
        encrypted and no identity was given.
        """
        try:
            with self._stored(rows) as stored, gzip.open(stored) as plain:
                yield from plain
        except (EOFError, zlib.error, OSError) as error:
            raise BundleBroken(f"{self.folder / rows.file} can't be read: {error}") from None

    def _stored(self, rows: RowsFile) -> AbstractContextManager[BinaryIO]:
        path = self.folder / rows.file
        return unsealed(path, self.identities) if rows.file.endswith(SUFFIX) else path.open("rb")


def open_bundle(folder: Path, identity_file: Path | None = None) -> Bundle:
    """Check all files of a bundle and return it. Raises BundleBroken, or AgeKeyRefused for a wrong identity file."""
    manifest = read_manifest(folder)
    for each in manifest.files:
        _check_file(folder, each)
    return Bundle(folder, manifest, read_identities(identity_file) if identity_file else ())


def read_manifest(folder: Path) -> Manifest:
    """The manifest alone: enough to know whose bundle it is, not that it is whole. Raises BundleBroken."""
    if folder.name.endswith(PARTIAL):
        raise BundleBroken(f"{folder} is what a backup that did not end has left, and no bundle.")
    try:
        return manifest_from_json((folder / MANIFEST_NAME).read_bytes())
    except OSError as error:
        raise BundleBroken(f"{folder} is no bundle: {error.strerror}: {MANIFEST_NAME}.") from None
    except BundleBroken as error:
        raise BundleBroken(f"{folder}: {error}") from None


def _check_file(folder: Path, named: RowsFile | DumpFile) -> None:
    parts = PurePosixPath(named.file).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise BundleBroken(f"{folder}: {MANIFEST_NAME} names {named.file!r}, which lies outside.")
    try:
        with (folder / named.file).open("rb") as stored:
            found = hashlib.file_digest(stored, "sha256").hexdigest()
    except OSError as error:
        raise BundleBroken(f"{folder}: {named.file}: {error.strerror}.") from None
    if found != named.sha256:
        raise BundleBroken(f"{folder}: {named.file} is not the file that was written: its sha256 differs.")
