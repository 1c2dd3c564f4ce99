"""A bundle: the folder on disk that holds one tenant's backup. It opens only if a key of this installation signed it
and it has exactly the files of its manifest, each a regular file of the manifest's size and SHA-256.

A folder whose name ends in `.partial` is never a bundle: it is an unfinished backup.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from tenant_schemas.backup.bundle_files import StoredFile, files_in, read_small_file, stored_file
from tenant_schemas.backup.decompression import Reader, unpacked_lines
from tenant_schemas.backup.encryption import SUFFIX, Identities, decrypted, read_identities
from tenant_schemas.backup.manifest import MANIFEST_NAME, DumpFile, Manifest, RowsFile, manifest_from_json
from tenant_schemas.backup.signature import SIGNATURE_NAME, BundleKeys, Origin
from tenant_schemas.errors import BundleBroken, BundleForeign

PARTIAL = ".partial"
# Of a bundle that is not ours. PostgreSQL's own limit is 1 GB for a field.
MOST_FOREIGN_ROW_BYTES: Final = 1 << 26
_MOST_MANIFEST_BYTES: Final = 1 << 24
_MOST_SIGNATURE_BYTES: Final = 1 << 10

AnyManifest = TypeVar("AnyManifest")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A complete bundle, with the identities that decrypt its files. Only `open_bundle` says where one comes from."""

    folder: Path
    manifest: Manifest
    origin: Origin
    identities: Identities = field(default=(), repr=False)

    def lines(self, rows: RowsFile) -> Iterator[bytes]:
        """`lines_of_file` with the bundle's identities."""
        return lines_of_file(self.folder, rows, self.origin, self.identities)


def lines_of_file(folder: Path, rows: RowsFile, origin: Origin, identities: Identities) -> Iterator[bytes]:
    """A table's rows as lines for COPY … FROM STDIN, each with its line feed. Raises BundleEncrypted if no identity
    decrypts them, BundleBroken if the file can't be read, has changed since the bundle was opened, or unpacks to more
    than its manifest says.
    """
    longest = rows.longest_row if origin is Origin.OWN else None
    bound = MOST_FOREIGN_ROW_BYTES if longest is None else longest
    try:
        with stored_file(folder, rows.file, rows.bytes, rows.sha256) as stored:
            with _plain(rows, stored, identities) as plain:
                yield from unpacked_lines(plain, most_bytes=rows.unpacked_bytes, longest_line=bound)
            stored.check()
    except (zlib.error, OSError, BundleBroken) as error:
        raise BundleBroken(f"{folder / rows.file} can't be read: {error}") from None


@contextmanager
def _plain(rows: RowsFile, stored: StoredFile, identities: Identities) -> Iterator[Reader]:
    if rows.file.endswith(SUFFIX):
        with decrypted(stored, rows.file, identities) as plain:
            yield plain
    else:
        yield stored


def open_bundle(
    folder: Path, keys: BundleKeys, identity_file: Path | None = None, *, accepts_foreign: bool = False
) -> Bundle:
    """Check the signature and all files of a bundle and return it. Unless it `accepts_foreign`, raises BundleForeign
    for a bundle that no key of this installation signed. Raises BundleBroken, or KeyRefused for an invalid identity
    file.
    """
    manifest, origin = read_manifest(folder, keys)
    if origin is not Origin.OWN and not accepts_foreign:
        raise foreign(folder, origin, "If you know where it comes from, use --accept-foreign.")
    check_files(folder, manifest.files, origin)
    return Bundle(folder, manifest, origin, read_identities(identity_file) if identity_file else ())


def foreign(folder: Path, origin: Origin, remedy: str) -> BundleForeign:
    return BundleForeign(
        f"{folder} is {origin}: no key of this installation (BACKUP_KEY_FILE, TENANT_SECRET) signed it, so anyone"
        f" may have written it. {remedy}"
    )


def read_manifest(folder: Path, keys: BundleKeys) -> tuple[Manifest, Origin]:
    """The manifest and its origin, without a check of the other files. Raises BundleBroken."""
    return read_manifest_as(manifest_from_json, folder, keys)


def read_manifest_as(
    read: Callable[[bytes], AnyManifest], folder: Path, keys: BundleKeys
) -> tuple[AnyManifest, Origin]:
    """The manifest, made by `read` from the content of its file, and its origin. Raises BundleBroken."""
    if folder.name.endswith(PARTIAL):
        raise BundleBroken(f"{folder} is no bundle: it is an unfinished backup. Use another bundle.")
    try:
        content = read_small_file(folder, MANIFEST_NAME, _MOST_MANIFEST_BYTES)
        origin = keys.origin(content, _signature(folder))
        return read(content), origin
    except OSError as error:
        raise BundleBroken(f"{folder} is no bundle: can't read its {MANIFEST_NAME}: {error.strerror}.") from None
    except BundleBroken as error:
        raise BundleBroken(f"{folder}: {error}") from None


def file_names(manifest: Manifest, origin: Origin) -> set[str]:
    """The paths of all files that the bundle must have."""
    return _names_of(manifest.files, origin)


def _names_of(files: Sequence[RowsFile | DumpFile], origin: Origin) -> set[str]:
    signature = set() if origin is Origin.UNSIGNED else {SIGNATURE_NAME}
    return {MANIFEST_NAME, *signature, *(each.file for each in files)}


def _signature(folder: Path) -> bytes | None:
    try:
        return read_small_file(folder, SIGNATURE_NAME, _MOST_SIGNATURE_BYTES)
    except FileNotFoundError:
        return None


def check_files(folder: Path, files: Sequence[RowsFile | DumpFile], origin: Origin) -> None:
    """Raises BundleBroken unless the folder has exactly these files, the manifest and its signature."""
    try:
        _check_files(folder, files, origin)
    except BundleBroken as error:
        raise BundleBroken(f"{folder}: {error}") from None
    except OSError as error:
        raise BundleBroken(f"{folder}: {error.filename or 'a file'}: {error.strerror}.") from None


def _check_files(folder: Path, files: Sequence[RowsFile | DumpFile], origin: Origin) -> None:
    expected, found = _names_of(files, origin), files_in(folder)
    if more := sorted(found - expected):
        raise BundleBroken(f"its manifest does not name {more[0]!r}.")
    if lacking := sorted(expected - found):
        raise BundleBroken(f"{lacking[0]} is missing.")
    for each in files:
        with stored_file(folder, each.file, each.bytes, each.sha256) as stored:
            stored.check()
