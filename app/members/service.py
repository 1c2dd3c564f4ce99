"""Users, memberships, and the question every request asks: who is this, and do they belong here?"""

from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import UUID

import sqlalchemy as sa

from app.audit.models import Actor, ActorKind
from app.audit.service import note_in
from app.auth.errors import AdminRequired
from app.db import db, tenants
from app.members.errors import MemberNotFound, OwnMembership, UserExists
from app.members.models import Membership, Role, User, member_directory
from tenant_schemas.context import current_tenant
from tenant_schemas.flask import connections, shared_side
from tenant_schemas.registry import COLUMNS, tenant_from_row
from tenant_schemas.tenant import Tenant, TenantStatus


@dataclass(frozen=True, slots=True)
class Standing:
    """A user or an API key, the tenant that was named, and the role there; the last two may be missing."""

    id: UUID
    is_operator: bool
    role: Role | None
    tenant: Tenant | None


# One query whether the tenant exists, is suspended or is foreign, so that all three cost the same.
_STANDING: Final = f"""
    SELECT u.id, u.is_operator, m.role, {COLUMNS}
    FROM shared.users u
    LEFT JOIN shared.tenants t ON {{named}}
    LEFT JOIN shared.memberships m ON m.tenant_id = t.id AND m.user_id = u.id
    WHERE u.id = %s AND u.status = 'active' AND (%s::uuid IS NULL OR EXISTS (
        SELECT FROM shared.sessions s WHERE s.id = %s AND s.user_id = u.id AND s.ended_at IS NULL))"""  # noqa: S608
_STANDING_BY_SLUG: Final = _STANDING.format(named="t.slug = %s")
_STANDING_BY_ID: Final = _STANDING.format(named="t.id = %s")
_KEY_STANDING: Final = f"""
    SELECT k.id, false, k.role, {COLUMNS}
    FROM shared.api_keys k JOIN shared.tenants t ON t.id = k.tenant_id
    WHERE k.id = %s AND k.secret_hash = %s AND k.revoked_at IS NULL AND k.expires_at > now()"""  # noqa: S608


def standing(user_id: UUID, session_id: UUID | None, slug: str | None, tenant_id: UUID | None) -> Standing | None:
    """Who the user is in the tenant with this id, or else this slug. None for a user unknown or disabled, and for a
    session that has ended.

    Asked on every request, in one round trip, of the shared side.
    """
    query, named = (_STANDING_BY_SLUG, slug) if tenant_id is None else (_STANDING_BY_ID, tenant_id)
    return _standing(query, (named, user_id, session_id, session_id))


def standing_of_key(key_id: UUID, secret_hash: bytes) -> Standing | None:
    """What an API key may do, and where. None for one that is unknown, revoked or over. Asked like `standing`."""
    return _standing(_KEY_STANDING, (key_id, secret_hash))


def _standing(query: str, parameters: tuple[Any, ...]) -> Standing | None:
    rows = connections().shared.one_statement(query, parameters, retry=True)
    if not rows:
        return None
    found_id, is_operator, role, *tenant_row = rows[0]
    tenant = tenant_from_row(tenant_row) if tenant_row[0] else None
    return Standing(found_id, is_operator, Role(role) if role else None, tenant)


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


def credentials_of(user_id: UUID) -> Credentials:
    """The same by the user's id. Raises MemberNotFound."""
    query = "SELECT id, password_hash, status = 'active' FROM shared.users WHERE id = %s"
    rows = connections().shared.one_statement(query, (user_id,), retry=True)
    if not rows:
        raise MemberNotFound("There is no such user.")
    return Credentials(*rows[0])


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


def set_password(email: str, password_hash: str) -> User:
    """Give a user a password, on the shared side; whoever does so ends their sessions then. Raises MemberNotFound."""
    user = find_user(email)
    if user is None:
        raise MemberNotFound(f"There is no user with the address {email}.")
    user.password_hash = password_hash
    db.session.flush()
    return user


def add_membership(user: User, tenant: Tenant, role: Role) -> Membership:
    """Let the user into the tenant, or change their role there, on the shared side."""
    membership = Membership(tenant_id=tenant.id, user_id=user.id, tenant_role=tenant.role_name, role=role)
    return db.session.merge(membership)


