"""Users and their memberships on the wire."""

from marshmallow import fields

from app.api.fields import Answer, Word, Words
from app.users.models import MEMBERSHIP_ROLES

MEMBERSHIP_ROLE = Words("MembershipRole", *MEMBERSHIP_ROLES)


class MembershipSchema(Answer):
    tenant_id = fields.String(data_key="tenantId", metadata={"description": "the tenant's slug"})
    role = Word(MEMBERSHIP_ROLE)
