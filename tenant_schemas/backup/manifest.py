"""The manifest of a bundle: a JSON file with the tenant, the files with their digests, and the proof. Reading it is
strict: a missing, unknown or wrongly typed field raises BundleBroken.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from datetime import UTC, datetime
from types import UnionType
from typing import Any, Final, NewType, TypeVar, get_args, get_origin, get_type_hints
from uuid import UUID

from tenant_schemas.backup.data_time import DataTime
from tenant_schemas.errors import BundleBroken, NameRefused
from tenant_schemas.printable import printable
from tenant_schemas.schema_diff.effects import DriftedObject, Effect
from tenant_schemas.tenant import TenantStatus, check_schema_name, check_slug

FORMAT: Final = 3
# Format 1 has neither a signature nor the sizes of unpacked rows; formats 1 and 2 lack the time of the data.
_READABLE: Final = (1, 2, FORMAT)
MANIFEST_NAME: Final = "manifest.json"
# The member `content` of the manifest of a bundle of the schema shared; a tenant's manifest has no such member.
SHARED_CONTENT: Final = "shared"

# Only this text may have characters that are not printable. Show it by `printable`.
DisplayName = NewType("DisplayName", str)
Fields = TypeVar("Fields")


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsFile:
    """The file with one table's rows: their number, `hash` over the rows in any order, and `sha256` of the file.
    `unpacked_bytes` and `longest_row` bound what it may unpack to; None in a bundle of format 1.
    """

    name: str
    file: str
    columns: tuple[str, ...]
    rows: int
    hash: str
    sha256: str
    bytes: int
    unpacked_bytes: int | None = None
    longest_row: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpFile:
    """The file that pg_dump wrote of the schema."""

    file: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BackedUpTenant:
    """The tenant's row of the registry, without the columns of its login role."""

    id: UUID
    slug: str
    schema_name: str
    name: DisplayName
    status: TenantStatus
    settings: Mapping[str, Any]
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All facts of a bundle except the rows. It contains no personal data. `taken_at` is the time of the backup, and
    `data` that of its data; None in a bundle of format 1 or 2. `drift` has the objects in which the schema differed
    from its revision; None in a bundle of format 1 or 2, and of a retired schema, which is not compared.
    """

    format: int = FORMAT
    tenant: BackedUpTenant
    shared_revision: str
    fingerprint: str
    server_version: str
    taken_at: datetime
    snapshot: str
    tables: tuple[RowsFile, ...]
    shared: tuple[RowsFile, ...]
    proof: Mapping[str, Any]
    dump: DumpFile | None
    sealed_for: tuple[str, ...]
    data: DataTime | None = None
    drift: tuple[DriftedObject, ...] | None = None

    @property
    def files(self) -> tuple[RowsFile | DumpFile, ...]:
        """Every file of the bundle except the manifest."""
        return (*self.tables, *self.shared, *((self.dump,) if self.dump else ()))

    @property
    def is_restorable(self) -> bool:
        """Whether a restore can load the rows, as far as the backup saw. If it did not compare the schema, a file of
        pg_dump is a sign that the tenant had drifted.
        """
        if self.drift is None:
            return self.dump is None
        return all(each.effect is not Effect.BREAKS for each in self.drift)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, default=str, ensure_ascii=False) + "\n"


def manifest_from_json(text: str | bytes) -> Manifest:
    """Raises BundleBroken if the text is no manifest of a tenant, or has a format that this code does not know."""
    value = json_of_manifest(text)
    if content_of(value) == SHARED_CONTENT:
        raise BundleBroken(
            "it is a bundle of the schema shared, and no tenant's. `python -m scripts.restore_installation` restores "
            "it, with the tenants of the same folder."
        )
    manifest: Manifest = _read(value, Manifest, MANIFEST_NAME)
    _check_names(manifest)
    return manifest


def json_of_manifest(text: str | bytes) -> Any:
    """The JSON of a manifest of a readable format, otherwise unchecked. Raises BundleBroken."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleBroken(f"{MANIFEST_NAME} is no valid JSON: {error}") from None
    found = value.get("format") if isinstance(value, dict) else None
    if type(found) is not int or found not in _READABLE:
        raise BundleBroken(
            f"{MANIFEST_NAME} has the format {str(found)[:40]!r}, and this code reads only formats 1 to {FORMAT}: "
            "use the version of this software that wrote the bundle."
        )
    return value


