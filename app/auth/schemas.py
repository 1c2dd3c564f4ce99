"""What login takes and gives."""

from marshmallow import fields

from app.fields import Schema, Text
from app.members.schemas import MembershipSchema


class LoginSchema(Schema):
    email = Text(required=True, max_length=254)
    password = Text(required=True, max_length=1024)


class AccessTokenSchema(Schema):
    access_token = fields.String(data_key="accessToken")
    token_type = fields.String(data_key="tokenType")
    expires_in = fields.Integer(data_key="expiresIn", metadata={"description": "seconds"})
    memberships = fields.List(fields.Nested(MembershipSchema))
