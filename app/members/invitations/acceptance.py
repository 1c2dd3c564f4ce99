"""Accepting an invitation with the token of its mail. The membership exists from then on.

An invitation ends with its maker's right: that of a former admin is not accepted.
"""

from dataclasses import dataclass, replace
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from app.audit.service import commit_entry
from app.auth.actors import Actor
from app.auth.errors import NoPassword
from app.auth.passwords import hash_password, refuse_obvious_password
from app.db import db, tenants
from app.errors import Invalid
from app.limits import log_in_slot
from app.mail.models import MailKind
from app.mail.outbox import AccountTokenNotFound, holder_of, use_token
from app.members.invitations.errors import PasswordKnown
from app.members.invitations.models import Invitation, is_open
from app.users.models import Membership, Role, User
from app.users.service import find_user
from tenant_schemas import registry
from tenant_schemas.errors import TenantNotFound
from tenant_schemas.tenant import Tenant


@dataclass(frozen=True, slots=True)
class Accepted:
    """The new membership, with the address to log in with, and the account's id and stored password."""

    tenant_id: str
    email: str
    role: str
    user_id: UUID
    password_hash: str | None


def accept_invitation(
    token: str, password: str | None, name: str | None, *, has_provider: bool, actor: Actor
) -> Accepted:
    """Make the invited address a member, with the password if the account is new or has none. The name is that of a new
    account; an existing one keeps its own, and the tenant calls it as the invitation does.

    Hashes after the token was found, and before it is used. Locks the user's row, the tenant's row in the registry, the
    token's row and the invitation's. Works on the shared side and commits nothing but the audit entry. Raises
    AccountTokenNotFound, PasswordKnown, NoPassword, Invalid.
    """
    invitation = _invitation_of(token)
    email, own_name = invitation.email, name or invitation.name
    _refuse_wrong_password(email, password, own_name, has_provider=has_provider)
    db.session.commit()  # No db transaction is open while the password is hashed.
    password_hash = None
    if password is not None:
        with log_in_slot():
            password_hash = hash_password(password)
    user_id, is_new = _user_with(email, own_name, password_hash)
    tenant = _locked_tenant(invitation.tenant_id)
    invitation = _invitation_of(token)
    use_token(MailKind.INVITATION, token)
    _end(invitation, user_id)
    role = _add_member(tenant, user_id, invitation.role, own_name if is_new else invitation.name)
    told = {"role": role, "inviterId": invitation.invited_by}
    stored_hash = db.session.scalar(sa.select(User.password_hash).where(User.id == user_id))
    commit_entry(tenant, replace(actor, id=user_id), "invitation.accept", subject=str(user_id), after=told)
    return Accepted(tenant.slug, email, role, user_id, stored_hash)


def _invitation_of(token: str) -> sa.Row[UUID, UUID, str, str | None, str, UUID | None]:
    """The open invitation with this token, to an active tenant, whose maker still is an admin there."""
    holder, made = holder_of(MailKind.INVITATION, token), Invitation
    is_admin = sa.exists().where(
        Membership.tenant_id == made.tenant_id, Membership.user_id == made.invited_by, Membership.role == Role.ADMIN
    )
    is_operator = sa.exists().where(User.id == made.invited_by, User.is_operator)
    is_disabled = sa.exists().where(User.id == made.invited_by, User.status != "active")
    query = (
        sa.select(made.id, made.tenant_id, made.email, made.name, made.role, made.invited_by)
        .join(tenants, tenants.c.id == made.tenant_id)
        .where(made.id == holder.invitation_id, is_open(), tenants.c.status == "active")
        .where(made.invited_by.is_(None) | ((is_admin | is_operator) & ~is_disabled))
    )
    found = db.session.execute(query).one_or_none()
    if found is None:
        raise AccountTokenNotFound
    return found


def _refuse_wrong_password(email: str, password: str | None, name: str | None, *, has_provider: bool) -> None:
    user = find_user(email)
    if user is not None and user.status != "active":
        raise AccountTokenNotFound
    if password is None:
        if not has_provider and (user is None or user.password_hash is None):
            raise Invalid.at("password", "required", "The account is new or has no password: choose one.")
        return
    if user is not None and user.password_hash is not None:
        raise PasswordKnown("The account has a password. Leave it out here, and log in with it afterwards.")
    if user is not None and has_provider:
        raise NoPassword("The account logs in through the identity provider. Leave the password out.")
    refuse_obvious_password(password, email, name, user.name if user else None, field="password")


def _user_with(email: str, name: str | None, password_hash: str | None) -> tuple[UUID, bool]:
    """The active user with this address, locked, and whether it is new: then it has this name. A password that was set
    meanwhile stays.
    """
    made = insert(User).values(email=email, name=name or email)
    made_id = db.session.scalar(made.on_conflict_do_nothing(index_elements=["email"]).returning(User.id))
    active = sa.select(User.id).where(User.email == email, User.status == "active")
    user_id = db.session.scalar(active.with_for_update(key_share=True))
    if user_id is None:
        raise AccountTokenNotFound
    if password_hash is not None:
        has_none = (User.id == user_id) & User.password_hash.is_(None)
        db.session.execute(sa.update(User).where(has_none).values(password_hash=password_hash))
    return user_id, made_id is not None


def _locked_tenant(tenant_id: UUID) -> Tenant:
    """The tenant, with a lock for which a removal of the invitation's maker waits."""
    db.session.execute(sa.select(tenants.c.id).where(tenants.c.id == tenant_id).with_for_update(read=True))
    try:
        return registry.get_tenant_by_id(db.session.connection(), tenant_id)
    except TenantNotFound:
        raise AccountTokenNotFound from None


def _end(invitation: sa.Row[UUID, UUID, str, str | None, str, UUID | None], user_id: UUID) -> None:
    ended = sa.update(Invitation).where(Invitation.id == invitation.id, is_open())
    values = {"accepted_at": sa.func.now(), "accepted_by": user_id}
    if db.session.scalar(ended.values(values).returning(Invitation.id)) is None:
        raise AccountTokenNotFound


def _add_member(tenant: Tenant, user_id: UUID, role: str, name: str | None) -> str:
    """Add the membership. A user who became a member meanwhile keeps the role of then. Returns the role."""
    values = {"tenant_id": tenant.id, "user_id": user_id, "tenant_role": tenant.role_name, "role": role, "name": name}
    added = insert(Membership).values(values).on_conflict_do_nothing(index_elements=["tenant_id", "user_id"])
    db.session.execute(added)
    query = sa.select(Membership.role).where(Membership.tenant_id == tenant.id, Membership.user_id == user_id)
    return db.session.scalars(query).one()
