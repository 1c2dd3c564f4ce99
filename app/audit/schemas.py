"""The audit log on the wire."""

from marshmallow import fields

from app.api.fields import Answer, Choice, PeriodQuery, Text
from app.api.pagination import CountedPageQuery, counted_page_schema
from app.auth.actors import ActorKind
from app.auth.schemas import ActorSchema
from app.users.schemas import PersonSchema


class AuditEntrySchema(Answer):
    seq = fields.Integer(metadata={"description": "gapless in the tenant"})
    at = fields.DateTime(format="iso")
    actor_kind = fields.String(data_key="actorKind", metadata={"enum": list(ActorKind)})
    actor_id = fields.UUID(
        data_key="actorId",
        allow_none=True,
        metadata={"description": "a user's or an API key's id; null for the system"},
    )
    actor = fields.Nested(ActorSchema)
    action = fields.String()
    wallet_id = fields.UUID(data_key="walletId", allow_none=True)
    owner = fields.Nested(
        PersonSchema, allow_none=True, metadata={"description": "the member of `walletId`; null without a wallet"}
    )
    subject = fields.String(allow_none=True, metadata={"description": "the object of the action, beside the wallet"})
    before = fields.Dict(allow_none=True, metadata={"description": "amounts in minor units"})
    after = fields.Dict(allow_none=True, metadata={"description": "amounts in minor units"})
    refusal = fields.String(
        allow_none=True, metadata={"description": "the code of the refusal; null if the action was done"}
    )
    request_id = fields.String(data_key="requestId", allow_none=True)
    address = fields.String(allow_none=True)
    hash = fields.Function(lambda entry: entry.hash.hex(), metadata={"type": "string", "description": "hexadecimal"})


AuditPageSchema = counted_page_schema(AuditEntrySchema)


class AuditQuery(CountedPageQuery, PeriodQuery):
    action = Text(max_length=100)
    actor_id = fields.UUID(data_key="actorId")
    actor_kind = Choice(*ActorKind, data_key="actorKind")
    wallet_id = fields.UUID(data_key="walletId")
    is_refused = fields.Boolean(data_key="refused")
