"""The question of every request: who is the caller, and which role does the caller have in the named tenant?"""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from app.users.models import Role
from tenant_schemas.flask import connections
from tenant_schemas.registry import COLUMNS, tenant_from_row
from tenant_schemas.tenant import Tenant


@dataclass(frozen=True, slots=True)
class Standing:
    """A user or an API key, the named tenant, the role in it, and the version of the tenant's row in the registry.
    Tenant, role and version may be None. `has_second_factor` says whether the user proved one in this session.
    """

    id: UUID
    is_operator: bool
    role: Role | None
    tenant: Tenant | None
    tenant_version: int | None
    has_second_factor: bool


@dataclass(frozen=True, slots=True)
class StandingProof:
    """What the tenant's function `wallet_pay_v2` checks: this user's session lasts, the user is a member or an admin of
    the tenant, and the tenant's row in the registry still has this version.
    """

    user_id: UUID
    session_id: UUID
    tenant_version: int


# One query for a tenant that is unknown, suspended or foreign, so that all three cost the same.
_STANDING: Final = f"""
    SELECT u.id, u.is_operator, m.role, t.version, s.second_factor_at IS NOT NULL, {COLUMNS}
    FROM shared.users u
    LEFT JOIN shared.tenants t ON {{named}}
    LEFT JOIN shared.memberships m ON m.tenant_id = t.id AND m.user_id = u.id
    LEFT JOIN shared.sessions s ON s.id = %s AND s.user_id = u.id AND s.ended_at IS NULL
    WHERE u.id = %s AND u.status = 'active' AND (%s::uuid IS NULL OR s.id IS NOT NULL)"""  # noqa: S608


_STANDING_BY_SLUG: Final = _STANDING.format(named="t.slug = %s")


_STANDING_BY_ID: Final = _STANDING.format(named="t.id = %s")


# A key ends with the right of the admin who answers for it, also where nobody revoked it.
_STANDING_OF_KEY_ID: Final = f"""
    SELECT k.id, false, k.role, t.version, false, {COLUMNS}
    FROM shared.api_keys k JOIN shared.tenants t ON t.id = k.tenant_id
    JOIN shared.users u ON u.id = coalesce(k.kept_by, k.created_by) AND u.status = 'active'
    WHERE k.id = %s AND k.revoked_at IS NULL AND k.expires_at > now()
        AND (u.is_operator OR EXISTS (SELECT FROM shared.memberships m
            WHERE m.tenant_id = k.tenant_id AND m.user_id = u.id AND m.role = 'admin'))"""  # noqa: S608
_KEY_STANDING: Final = f"{_STANDING_OF_KEY_ID} AND k.secret_hash = %s"


def standing(user_id: UUID, session_id: UUID | None, slug: str | None, tenant_id: UUID | None) -> Standing | None:
    """The user's standing in the tenant with this id, or else with this slug. None for an unknown or disabled user, and
    for an ended session.

    One round trip on the shared side, for every request.
    """
    query, named = (_STANDING_BY_SLUG, slug) if tenant_id is None else (_STANDING_BY_ID, tenant_id)
    return _standing(query, (named, session_id, user_id, session_id))


def standing_of_key(key_id: UUID, secret_hash: bytes) -> Standing | None:
    """The tenant and the role of an API key. None for an unknown, revoked or expired key, and for one whose keeper is
    no longer an admin. One round trip, as `standing`.
    """
    return _standing(_KEY_STANDING, (key_id, secret_hash))


def standing_of_key_id(key_id: UUID) -> Standing | None:
    """`standing_of_key` for a sender whom a broker has authenticated: the key's secret is not checked."""
    return _standing(_STANDING_OF_KEY_ID, (key_id,))


def _standing(query: str, parameters: tuple[Any, ...]) -> Standing | None:
    rows = connections().shared.one_statement(query, parameters, retry=True)
    if not rows:
        return None
    found_id, is_operator, role, version, has_second_factor, *tenant_row = rows[0]
    tenant = tenant_from_row(tenant_row) if tenant_row[0] else None
    return Standing(found_id, is_operator, Role(role) if role else None, tenant, version, has_second_factor)
