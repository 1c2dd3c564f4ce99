"""Log-in, tokens and passwords on the wire."""

from typing import Any, ClassVar

from marshmallow import fields

from app.api.fields import Answer, Flag, Schema, Text, Word, Words, coded
from app.auth.actors import ActorKind
from app.users.schemas import MembershipSchema

MIN_PASSWORD_LENGTH = 12
MAX_PASSWORD_LENGTH = 1024
ACTOR_KINDS = Words("ActorKind", *ActorKind)


class Password(Text):
    """A present password."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=MAX_PASSWORD_LENGTH, **kwargs)


class NewPassword(Password):
    """A new password. Its length is the only rule (NIST SP 800-63B): composition rules make passwords worse."""

    default_error_messages = {  # noqa: RUF012
        "too_short": coded("too_short", "At least {min_length} characters."),
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.metadata = {**self.metadata, "minLength": MIN_PASSWORD_LENGTH}

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if len(text) < MIN_PASSWORD_LENGTH:
            raise self.make_error("too_short", min_length=MIN_PASSWORD_LENGTH)
        return text


class LoginSchema(Schema):
    email = Text(required=True, max_length=254)
    password = Password(required=True)
    code = Text(max_length=40, description="of the second factor, if the account has one; or a recovery code")
    device_token = Text(
        data_key="deviceToken", max_length=200, description="of an earlier log-in; a browser sends it as a cookie"
    )
    cookie = Flag(
        load_default=False,
        metadata={"description": "for browsers: keep the tokens in cookies and answer with a csrfToken instead"},
    )


class RefreshSchema(Schema):
    refresh_token = Text(data_key="refreshToken", max_length=200, description="not needed with the cookie")


class LogoutSchema(Schema):
    refresh_token = Text(
        data_key="refreshToken", max_length=200, description="not needed with the cookie or a valid access token"
    )


class PasswordSchema(Schema):
    current_password = Password(data_key="currentPassword", required=True)
    new_password = NewPassword(data_key="newPassword", required=True)


class DeviceToken(fields.String):
    def __init__(self) -> None:
        told = "keep it, and send it with the next log-in: then strangers can't hold it up"
        super().__init__(data_key="deviceToken", metadata={"description": told})


class DeviceSchema(Answer):
    device_token = DeviceToken()


class TokensSchema(Answer):
    """With cookies, `csrfToken` takes the place of the tokens."""

    may_lack: ClassVar[tuple[str, ...]] = ("access_token", "refresh_token", "token_type", "csrf_token")

    access_token = fields.String(data_key="accessToken")
    refresh_token = fields.String(data_key="refreshToken", metadata={"description": "replaces the one that was sent"})
    csrf_token = fields.String(data_key="csrfToken", metadata={"description": "send it as X-CSRF-Token"})
    token_type = fields.String(data_key="tokenType")
    expires_in = fields.Integer(data_key="expiresIn", metadata={"description": "seconds"})
    refresh_expires_in = fields.Integer(
        data_key="refreshExpiresIn", metadata={"description": "seconds until the session ends, refreshed or not"}
    )


class ActorSchema(Answer):
    """Who did something, for staff. An operator has no name or address of their own here."""

    kind = Word(ACTOR_KINDS)
    id = fields.UUID(allow_none=True, metadata={"description": "a user's or an API key's; null for the system"})
    name = fields.String(
        allow_none=True, metadata={"description": "of the member or the API key; or operator, or system"}
    )
    email = fields.String(allow_none=True, metadata={"description": "the member's address; null for others"})


class LoginAnswerSchema(TokensSchema):
    may_lack: ClassVar[tuple[str, ...]] = (*TokensSchema.may_lack, "device_token")

    device_token = DeviceToken()
    memberships = fields.List(fields.Nested(MembershipSchema))
