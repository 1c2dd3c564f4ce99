"""Users, memberships, and the question every request asks: who is this, and do they belong here?"""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from app.db import db, tenants
from app.members.errors import MemberNotFound, UserExists
from app.members.models import Membership, Role, User
from tenant_schemas.flask import connections
from tenant_schemas.registry import COLUMNS, tenant_from_row
from tenant_schemas.tenant import Tenant, TenantStatus


@dataclass(frozen=True, slots=True)
class Standing:
    """A user, the tenant that was named, and the user's role there; the last two may be missing."""

    user_id: UUID
    is_operator: bool
    tenant: Tenant | None
    role: Role | None


# One query whether the tenant exists, is suspended or is foreign, so that all three cost the same.
_STANDING: Final = f"""
    SELECT u.id, u.is_operator, m.role, {COLUMNS}
    FROM shared.users u
    LEFT JOIN shared.tenants t ON {{named}}
    LEFT JOIN shared.memberships m ON m.tenant_id = t.id AND m.user_id = u.id
    WHERE u.id = %s AND u.status = 'active'"""  # noqa: S608
_STANDING_BY_SLUG: Final = _STANDING.format(named="t.slug = %s")
_STANDING_BY_ID: Final = _STANDING.format(named="t.id = %s")


def standing(user_id: UUID, slug: str | None, tenant_id: UUID | None) -> Standing | None:
    """Who the user is in the tenant with this id, or else this slug. None for a user unknown or disabled.

    Asked on every request, in one round trip, of the shared side.
    """
    query, key = (_STANDING_BY_SLUG, slug) if tenant_id is None else (_STANDING_BY_ID, tenant_id)
    rows = connections().shared.one_statement(query, (key, user_id), retry=True)
    if not rows:
        return None
    found_id, is_operator, role, *tenant_row = rows[0]
    tenant = tenant_from_row(tenant_row) if tenant_row[0] else None
    return Standing(found_id, is_operator, tenant, Role(role) if role else None)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a password is checked against."""

    user_id: UUID
    password_hash: str | None
    is_active: bool


def credentials(email: str) -> Credentials | None:
    """The credentials of the user with this address, in any case, from the shared side. No db transaction stays open
    while the password is hashed.
    """
    query = "SELECT id, password_hash, status = 'active' FROM shared.users WHERE email = %s"
    rows = connections().shared.one_statement(query, (email.strip().lower(),), retry=True)
    return Credentials(*rows[0]) if rows else None


def find_user(email: str) -> User | None:
    """The user with this address, in any case, on the shared side."""
    return db.session.scalar(sa.select(User).where(User.email == email.strip().lower()))


def get_user(user_id: UUID) -> User:
    """The user, on the shared side. Raises MemberNotFound."""
    user = db.session.get(User, user_id)
    if user is None:
        raise MemberNotFound("There is no such user.")
    return user


def memberships_of(user_id: UUID) -> list[dict[str, Any]]:
    """The active tenants the user belongs to, by slug, on the shared side."""
    query = (
        sa.select(tenants.c.slug.label("tenant_id"), Membership.role)
        .join(tenants, tenants.c.id == Membership.tenant_id)
        .where(Membership.user_id == user_id, tenants.c.status == TenantStatus.ACTIVE)
        .order_by(tenants.c.slug)
    )
    return [row._asdict() for row in db.session.execute(query)]


def add_user(email: str, name: str, password_hash: str | None, *, is_operator: bool = False) -> User:
    """Make a user on the shared side. Raises UserExists."""
    if find_user(email):
        raise UserExists(f"There is a user with the address {email}.")
    user = User(email=email.strip().lower(), name=name, password_hash=password_hash, is_operator=is_operator)
    db.session.add(user)
    db.session.flush()
    return user


def add_membership(user: User, tenant: Tenant, role: Role) -> Membership:
    """Let the user into the tenant, or change their role there, on the shared side."""
    membership = Membership(tenant_id=tenant.id, user_id=user.id, tenant_role=tenant.role_name, role=role)
    return db.session.merge(membership)
