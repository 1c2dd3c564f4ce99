"""Users and their memberships on the wire."""

from marshmallow import fields

from app.api.fields import Answer
from app.users.models import MEMBERSHIP_ROLES


class MembershipSchema(Answer):
    tenant_id = fields.String(data_key="tenantId", metadata={"description": "the tenant's slug"})
    role = fields.String(metadata={"enum": list(MEMBERSHIP_ROLES)})
