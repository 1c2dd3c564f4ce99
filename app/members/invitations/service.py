"""Inviting an address to the bound tenant, and accepting. Commits nothing unless it says so.

The invitations are in the shared schema, where row-level security does not separate tenants for the service's own
login. So every query of a tenant's admin names the tenant. The answers are the same for known and unknown addresses.
"""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from app.audit.service import commit_entry
from app.auth.actors import Actor, ActorKind
from app.auth.membership_lock import lock_members
from app.current import current_app
from app.db import db
from app.limits.rate_limit import count_attempt, hashed_account
from app.mail.models import MailKind
from app.mail.outbox import put_token_mail
from app.members.invitations.errors import AlreadyMember, InvitationNotFound, InvitationOver
from app.members.invitations.models import Invitation, is_open
from app.users.models import Membership, Role, User
from tenant_schemas.context import current_tenant
from tenant_schemas.flask import connections, shared_side
from tenant_schemas.tenant import Tenant

STATUSES: Final = ("pending", "accepted", "revoked", "expired")
_STATUS: Final = sa.case(
    (Invitation.accepted_at.is_not(None), "accepted"),
    (Invitation.revoked_at.is_not(None), "revoked"),
    (Invitation.expires_at <= sa.func.now(), "expired"),
    else_="pending",
)
PRUNED_AT_ONCE: Final = 1000
# An invitation that is being sent again is locked, and is left.
_PRUNE: Final = """
    DELETE FROM shared.invitations WHERE id IN (
        SELECT id FROM shared.invitations
        WHERE coalesce(accepted_at, revoked_at, expires_at) < now() - make_interval(days => %s)
        ORDER BY coalesce(accepted_at, revoked_at, expires_at) LIMIT %s FOR UPDATE SKIP LOCKED) RETURNING id"""
_SHOWN: Final = (*Invitation.__table__.c, _STATUS.label("status"))


def invite(email: str, name: str | None, role: Role, *, actor: Actor) -> sa.Row[Any]:
    """Invite the address and put the mail into the outbox. It replaces an open invitation of the address.

    Locks the tenant's row in the registry, as changes of members do. Raises AlreadyMember, AdminRequired,
    TooManyRequests.
    """
    tenant, email = current_tenant(), email.strip().lower()
    if actor.kind is not ActorKind.SYSTEM:
        _count_mail(tenant, email)
    with shared_side():
        lock_members(tenant, actor)
        _refuse_member(tenant, email)
        earlier = (Invitation.tenant_id == tenant.id) & (Invitation.email == email) & is_open()
        db.session.execute(sa.update(Invitation).where(earlier).values(revoked_at=sa.func.now()))
        values = {"tenant_id": tenant.id, "email": email, "name": name, "role": role, "expires_at": _expiry()}
        values["invited_by"] = None if actor.kind is ActorKind.SYSTEM else actor.id
        made = sa.insert(Invitation).values(values).returning(Invitation.id)
        invitation_id = db.session.execute(made).scalar_one()
        _send(tenant, invitation_id, email, role)
        commit_entry(tenant, actor, "member.invite", subject=str(invitation_id), after={"role": role})
        return _shown(tenant, invitation_id)


def list_invitations(*, after: list[Any] | None, limit: int, status: str | None = None) -> list[sa.Row[Any]]:
    """The bound tenant's invitations, newest first; `after` is (created_at, id)."""
    query = (
        sa.select(*_SHOWN)
        .where(Invitation.tenant_id == current_tenant().id)
        .order_by(Invitation.created_at.desc(), Invitation.id.desc())
        .limit(limit)
    )
    if status is not None:
        query = query.where(_STATUS.in_((status,)))
    if after is not None:
        position = sa.tuple_(sa.literal(datetime.fromisoformat(after[0])), sa.literal(UUID(after[1])))
        query = query.where(sa.tuple_(Invitation.created_at, Invitation.id) < position)
    with shared_side():
        return list(db.session.execute(query))


