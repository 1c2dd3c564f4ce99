"""Members on the wire."""

from marshmallow import fields

from app.api.fields import Answer, Choice, Schema, Text
from app.api.pagination import PageQuery, page_schema
from app.api_keys.handover import KeyChoice
from app.users.models import MEMBERSHIP_ROLES
from app.users.schemas import EmailAddress, MembershipSchema


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


class KeyChoiceField(Choice):
    """What becomes of the API keys that depend on the right of a member who loses it."""

    def __init__(self) -> None:
        super().__init__(*KeyChoice, data_key="apiKeys")
        meaning = "of the valid keys that an admin answers for; `keep`: you answer for them"
        self.metadata = {**self.metadata, "description": meaning}


class AddMemberSchema(Schema):
    email = EmailAddress(required=True)
    name = Text(max_length=200, description="of a user who is new; others keep theirs")
    role = Choice(*MEMBERSHIP_ROLES, required=True)
    api_keys = KeyChoiceField()


class ChangeMemberSchema(Schema):
    role = Choice(*MEMBERSHIP_ROLES, required=True)
    api_keys = KeyChoiceField()


class RemoveMemberQuery(Schema):
    api_keys = KeyChoiceField()
