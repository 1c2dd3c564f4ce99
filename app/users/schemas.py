"""Users, their addresses and their memberships on the wire."""

import re
from typing import Any, Final

from marshmallow import fields

from app.api.fields import Answer, Moment, Text, Word, Words, coded
from app.users.models import MEMBERSHIP_ROLES

MEMBERSHIP_ROLE = Words("MembershipRole", *MEMBERSHIP_ROLES)
MAX_ADDRESS_LENGTH: Final = 254  # RFC 5321, 4.5.3.1.3
# ASCII only: lower-casing maps other letters to ASCII, so an address with a Kelvin sign would become one with a k.
# No comma, colon, semicolon or angle bracket: in a header of a mail they would begin another address.
_ADDRESS: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", re.ASCII)


class EmailAddress(Text):
    """The address of a new account, or a new address of one."""

    default_error_messages = {"not_an_address": coded("not_an_address", "An e-mail address is needed.")}  # noqa: RUF012

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=MAX_ADDRESS_LENGTH, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if not _ADDRESS.fullmatch(text):
            raise self.make_error("not_an_address")
        return text


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
