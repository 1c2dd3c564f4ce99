"""The manifest of a bundle: what is in it and what must hold, as JSON. Reading refuses whatever is not exactly that."""

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
    """The rows of one table: where they are, how many, and two digests: of the rows in any order, and of the file."""

    name: str
    file: str
    columns: tuple[str, ...]
    rows: int
    hash: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpFile:
    """pg_dump's own file of the schema."""

    file: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BackedUpTenant:
    """The tenant's row of the registry, without what belongs to its login."""

    id: UUID
    slug: str
    schema_name: str
    name: str
    status: TenantStatus
    settings: Mapping[str, Any]
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All of a bundle but the rows. It tells of no person."""

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
        """Every file of the bundle but the manifest."""
        return (*self.tables, *self.shared, *((self.dump,) if self.dump else ()))

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, default=str, ensure_ascii=False) + "\n"


def manifest_from_json(text: str | bytes) -> Manifest:
    """Raises BundleBroken for what is no manifest, or one of a format that this code does not know."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleBroken(f"{MANIFEST_NAME} is no JSON: {error}") from None
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        found = told.get("format") if isinstance(told, dict) else None
        raise BundleBroken(f"{MANIFEST_NAME} has the format {found!r}; this code reads format {FORMAT}.")
    manifest: Manifest = _read(told, Manifest, MANIFEST_NAME)
    return manifest


def _read(told: Any, wanted: Any, where: str) -> Any:
    """`told` as the type `wanted`; exactly that, for JSON that was tampered with or cut may hold anything."""
    if get_origin(wanted) is tuple and isinstance(told, list):
        return tuple(_read(each, get_args(wanted)[0], f"{where}[{number}]") for number, each in enumerate(told))
    if isinstance(wanted, UnionType):
        return None if told is None else _read(told, get_args(wanted)[0], where)
    if hasattr(wanted, "__dataclass_fields__"):
        return _read_fields(told, wanted, where)
    if get_origin(wanted) is Mapping and isinstance(told, dict):
        return told
    if wanted is int and type(told) is int and told >= 0:
        return told
    if isinstance(told, str) and wanted in _FROM_TEXT:
        try:
            return _FROM_TEXT[wanted](told)
        except (ValueError, OverflowError) as error:
            raise BundleBroken(f"{where}: {error}") from None
    raise BundleBroken(f"{where} can't be {str(told)[:40]!r}.")


def _text(text: str) -> str:
    """What PostgreSQL and file systems take: no NUL, and nothing that UTF-8 can't say."""
    text.encode()
    if "\0" in text:
        raise ValueError("there is a NUL in it")
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


def _read_fields(told: Any, wanted: type, where: str) -> Any:
    names = {each.name for each in fields(wanted)}
    if not isinstance(told, dict) or set(told) != names:
        found = set(told) if isinstance(told, dict) else set()
        raise BundleBroken(f"{where} lacks {sorted(names - found)} and has {sorted(found - names)} too much.")
    types = get_type_hints(wanted)
    return wanted(**{name: _read(told[name], types[name], f"{where}.{name}") for name in told})
