"""The second factor on the wire."""

from marshmallow import fields

from app.api.fields import Answer, Moment, Schema, Text
from app.auth.schemas import Password

MAX_CODE_LENGTH = 40


class PasswordProofSchema(Schema):
    current_password = Password(data_key="currentPassword", required=True)


class CodeSchema(Schema):
    code = Text(required=True, max_length=MAX_CODE_LENGTH, description="of the authenticator")


class FullProofSchema(PasswordProofSchema):
    code = Text(required=True, max_length=MAX_CODE_LENGTH, description="of the authenticator, or a recovery code")


class SecondFactorSchema(Answer):
    is_on = fields.Boolean(data_key="isOn")
    confirmed_at = Moment(data_key="confirmedAt", allow_none=True)
    recovery_codes_left = fields.Integer(data_key="recoveryCodesLeft")


class NewSecondFactorSchema(Answer):
    secret = fields.String(metadata={"description": "base32, for an authenticator that can't read the URI"})
    uri = fields.String(metadata={"description": "otpauth://…, to be shown as a QR code"})


class RecoveryCodesSchema(Answer):
    recovery_codes = fields.List(
        fields.String(),
        data_key="codes",
        metadata={"description": "Each is good once, in place of a code. Only this answer contains them."},
    )
