"""How users and memberships look from outside."""

from marshmallow import fields

from app.fields import Schema


class MembershipSchema(Schema):
    tenant_id = fields.String(data_key="tenantId", metadata={"description": "the tenant's slug"})
    role = fields.String(metadata={"enum": ["member", "admin"]})


class MeSchema(Schema):
    user_id = fields.UUID(data_key="userId")
    email = fields.String()
    name = fields.String()
    is_operator = fields.Boolean(data_key="isOperator")
    memberships = fields.List(fields.Nested(MembershipSchema))
