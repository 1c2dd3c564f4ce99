"""Invitations on the wire."""

from marshmallow import fields

from app.accounts.schemas import MAX_NAME_LENGTH, MailToken
from app.api.fields import Answer, Choice, Moment, Schema, Word, Words
from app.api.pagination import PageQuery, page_schema
from app.api.text_fields import Name
from app.auth.schemas import DeviceToken, NewPassword
from app.members.invitations.service import STATUSES
from app.users.schemas import MEMBERSHIP_ROLE, EmailAddress

INVITATION_STATUS = Words("InvitationStatus", *STATUSES)


class InviteSchema(Schema):
    email = EmailAddress(required=True)
    name = Name(max_length=MAX_NAME_LENGTH, description="what the tenant calls the member; default: their own name")
    role = Choice(MEMBERSHIP_ROLE, required=True)


class InvitationSchema(Answer):
    id = fields.UUID()
    email = fields.String()
    name = fields.String(allow_none=True)
    role = Word(MEMBERSHIP_ROLE)
    status = Word(INVITATION_STATUS)
    inviter_id = fields.UUID(
        attribute="invited_by",
        data_key="inviterId",
        allow_none=True,
        metadata={"description": "the admin; null for the command line"},
    )
    created_at = Moment(data_key="createdAt")
    expires_at = Moment(data_key="expiresAt")
    accepted_at = Moment(data_key="acceptedAt", allow_none=True)


InvitationPageSchema = page_schema(InvitationSchema)


class InvitationListQuery(PageQuery):
    status = Choice(INVITATION_STATUS)


class AcceptInvitationSchema(Schema):
    token = MailToken()
    password = NewPassword(description="of a new account; an account with a password keeps it")
    name = Name(max_length=MAX_NAME_LENGTH, description="of a new account; an existing one keeps its name")


class AcceptedInvitationSchema(Answer):
    tenant_id = fields.String(data_key="tenantId", metadata={"description": "the tenant's slug"})
    email = fields.String(metadata={"description": "log in with it"})
    role = Word(MEMBERSHIP_ROLE)
    device_token = DeviceToken()
