"""Members of the bound tenant: list, add, change the role, remove."""

from typing import Any, Final, cast
from uuid import UUID

import sqlalchemy as sa

from app.api.bounded_scan import count_rows
from app.api.conditional import IfMatch
from app.api_keys.handover import KeyChoice, settle_keys
from app.audit.service import commit_entry
from app.auth.actors import Actor
from app.auth.membership_lock import lock_members, role_of
from app.db import db
from app.members.errors import OwnMembership
from app.members.invitations.models import revoke_invitations_of
from app.users.errors import MemberNotFound
from app.users.models import Membership, Role, User, member_directory
from tenant_schemas.context import current_tenant
from tenant_schemas.flask import connections, shared_side
from tenant_schemas.tenant import Tenant

# The version of a membership: another one after each change.
_version: Final = sa.literal_column("memberships.xmin::text::bigint", sa.BigInteger).label("version")


def add_membership(user: User, tenant: Tenant, role: Role) -> Membership:
    """Add the user to the tenant, or change the user's role there. Works on the shared side, commits nothing."""
    membership = Membership(tenant_id=tenant.id, user_id=user.id, tenant_role=tenant.role_name, role=role)
    return db.session.merge(membership)


def list_members(
    *, after: list[Any] | None, limit: int, q: str | None = None, role: str | None = None
) -> list[sa.Row[Any]]:
    """The members of the bound tenant by address, as the tenant's login sees them; `after` is (email,)."""
    who = member_directory.c
    query = _with_versions().where(*_conditions(q, role)).order_by(who.email).limit(limit)
    if after is not None:
        query = query.where(who.email > after[0])
    return list(db.session.execute(query))


def _with_versions() -> sa.Select[Any]:
    joined = Membership.user_id == member_directory.c.user_id
    return sa.select(member_directory, _version).join(Membership, joined)


def count_members(most: int, *, q: str | None = None, role: str | None = None) -> int:
    """The number of members that `list_members` lists on all its pages, counted up to `most`."""
    return count_rows(sa.select(member_directory.c.user_id).where(*_conditions(q, role)), most)


def _conditions(q: str | None, role: str | None) -> list[sa.ColumnElement[bool]]:
    who = member_directory.c
    found: list[sa.ColumnElement[bool]] = [] if role is None else [who.role == role]
    if q is not None:
        found.append(who.email.icontains(q, autoescape=True) | who.name.icontains(q, autoescape=True))
    return found


def get_member(user_id: UUID) -> sa.Row[Any]:
    """One member of the bound tenant. Raises MemberNotFound."""
    query = _with_versions().where(member_directory.c.user_id == user_id)
    row = db.session.execute(query).one_or_none()
    if row is None:
        raise MemberNotFound(MemberNotFound.text)
    return row


def put_member(
    email: str, name: str | None, role: Role, *, keys: KeyChoice | None = None, actor: Actor
) -> tuple[UUID, bool]:
    """Add the user with this address to the bound tenant, or change the user's role there. Returns the user's id, and
    whether the member is new.

    An unknown address creates a user without a password, committed at once; otherwise two tenants would wait for each
    other. Answer, cost and directory are the same whether or not the user belongs to other tenants. Locks like
    `change_role` and commits nothing else. Raises OwnMembership, AdminRequired, ApiKeysUndecided.
    """
    tenant = current_tenant()
    user_id = _user_with(email.strip().lower())
    with shared_side():
        before = _role_to_change(tenant, user_id, actor)
        if before is None:
            values = {"tenant_id": tenant.id, "user_id": user_id, "tenant_role": tenant.role_name, "role": role}
            values["name"] = name or email
            db.session.execute(sa.insert(Membership).values(values))
            commit_entry(tenant, actor, "member.add", subject=str(user_id), after={"role": role})
        else:
            _change(tenant, user_id, before, role, keys=keys, actor=actor)
    return user_id, before is None


def change_role(user_id: UUID, role: Role, seen: IfMatch, *, keys: KeyChoice | None = None, actor: Actor) -> int:
    """Change a member's role in the bound tenant. Valid API keys of an admin who becomes less are revoked, or kept by
    the actor.

    Locks the tenant's row in the registry, so changes of members run one after another, and of two admins who remove
    each other one stays. Commits nothing. Returns the new version. Raises MemberNotFound, PreconditionFailed,
    OwnMembership, AdminRequired, ApiKeysUndecided.
    """
    tenant = current_tenant()
    with shared_side():
        before = _known_role(tenant, user_id, actor)
        seen.refuse_others(_version_of(tenant, user_id))
        _change(tenant, user_id, before, role, keys=keys, actor=actor)
        return _version_of(tenant, user_id)


def remove_member(user_id: UUID, *, keys: KeyChoice | None = None, actor: Actor) -> None:
    """Remove a member from the bound tenant, from the next request on. The wallet and all else in the tenant's schema
    stay. Does to API keys, locks and raises what `change_role` does.
    """
    tenant = current_tenant()
    with shared_side():
        before = _known_role(tenant, user_id, actor)
        end_admins_right(tenant, user_id, keys, keeper=actor.id, actor=actor)
        db.session.execute(sa.delete(Membership).where(*_is(tenant, user_id)))
        commit_entry(tenant, actor, "member.remove", subject=str(user_id), before={"role": before})


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
        raise OwnMembership("You can't change or remove your own membership: ask another admin.")
    lock_members(tenant, actor)
    return role_of(tenant, user_id)


def end_admins_right(
    tenant: Tenant, user_id: UUID, keys: KeyChoice | None, *, keeper: UUID | None, actor: Actor
) -> None:
    """What ends with an admin's right in the tenant: the valid API keys, unless they are kept, and open invitations.
    Raises ApiKeysUndecided.
    """
    settle_keys(tenant, user_id, keys, keeper=keeper, actor=actor)
    db.session.execute(revoke_invitations_of(tenant.id, user_id))


def _change(tenant: Tenant, user_id: UUID, before: Role, role: Role, *, keys: KeyChoice | None, actor: Actor) -> None:
    if role != before:
        if role is not Role.ADMIN:
            end_admins_right(tenant, user_id, keys, keeper=actor.id, actor=actor)
        db.session.execute(sa.update(Membership).where(*_is(tenant, user_id)).values(role=role))
        commit_entry(
            tenant, actor, "member.change", subject=str(user_id), before={"role": before}, after={"role": role}
        )


def _version_of(tenant: Tenant, user_id: UUID) -> int:
    query: sa.Select[int] = sa.select(_version).where(*_is(tenant, user_id))
    return int(db.session.execute(query).scalar_one())


def _is(tenant: Tenant, user_id: UUID) -> tuple[sa.ColumnElement[bool], ...]:
    return Membership.tenant_id == tenant.id, Membership.user_id == user_id
