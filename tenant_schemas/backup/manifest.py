"""The manifest of a bundle: a JSON file with the tenant, the files with their digests, and the proof. Reading it is
strict: a missing, unknown or wrongly typed field raises BundleBroken.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from types import UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints
from uuid import UUID

from tenant_schemas.errors import BundleBroken
from tenant_schemas.tenant import TenantStatus

FORMAT: Final = 1
MANIFEST_NAME: Final = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsFile:
    """The file with one table's rows: their number, `hash` over the rows in any order, and `sha256` of the file."""

    name: str
    file: str
    columns: tuple[str, ...]
    rows: int
    hash: str
    sha256: str
    bytes: int


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
    name: str
    status: TenantStatus
    settings: Mapping[str, Any]
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All facts of a bundle except the rows. It contains no personal data."""

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

    @property
    def files(self) -> tuple[RowsFile | DumpFile, ...]:
        """Every file of the bundle except the manifest."""
        return (*self.tables, *self.shared, *((self.dump,) if self.dump else ()))

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, default=str, ensure_ascii=False) + "\n"


def manifest_from_json(text: str | bytes) -> Manifest:
    """Raises BundleBroken if the text is no manifest, or has a format that this code does not know."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleBroken(f"{MANIFEST_NAME} is no valid JSON: {error}") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        found = value.get("format") if isinstance(value, dict) else None
        raise BundleBroken(
            f"{MANIFEST_NAME} has the format {found!r}, and this code reads only format {FORMAT}: "
            "use the version of this software that wrote the bundle."
        )
    manifest: Manifest = _read(value, Manifest, MANIFEST_NAME)
    return manifest


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
    """Raises ValueError for a text that PostgreSQL and file systems refuse: with NUL, or not encodable as UTF-8."""
    text.encode()
    if "\0" in text:
        raise ValueError("it contains a NUL character")
    return text


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("it has no time zone")
    return moment.astimezone(UTC)


_FROM_TEXT: Final[Mapping[Any, Any]] = {
    str: _text,
    UUID: UUID,
    TenantStatus: TenantStatus,
    datetime: _moment,
}


def _read_fields(value: Any, expected: type, path: str) -> Any:
    names = {each.name for each in fields(expected)}
    if not isinstance(value, dict) or set(value) != names:
        found = set(value) if isinstance(value, dict) else set()
        missing, unknown = sorted(names - found), sorted(found - names)
        raise BundleBroken(f"{path} has missing fields {missing} and unknown fields {unknown}.")
    types = get_type_hints(expected)
    return expected(**{name: _read(value[name], types[name], f"{path}.{name}") for name in value})
