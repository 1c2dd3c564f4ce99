"""A bundle: the folder on disk that holds one tenant's backup. It opens only if every file of its manifest exists and
has the manifest's SHA-256.

A folder whose name ends in `.partial` is never a bundle: it is an unfinished backup.
"""

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tenant_schemas.backup.encryption import SUFFIX, Identities, decrypted, read_identities
from tenant_schemas.backup.manifest import MANIFEST_NAME, DumpFile, Manifest, RowsFile, manifest_from_json
from tenant_schemas.errors import BundleBroken

PARTIAL = ".partial"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A complete bundle, with the identities that decrypt its files."""

    folder: Path
    manifest: Manifest
    identities: Identities = field(default=(), repr=False)

    def lines(self, rows: RowsFile) -> Iterator[bytes]:
        """A table's rows as lines for COPY … FROM STDIN, each with its line feed. Raises BundleEncrypted if no identity
        decrypts them, BundleBroken if the file can't be read.
        """
        try:
            with self._stored(rows) as stored, gzip.open(stored) as plain:
                yield from plain
        except (EOFError, zlib.error, OSError) as error:
            raise BundleBroken(f"{self.folder / rows.file} can't be read: {error}") from None

    def _stored(self, rows: RowsFile) -> AbstractContextManager[BinaryIO]:
        path = self.folder / rows.file
        return decrypted(path, self.identities) if rows.file.endswith(SUFFIX) else path.open("rb")


def open_bundle(folder: Path, identity_file: Path | None = None) -> Bundle:
    """Check all files of a bundle and return it. Raises BundleBroken, or KeyRefused for an invalid identity file."""
    manifest = read_manifest(folder)
    for each in manifest.files:
        _check_file(folder, each)
    return Bundle(folder, manifest, read_identities(identity_file) if identity_file else ())


def read_manifest(folder: Path) -> Manifest:
    """The manifest, without a check of the other files. Raises BundleBroken."""
    if folder.name.endswith(PARTIAL):
        raise BundleBroken(f"{folder} is no bundle: it is an unfinished backup. Use another bundle.")
    try:
        return manifest_from_json((folder / MANIFEST_NAME).read_bytes())
    except OSError as error:
        raise BundleBroken(f"{folder} is no bundle: can't read its {MANIFEST_NAME}: {error.strerror}.") from None
    except BundleBroken as error:
        raise BundleBroken(f"{folder}: {error}") from None


def _check_file(folder: Path, named: RowsFile | DumpFile) -> None:
    parts = PurePosixPath(named.file).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise BundleBroken(f"{folder}: {MANIFEST_NAME} names {named.file!r}, which is outside of the bundle.")
    try:
        with (folder / named.file).open("rb") as stored:
            found = hashlib.file_digest(stored, "sha256").hexdigest()
    except OSError as error:
        raise BundleBroken(f"{folder}: {named.file}: {error.strerror}.") from None
    if found != named.sha256:
        raise BundleBroken(f"{folder}: {named.file} was changed or damaged: its sha256 differs. Use another bundle.")
