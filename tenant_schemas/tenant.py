"""The tenant, and the rule for its names.

A name that passes `check_name` is safe in a URL, in a host name except for `_`, and in PostgreSQL without quotes. SQL
quotes it nevertheless.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

from tenant_schemas.errors import NameRefused
from tenant_schemas.names import has_format_character, is_blank, is_printable

# PostgreSQL truncates identifiers at 63 bytes without an error. With these limits `tenant_<slug>` has at most 39 bytes,
# and a schema name with a dated suffix (`_restored_20260101`) fits, so no name is ever truncated.
SLUG_MAX_LENGTH = 32
SCHEMA_NAME_MAX_LENGTH = 40
DISPLAY_NAME_MAX_LENGTH = 200
SHARED_SCHEMA = "shared"
RESERVED_NAMES = frozenset({"information_schema", "public", SHARED_SCHEMA})

_NAME = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)


class TenantStatus(StrEnum):
    """Requests are served only for `active` tenants. `suspended` and `archived` ones keep their data."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    ARCHIVED = "archived"


@dataclass(frozen=True, slots=True)
class Tenant:
    """One row of the registry. Tenants are equal if all columns of their rows are."""

    id: UUID
    slug: str
    schema_name: str
    role_name: str
    name: str
    status: TenantStatus
    login_epoch: int
    revision: str
    settings: Mapping[str, Any] = field(hash=False)

    @property
    def is_active(self) -> bool:
        return self.status is TenantStatus.ACTIVE


def is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def check_name(name: str, max_length: int) -> str:
    """Return `name` if the rule allows it. Raises NameRefused, whose message states the rule."""
    if not is_name(name) or len(name) > max_length:
        raise NameRefused(
            f"{name!r} is not a valid name: use a lower-case letter, then lower-case letters, digits or _, "
            f"{max_length} characters at most."
        )
    if name in RESERVED_NAMES or name.startswith("pg_"):
        raise NameRefused(f"{name!r} is reserved: choose another name.")
    return name


def check_slug(slug: str, reserved: frozenset[str] = frozenset()) -> str:
    """Return `slug` if it is valid. Raises NameRefused. `reserved`: the first segments of the application's routes."""
    if slug in reserved:
        raise NameRefused(f"{slug!r} is reserved: it is the first segment of a route. Choose another slug.")
    return check_name(slug, SLUG_MAX_LENGTH)


def check_schema_name(schema_name: str) -> str:
    """Return `schema_name` if it is valid for a tenant's schema. Raises NameRefused."""
    return check_name(schema_name, SCHEMA_NAME_MAX_LENGTH)


def check_display_name(name: str) -> str:
    """Return `name` if people can be shown it as it is. Raises NameRefused."""
    is_plain = is_printable(name) and not has_format_character(name) and not is_blank(name)
    if not is_plain or len(name) > DISPLAY_NAME_MAX_LENGTH:
        raise NameRefused(
            f"{name[:DISPLAY_NAME_MAX_LENGTH]!r} is not a valid display name: use 1 to {DISPLAY_NAME_MAX_LENGTH}"
            " printable characters, not only blanks."
        )
    return name


def default_schema_name(slug: str) -> str:
    return f"{slug}_schema"


def role_name_of(slug: str) -> str:
    return f"tenant_{slug}"
