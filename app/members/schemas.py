"""Members on the wire."""

import re
from typing import Any

from marshmallow import ValidationError, fields, validates

from app.api.fields import Answer, Choice, Schema, Text, coded
from app.api.pagination import PageQuery, page_schema
from app.users.models import MEMBERSHIP_ROLES
from app.users.schemas import MembershipSchema


class MeSchema(Answer):
    id = fields.UUID()
    email = fields.String()
    name = fields.String()
    is_operator = fields.Boolean(data_key="isOperator")
    memberships = fields.List(fields.Nested(MembershipSchema))


class MemberSchema(Answer):
    """A member in the tenant's directory. Address and name are the user's own, the same in all tenants."""

    id = fields.UUID(attribute="user_id", metadata={"description": "the user's id"})
    email = fields.String()
    name = fields.String()
    role = fields.String(metadata={"enum": list(MEMBERSHIP_ROLES)})


MemberPageSchema = page_schema(MemberSchema)


class MemberListQuery(PageQuery):
    q = Text(max_length=100, description="part of the member's address or name")
    role = Choice(*MEMBERSHIP_ROLES)


class MemberRoleSchema(Answer):
    """The answer to a change of members. It repeats only what the request said, because the user may be a member
    elsewhere.
    """

    id = fields.UUID(attribute="user_id", metadata={"description": "the user's id"})
    role = fields.String(metadata={"enum": list(MEMBERSHIP_ROLES)})


class AddMemberSchema(Schema):
    email = Text(required=True, max_length=254)
    name = Text(max_length=200, description="of a user who is new; others keep theirs")
    role = Choice(*MEMBERSHIP_ROLES, required=True)

    @validates("email")
    def is_address(self, value: str, **_: Any) -> None:
        if not re.fullmatch(r"[^@\s]+@[^@\s]+", value):
            raise ValidationError(coded("not_an_address", "An e-mail address is needed."))


class ChangeMemberSchema(Schema):
    role = Choice(*MEMBERSHIP_ROLES, required=True)
