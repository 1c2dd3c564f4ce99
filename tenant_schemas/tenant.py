"""What a tenant is, and the one rule its names obey.

A name that passes `check_name` is safe in a URL, in a host name but for `_`, and in PostgreSQL without quotes.
It is quoted at the SQL boundary all the same.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

from tenant_schemas.errors import NameRefused

# PostgreSQL cuts identifiers at 63 bytes in silence. With these lengths `tenant_<slug>` has 39 and a schema name with
# a dated suffix (`_restored_20260101`) still fits, so no name is ever cut.
SLUG_MAX_LENGTH = 32
SCHEMA_NAME_MAX_LENGTH = 40
SHARED_SCHEMA = "shared"
RESERVED_NAMES = frozenset({"information_schema", "public", SHARED_SCHEMA})

_NAME = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)


class TenantStatus(StrEnum):
    """`active` is served. `suspended` and `archived` are not; their data stays."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    ARCHIVED = "archived"


@dataclass(frozen=True, slots=True)
class Tenant:
    """One row of the registry. Equal rows are equal tenants; a changed row is another value."""

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
    """Return `name` if the rule allows it, else raise `NameRefused` saying what would be allowed."""
    if not is_name(name) or len(name) > max_length:
        raise NameRefused(
            f"{name!r} is not a name: use a lower-case letter, then lower-case letters, digits or _, "
            f"{max_length} characters at most."
        )
    if name in RESERVED_NAMES or name.startswith("pg_"):
        raise NameRefused(f"{name!r} is reserved: choose another name.")
    return name


def check_slug(slug: str, reserved: frozenset[str] = frozenset()) -> str:
    """Return `slug` if it may name a tenant. `reserved` are the first path segments of the application's routes."""
    if slug in reserved:
        raise NameRefused(f"{slug!r} is reserved: it is the first segment of a route.")
    return check_name(slug, SLUG_MAX_LENGTH)


def check_schema_name(schema_name: str) -> str:
    """Return `schema_name` if it may be a tenant's schema."""
    return check_name(schema_name, SCHEMA_NAME_MAX_LENGTH)


def default_schema_name(slug: str) -> str:
    return f"{slug}_schema"


def role_name_of(slug: str) -> str:
    return f"tenant_{slug}"
