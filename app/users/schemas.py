"""Users and their memberships on the wire."""

from marshmallow import fields

from app.api.fields import Answer, Moment, Word, Words
from app.users.models import MEMBERSHIP_ROLES

MEMBERSHIP_ROLE = Words("MembershipRole", *MEMBERSHIP_ROLES)


class PersonSchema(Answer):
    """A user as the tenant knows them; without address and name for one whom it has forgotten."""

    id = fields.UUID()
    email = fields.String(allow_none=True)
    name = fields.String(allow_none=True)
    removed_at = Moment(
        data_key="removedAt",
        allow_none=True,
        metadata={"description": "when a former member was removed; null for a member"},
    )


class CurrencySchema(Answer):
    code = fields.String(metadata={"description": "ISO 4217"})
    fraction_digits = fields.Integer(
        data_key="fractionDigits", metadata={"description": "of an amount: 2 for EUR, 0 for JPY"}
    )


class MembershipSchema(Answer):
    tenant_id = fields.String(data_key="tenantId", metadata={"description": "the tenant's slug"})
    role = Word(MEMBERSHIP_ROLE)


class MyMembershipSchema(MembershipSchema):
    """A membership with what a client needs to show amounts in that tenant."""

    tenant_name = fields.String(data_key="tenantName")
    currencies = fields.List(
        fields.Nested(CurrencySchema), metadata={"description": "in which members have wallets, the main one first"}
    )
    locale = fields.String(metadata={"description": "the form of times and amounts in documents, for instance bs_BA"})