def list_members(
    *, after: list[Any] | None, limit: int, q: str | None = None, role: str | None = None
) -> list[sa.Row[Any]]:
    """The members of the bound tenant by address, as its own login sees them; `after` is (email,)."""
    who = member_directory.c
    query = sa.select(member_directory).order_by(who.email).limit(limit)
    if after is not None:
        query = query.where(who.email > after[0])
    if role is not None:
        query = query.where(who.role == role)
    if q is not None:
        query = query.where(who.email.icontains(q, autoescape=True) | who.name.icontains(q, autoescape=True))
    return list(db.session.execute(query))


def put_member(email: str, name: str | None, role: Role, *, actor: Actor) -> tuple[UUID, bool]:
    """Let whoever has this address into the bound tenant, or change their role there; says whether they are new there.

    An address nobody has makes a user without a password, committed at once, or two tenants would wait for each other.
    What is returned, what it costs and what the tenant's directory then shows are the same if the user belongs to other
    tenants already. Locks like `change_role`, commits nothing else. Raises OwnMembership, AdminRequired.
    """
    tenant = current_tenant()
    user_id = _user_with(email.strip().lower())
    with shared_side():
        before = _role_to_change(tenant, user_id, actor)
        if before is None:
            values = {"tenant_id": tenant.id, "user_id": user_id, "tenant_role": tenant.role_name, "role": role}
            values["name"] = name or email
            db.session.execute(sa.insert(Membership).values(values))
            note_in(tenant, actor, "member.add", subject=str(user_id), after={"role": role})
        else:
            _change(tenant, user_id, before, role, actor)
    return user_id, before is None


def change_role(user_id: UUID, role: Role, *, actor: Actor) -> None:
    """Change a member's role in the bound tenant.

    Locks the tenant's row of the registry, so that changes of who belongs to it come one after the other: of two admins
    who remove each other one stays. Commits nothing. Raises MemberNotFound, OwnMembership, AdminRequired.
    """
    tenant = current_tenant()
    with shared_side():
        _change(tenant, user_id, _known_role(tenant, user_id, actor), role, actor)


def remove_member(user_id: UUID, *, actor: Actor) -> None:
    """End a membership of the bound tenant; it counts from the next request on. What is in the tenant's schema stays,
    the wallet too. Locks and raises like `change_role`.
    """
    tenant = current_tenant()
    with shared_side():
        before = _known_role(tenant, user_id, actor)
        db.session.execute(sa.delete(Membership).where(*_is(tenant, user_id)))
        note_in(tenant, actor, "member.remove", subject=str(user_id), before={"role": before})


def _user_with(email: str) -> UUID:
    shared = connections().shared
    make = "INSERT INTO shared.users (email, name) VALUES (%s, %s) ON CONFLICT (email) DO NOTHING"
    shared.one_statement(make, (email, email), retry=True)
    ((user_id,),) = shared.one_statement("SELECT id FROM shared.users WHERE email = %s", (email,), retry=True)
    return cast(UUID, user_id)


def _known_role(tenant: Tenant, user_id: UUID, actor: Actor) -> Role:
    role = _role_to_change(tenant, user_id, actor)
    if role is None:
        raise MemberNotFound("There is no such member in this tenant.")
    return role


def _role_to_change(tenant: Tenant, user_id: UUID, actor: Actor) -> Role | None:
    if user_id == actor.id:
        raise OwnMembership("Nobody changes or removes themselves: ask another admin.")
    db.session.execute(sa.select(tenants.c.id).where(tenants.c.id == tenant.id).with_for_update(key_share=True))
    query = sa.select(Membership.user_id, Membership.role).where(
        Membership.tenant_id == tenant.id, Membership.user_id.in_((user_id, actor.id))
    )
    roles = {found: Role(role) for found, role in db.session.execute(query)}
    if actor.kind is not ActorKind.OPERATOR and roles.get(cast(UUID, actor.id)) is not Role.ADMIN:
        raise AdminRequired("You are no longer an admin of this tenant.")
    return roles.get(user_id)


def _change(tenant: Tenant, user_id: UUID, before: Role, role: Role, actor: Actor) -> None:
    if role != before:
        db.session.execute(sa.update(Membership).where(*_is(tenant, user_id)).values(role=role))
        note_in(tenant, actor, "member.change", subject=str(user_id), before={"role": before}, after={"role": role})


def _is(tenant: Tenant, user_id: UUID) -> tuple[sa.ColumnElement[bool], ...]:
    return Membership.tenant_id == tenant.id, Membership.user_id == user_id
