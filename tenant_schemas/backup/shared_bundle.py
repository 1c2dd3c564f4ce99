"""A bundle of the schema shared: the users with their password hashes, the members, the API keys, the registry and all
else that tenants' bundles lack. It has the form of a tenant's bundle, and a manifest of its own.

Its folder is `shared-TIME`: no tenant may have that slug.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from tenant_schemas.backup.bundle import check_files, foreign, lines_of_file, read_manifest_as
from tenant_schemas.backup.data_time import DataTime
from tenant_schemas.backup.encryption import Identities, read_identities
from tenant_schemas.backup.manifest import (
    FORMAT,
    MANIFEST_NAME,
    SHARED_CONTENT,
    RowsFile,
    check_file_names,
    content_of,
    json_of_manifest,
    manifest_value,
)
from tenant_schemas.backup.own_identity import own_identities
from tenant_schemas.backup.signature import BundleKeys, Origin
from tenant_schemas.errors import BundleBroken

SHARED_BUNDLE: Final = "shared"


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedManifest:
    """All facts of the bundle except the rows. It contains no personal data. `tenants` is their number."""

    format: int = FORMAT
    content: str = SHARED_CONTENT
    shared_revision: str
    server_version: str
    taken_at: datetime
    data: DataTime
    tenants: int
    tables: tuple[RowsFile, ...]
    sealed_for: tuple[str, ...]

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.tables)

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.tables)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, default=str, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class SharedBundle:
    """A complete bundle of the schema shared, with the identities that decrypt its files."""

    folder: Path
    manifest: SharedManifest
    origin: Origin
    identities: Identities = field(default=(), repr=False)

    def lines(self, rows: RowsFile) -> Iterator[bytes]:
        """`lines_of_file` with the bundle's identities."""
        return lines_of_file(self.folder, rows, self.origin, self.identities)

    def find_file(self, table: str) -> RowsFile | None:
        """The file with the table's rows, or None."""
        return next((file for file in self.manifest.tables if file.name == table), None)


def open_shared_bundle(folder: Path, keys: BundleKeys, identity_file: Path | None = None) -> SharedBundle:
    """Check the signature and all files of the bundle and return it. Raises BundleForeign, BundleBroken, and KeyRefused
    for an invalid identity file. There is no way round the signature: its users would log in, and its operators rule.
    """
    manifest, origin = read_shared_manifest(folder, keys)
    if origin is not Origin.OWN:
        raise foreign(folder, origin, "Set BACKUP_KEY_FILE or TENANT_SECRET to that of the lost installation.")
    check_files(folder, manifest.tables, origin)
    given = read_identities(identity_file) if identity_file else ()
    return SharedBundle(folder, manifest, origin, [*given, *own_identities(keys)])


def read_shared_manifest(folder: Path, keys: BundleKeys) -> tuple[SharedManifest, Origin]:
    """The manifest and its origin, without a check of the other files. Raises BundleBroken."""
    return read_manifest_as(shared_manifest_from_json, folder, keys)


def shared_manifest_from_json(text: str | bytes) -> SharedManifest:
    """Raises BundleBroken if the text is no manifest of the schema shared."""
    value = json_of_manifest(text)
    if content_of(value) != SHARED_CONTENT:
        raise BundleBroken(f"its {MANIFEST_NAME} is not that of a bundle of the schema shared.")
    manifest = manifest_value(value, SharedManifest)
    check_file_names(manifest.tables)
    return manifest


def is_of_shared(folder: Path) -> bool:
    """Whether the folder's name is that of a bundle of the schema shared."""
    return folder.name.startswith(f"{SHARED_BUNDLE}-")
