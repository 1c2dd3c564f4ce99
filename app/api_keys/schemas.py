"""API keys on the wire."""

from marshmallow import fields

from app.api.fields import Answer, Choice, Moment, Schema, Text
from app.api.pagination import page_schema
from app.users.models import KEY_ROLES


class ApiKeySchema(Answer):
    id = fields.UUID()
    name = fields.String()
    role = fields.String(metadata={"enum": list(KEY_ROLES)})
    creator_id = fields.UUID(
        attribute="created_by", data_key="creatorId", metadata={"description": "the user who made it"}
    )
    created_at = Moment(data_key="createdAt")
    expires_at = Moment(data_key="expiresAt")
    revoked_at = Moment(data_key="revokedAt", allow_none=True)


class NewApiKeySchema(ApiKeySchema):
    key = fields.String(metadata={"description": "The bearer token of the service. Only this answer contains it."})


ApiKeyPageSchema = page_schema(ApiKeySchema)


class CreateApiKeySchema(Schema):
    name = Text(required=True, max_length=100)
    role = Choice(*KEY_ROLES, required=True)
    expires_at = Moment(required=True, data_key="expiresAt", metadata={"description": "in the future, within a year"})
