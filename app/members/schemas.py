"""Members on the wire."""

from marshmallow import fields

from app.api.fields import Answer, Choice, Schema, Text, Word, Words
from app.api.pagination import CountedPageQuery, counted_page_schema
from app.api.text_fields import Name
from app.api_keys.handover import KeyChoice
from app.users.schemas import MEMBERSHIP_ROLE, EmailAddress, MyMembershipSchema


class MeSchema(Answer):
    id = fields.UUID()
    email = fields.String()
    name = fields.String()
    is_operator = fields.Boolean(data_key="isOperator")
    memberships = fields.List(fields.Nested(MyMembershipSchema))


class MemberSchema(Answer):
    """A member in the tenant's directory. Address and name are the user's own, the same in all tenants."""

    id = fields.UUID(attribute="user_id", metadata={"description": "the user's id"})
    email = fields.String()
    name = fields.String()
    role = Word(MEMBERSHIP_ROLE)
    version = fields.Integer(metadata={"description": "for If-Match"})


MemberPageSchema = counted_page_schema(MemberSchema)


class MemberListQuery(CountedPageQuery):
    q = Text(max_length=100, description="part of the member's address or name")
    role = Choice(MEMBERSHIP_ROLE)


class MemberRoleSchema(Answer):
    """The answer to a change of members. It repeats only what the request said, because the user may be a member
    elsewhere.
    """

    id = fields.UUID(attribute="user_id", metadata={"description": "the user's id"})
    role = Word(MEMBERSHIP_ROLE)


class KeyChoiceField(Choice):
    """What becomes of the API keys that depend on the right of a member who loses it."""

    def __init__(self) -> None:
        meaning = "of the valid keys that an admin answers for; `keep`: you answer for them"
        super().__init__(Words("KeyChoice", *KeyChoice), description=meaning, data_key="apiKeys")


class AddMemberSchema(Schema):
    email = EmailAddress(required=True)
    name = Name(max_length=200, description="of a user who is new; others keep theirs")
    role = Choice(MEMBERSHIP_ROLE, required=True)
    api_keys = KeyChoiceField()


class ChangeMemberSchema(Schema):
    role = Choice(MEMBERSHIP_ROLE, required=True)
    api_keys = KeyChoiceField()


class RemoveMemberQuery(Schema):
    api_keys = KeyChoiceField()
