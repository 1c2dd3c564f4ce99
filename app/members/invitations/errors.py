"""Refusals of invitations."""

from app.errors import Conflict, NotFound


class InvitationNotFound(NotFound):
    """No such invitation, or another tenant's. Both get the same answer."""

    code = "invitation_not_found"


class InvitationOver(Conflict):
    """The invitation was accepted or revoked."""

    code = "invitation_over"


class AlreadyMember(Conflict):
    """The address belongs to a member of this tenant. Change the member's role instead."""

    code = "already_member"


class PasswordKnown(Conflict):
    """The address belongs to an account with a password: accept with the token alone."""

    code = "password_known"
