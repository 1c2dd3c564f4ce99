"""A user's own account on the wire."""

from marshmallow import fields

from app.api.fields import Answer, Moment, Schema, Text
from app.api.pagination import page_schema
from app.api.text_fields import Name
from app.auth.schemas import NewPassword, Password
from app.users.schemas import MAX_ADDRESS_LENGTH, EmailAddress

MAX_TOKEN_LENGTH = 100
MAX_NAME_LENGTH = 200


class MailToken(Text):
    def __init__(self) -> None:
        super().__init__(required=True, max_length=MAX_TOKEN_LENGTH, description="of the mail; it is good once")


class ForgottenPasswordSchema(Schema):
    email = Text(required=True, max_length=MAX_ADDRESS_LENGTH)


class ResetPasswordSchema(Schema):
    token = MailToken()
    new_password = NewPassword(data_key="newPassword", required=True)


class UpdateMeSchema(Schema):
    name = Name(required=True, max_length=MAX_NAME_LENGTH)


class ProfileSchema(Answer):
    id = fields.UUID()
    email = fields.String()
    name = fields.String()


class ChangeEmailSchema(Schema):
    new_email = EmailAddress(data_key="newEmail", required=True)
    current_password = Password(data_key="currentPassword", required=True)


class ConfirmEmailSchema(Schema):
    token = MailToken()


class SessionSchema(Answer):
    id = fields.UUID()
    tenant_id = fields.String(
        data_key="tenantId", allow_none=True, metadata={"description": "the slug; null if it is good for all tenants"}
    )
    started_at = Moment(data_key="startedAt")
    last_used_at = Moment(
        data_key="lastUsedAt", metadata={"description": "its last log-in or refresh; requests between are not noted"}
    )
    expires_at = Moment(data_key="expiresAt")
    user_agent = fields.String(
        data_key="userAgent", allow_none=True, metadata={"description": "what the client called itself at its log-in"}
    )
    has_second_factor = fields.Boolean(data_key="hasSecondFactor")
    is_current = fields.Boolean(data_key="isCurrent")


SessionPageSchema = page_schema(SessionSchema)