def content_of(value: Mapping[str, Any]) -> Any:
    """What a manifest's bundle contains: SHARED_CONTENT, or None for a tenant."""
    return value.get("content")


def manifest_value(value: Any, expected: type[Fields]) -> Fields:
    """A manifest's JSON as this dataclass. Raises BundleBroken."""
    found: Fields = _read(value, expected, MANIFEST_NAME)
    return found


def _check_names(manifest: Manifest) -> None:
    """The tenant's names follow the rule of new tenants, and the files that of `check_file_names`."""
    try:
        check_slug(manifest.tenant.slug)
        check_schema_name(manifest.tenant.schema_name)
    except NameRefused as error:
        raise BundleBroken(f"{MANIFEST_NAME}.tenant: {error}") from None
    check_file_names(manifest.files)


def check_file_names(files: Sequence[RowsFile | DumpFile]) -> None:
    """Raises BundleBroken unless each file is named once, by a path in the bundle."""
    names = [each.file for each in files]
    for name in names:
        if not all(part not in {"", ".", ".."} for part in name.split("/")):
            raise BundleBroken(f"{MANIFEST_NAME} names {name!r}, which is outside of the bundle.")
    if len(set(names)) != len(names):
        raise BundleBroken(f"{MANIFEST_NAME} names a file twice.")


def _read(value: Any, expected: Any, path: str) -> Any:
    """`value` as the type `expected`. Strict, because a forged or truncated JSON file may contain anything."""
    if get_origin(expected) is tuple and isinstance(value, list):
        return tuple(_read(each, get_args(expected)[0], f"{path}[{number}]") for number, each in enumerate(value))
    if isinstance(expected, UnionType):
        return None if value is None else _read(value, get_args(expected)[0], path)
    if hasattr(expected, "__dataclass_fields__"):
        return _read_fields(value, expected, path)
    if get_origin(expected) is Mapping and isinstance(value, dict):
        return value
    if expected is int and type(value) is int and value >= 0:
        return value
    if isinstance(value, str) and expected in _FROM_TEXT:
        try:
            return _FROM_TEXT[expected](value)
        except (ValueError, OverflowError) as error:
            raise BundleBroken(f"{path}: {error}") from None
    raise BundleBroken(f"{path} has the invalid value {str(value)[:40]!r}.")


def _text(text: str) -> str:
    """Raises ValueError for a text that is not UTF-8, or that could not be shown in a terminal."""
    text.encode()
    if not text.isprintable():
        raise ValueError(f"{printable(text)} has characters that are not printable")
    return text


def _display_name(text: str) -> DisplayName:
    """Raises ValueError for a text that PostgreSQL refuses. Tenants of older versions may have any other."""
    text.encode()
    if "\0" in text:
        raise ValueError("it contains a NUL character")
    return DisplayName(text)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("it has no time zone")
    return moment.astimezone(UTC)


_FROM_TEXT: Final[Mapping[Any, Any]] = {
    str: _text,
    DisplayName: _display_name,
    UUID: UUID,
    TenantStatus: TenantStatus,
    Effect: Effect,
    datetime: _moment,
}


def _read_fields(value: Any, expected: type, path: str) -> Any:
    names = {each.name for each in fields(expected)}
    required = {each.name for each in fields(expected) if each.default is MISSING or each.name == "format"}
    found = set(value) if isinstance(value, dict) else set()
    if not isinstance(value, dict) or not required <= found <= names:
        missing, unknown = sorted(required - found), sorted(found - names)
        raise BundleBroken(f"{path} has missing fields {missing} and unknown fields {unknown}.")
    types = get_type_hints(expected)
    return expected(**{name: _read(value[name], types[name], f"{path}.{name}") for name in value})