def get_invitation(invitation_id: UUID) -> sa.Row[Any]:
    """One of the bound tenant's invitations, open or over. Raises InvitationNotFound."""
    of_tenant = (Invitation.tenant_id == current_tenant().id) & (Invitation.id == invitation_id)
    with shared_side():
        found = db.session.execute(sa.select(*_SHOWN).where(of_tenant)).one_or_none()
    if found is None:
        raise InvitationNotFound("There is no such invitation.")
    return found


def revoke_invitation(invitation_id: UUID, *, actor: Actor) -> None:
    """Revoke an open invitation: its token is good no longer. Locks its row; a second call has no effect. Raises
    InvitationNotFound, and InvitationOver for an accepted one.
    """
    tenant = current_tenant()
    with shared_side():
        invitation = _locked(tenant, invitation_id)
        if invitation.accepted_at is not None:
            raise InvitationOver("The invitation was accepted. Remove the member instead.")
        if invitation.revoked_at is not None:
            return
        invitation.revoked_at = sa.func.now()
        before = {"role": invitation.role}
        db.session.flush()
        commit_entry(tenant, actor, "invitation.revoke", subject=str(invitation_id), before=before)


def resend_invitation(invitation_id: UUID, *, actor: Actor) -> sa.Row[Any]:
    """Send the invitation again, with a new token and from the caller. The earlier token is good no longer. Locks like
    `invite`. Raises InvitationNotFound, InvitationOver, AdminRequired, TooManyRequests.
    """
    tenant = current_tenant()
    with shared_side():
        lock_members(tenant, actor)
        invitation = _locked(tenant, invitation_id)
        if invitation.accepted_at is not None or invitation.revoked_at is not None:
            raise InvitationOver("The invitation was accepted or revoked. Invite the address again.")
        email, role = invitation.email, Role(invitation.role)
        _count_mail(tenant, email)
        anew = {"expires_at": _expiry(), "invited_by": actor.id}
        db.session.execute(sa.update(Invitation).where(Invitation.id == invitation_id).values(anew))
        _send(tenant, invitation_id, email, role)
        commit_entry(tenant, actor, "invitation.resend", subject=str(invitation_id))
        return _shown(tenant, invitation_id)


def prune_invitations(days: int) -> int:
    """Delete the invitations of all tenants that were accepted or revoked, or expired, this many days ago, with their
    mails. Memberships and the audit log stay. Works in batches and commits each.
    """
    count = 0
    while batch := len(connections().shared.one_statement(_PRUNE, (days, PRUNED_AT_ONCE))):
        count += batch
    return count


def _count_mail(tenant: Tenant, email: str) -> None:
    """The count of an address is the tenant's own: no tenant learns that another has invited it."""
    count_attempt("invitation", str(tenant.id), current_app.config["INVITATION_RATE_LIMIT"])
    count_attempt("mail", f"{tenant.id}/{hashed_account(email)}", current_app.config["MAIL_RATE_LIMIT"])


def _refuse_member(tenant: Tenant, email: str) -> None:
    query = sa.select(Membership.user_id).join(User, User.id == Membership.user_id)
    if db.session.scalar(query.where(Membership.tenant_id == tenant.id, User.email == email)) is not None:
        raise AlreadyMember("A member of this tenant has this address. Change the member's role instead.")


def _send(tenant: Tenant, invitation_id: UUID, email: str, role: Role) -> None:
    put_token_mail(
        MailKind.INVITATION,
        email,
        seconds=current_app.config["INVITATION_SECONDS"],
        invitation_id=invitation_id,
        details={"tenant": tenant.name, "role": role.value},
    )


def _expiry() -> sa.ColumnElement[Any]:
    return sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, current_app.config["INVITATION_SECONDS"])


def _locked(tenant: Tenant, invitation_id: UUID) -> Invitation:
    query = sa.select(Invitation).where(Invitation.tenant_id == tenant.id, Invitation.id == invitation_id)
    found = db.session.scalar(query.with_for_update())
    if found is None:
        raise InvitationNotFound("There is no such invitation.")
    return found


def _shown(tenant: Tenant, invitation_id: UUID) -> sa.Row[Any]:
    query = sa.select(*_SHOWN).where(Invitation.tenant_id == tenant.id, Invitation.id == invitation_id)
    return db.session.execute(query).one()
