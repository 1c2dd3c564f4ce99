"""API keys on the wire."""

from marshmallow import fields

from app.api.fields import Answer, Choice, Moment, Schema, Word, Words
from app.api.pagination import page_schema
from app.api.text_fields import Name
from app.users.models import KEY_ROLES

ROLES = Words("ApiKeyRole", *KEY_ROLES)
_NAME = {"description": "`operator` for an operator, `no longer known` for a user whom the tenant has forgotten"}


class ApiKeySchema(Answer):
    id = fields.UUID()
    name = fields.String()
    role = Word(ROLES)
    creator_id = fields.UUID(
        attribute="created_by", data_key="creatorId", metadata={"description": "the user who made it"}
    )
    creator_name = fields.String(data_key="creatorName", metadata=_NAME)
    keeper_id = fields.UUID(
        data_key="keeperId", metadata={"description": "the admin who answers for it; it ends with that admin's right"}
    )
    keeper_name = fields.String(data_key="keeperName", metadata=_NAME)
    created_at = Moment(data_key="createdAt")
    expires_at = Moment(data_key="expiresAt")
    revoked_at = Moment(data_key="revokedAt", allow_none=True)
    last_used_at = Moment(
        data_key="lastUsedAt", allow_none=True, metadata={"description": "noted once a minute; null if never used"}
    )


class NewApiKeySchema(ApiKeySchema):
    key = fields.String(metadata={"description": "The bearer token of the service. Only this answer contains it."})


ApiKeyPageSchema = page_schema(ApiKeySchema)


class CreateApiKeySchema(Schema):
    name = Name(required=True, max_length=100)
    role = Choice(ROLES, required=True)
    expires_at = Moment(required=True, data_key="expiresAt", metadata={"description": "in the future, within a year"})
