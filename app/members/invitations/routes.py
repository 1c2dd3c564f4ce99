"""/api/admin/invitations, and POST /api/auth/invitations/accept."""

from typing import Any
from uuid import UUID

import sqlalchemy as sa

from app.api.blueprint import Blueprint
from app.api.headers import gives_location
from app.api.links import location
from app.api.pagination import Page, paginate
from app.api.refusals import refuses
from app.auth import devices
from app.auth.access import Access, access, actor
from app.auth.actors import Actor, ActorKind
from app.auth.errors import NoPassword
from app.current import current_app, g, request
from app.errors import TooManyRequests
from app.limits.attempts import token_attempt
from app.limits.concurrency import TooManyConcurrentRequests
from app.mail.outbox import AccountTokenNotFound
from app.members.invitations import acceptance, service
from app.members.invitations.errors import AlreadyMember, InvitationNotFound, InvitationOver, PasswordKnown
from app.members.invitations.schemas import (
    AcceptedInvitationSchema,
    AcceptInvitationSchema,
    InvitationListQuery,
    InvitationPageSchema,
    InvitationSchema,
    InviteSchema,
)
from app.users.models import Role

blueprint = Blueprint("invitations", __name__, url_prefix="/api", description="Invitations to a tenant.")


@blueprint.post("/admin/invitations")
@access(Access.ADMIN, "member.invite")
@gives_location
@blueprint.arguments(InviteSchema)
@blueprint.response(201, InvitationSchema)
@refuses(AlreadyMember)
def invite_member(body: dict[str, Any]) -> tuple[sa.Row[Any], int, dict[str, str]]:
    """Invite an address to this tenant by mail. The membership exists from the acceptance on.

    The answer is the same for known and unknown addresses. A new invitation replaces an open one of the same address.
    """
    made = service.invite(body["email"], body.get("name"), Role(body["role"]), actor=actor())
    return made, 201, location("admin/invitations", made.id)


@blueprint.get("/admin/invitations")
@access(Access.ADMIN)
@blueprint.arguments(InvitationListQuery, location="query")
@blueprint.response(200, InvitationPageSchema)
def list_invitations(query: dict[str, Any]) -> Page[sa.Row[Any]]:
    """This tenant's invitations, newest first, including those that are over."""
    return paginate(
        query,
        lambda after, limit: service.list_invitations(after=after, limit=limit, status=query.get("status")),
        lambda item: [item.created_at, item.id],
    )


@blueprint.get("/admin/invitations/<uuid:invitation_id>")
@access(Access.ADMIN)
@blueprint.response(200, InvitationSchema)
@refuses(InvitationNotFound)
def show_invitation(invitation_id: UUID) -> sa.Row[Any]:
    """One of this tenant's invitations, also one that is over."""
    return service.get_invitation(invitation_id)


@blueprint.delete("/admin/invitations/<uuid:invitation_id>")
@access(Access.ADMIN, "invitation.revoke")
@blueprint.response(204)
@refuses(InvitationNotFound, InvitationOver)
def revoke_invitation(invitation_id: UUID) -> None:
    """Revoke an invitation. Its token is good no longer, and it stays in the list."""
    service.revoke_invitation(invitation_id, actor=actor())


@blueprint.post("/admin/invitations/<uuid:invitation_id>/resend")
@access(Access.ADMIN, "invitation.resend")
@blueprint.response(200, InvitationSchema)
@refuses(InvitationNotFound, InvitationOver)
def resend_invitation(invitation_id: UUID) -> sa.Row[Any]:
    """Send an invitation again, with a new token and a new expiry. The earlier token is good no longer."""
    return service.resend_invitation(invitation_id, actor=actor())


@blueprint.post("/auth/invitations/accept")
@access(Access.ANYONE)
@blueprint.arguments(AcceptInvitationSchema)
@blueprint.response(200, AcceptedInvitationSchema)
@refuses(AccountTokenNotFound, PasswordKnown, NoPassword, TooManyRequests, TooManyConcurrentRequests)
def accept_invitation(body: dict[str, Any]) -> dict[str, Any]:
    """Become a member with the token of the mail; then log in, with the `deviceToken` of the answer or its cookie.

    A new account needs a password, unless it logs in through an identity provider. An account with a password sends the
    token alone.
    """
    with token_attempt():
        accepted = acceptance.accept_invitation(
            body["token"],
            body.get("password"),
            body.get("name"),
            has_provider="openid_provider" in current_app.extensions,
            actor=Actor(ActorKind.USER, None, request.remote_addr, g.request_id),
        )
    device_token = devices.device_token(accepted.user_id, accepted.password_hash)
    devices.keep_device_cookie(device_token)
    shown = {"tenant_id": accepted.tenant_id, "email": accepted.email, "role": accepted.role}
    return {**shown, "device_token": device_token}
