"""The audit log on the wire."""

import re
from typing import Any

from marshmallow import fields

from app.api.fields import Answer, Moment, Text
from app.api.pagination import PageQuery, page_schema
from app.api.spelling import camel_case
from app.auth.actors import ActorKind
from app.money import format_minor

_MINOR = re.compile("(_m|M)inor$")


class StateField(fields.Dict):
    """A state before or after a change. The log stores names as the database has them and amounts in minor units; an
    answer spells both as all other answers do. A state without a currency of its own has its wallet's.
    """

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> dict[str, Any] | None:
        return None if value is None else _spelled(value, value.get("currency", obj.currency))


def _spelled(state: dict[str, Any], currency: str | None) -> dict[str, Any]:
    return {
        camel_case(_MINOR.sub("", name)): (
            _spelled(value, currency)
            if isinstance(value, dict)
            else format_minor(value, currency)
            if currency and isinstance(value, int) and _MINOR.search(name)
            else value
        )
        for name, value in state.items()
    }


class AuditEntrySchema(Answer):
    seq = fields.Integer(metadata={"description": "gapless in the tenant"})
    at = Moment()
    actor_kind = fields.String(data_key="actorKind", metadata={"enum": list(ActorKind)})
    actor_id = fields.UUID(
        data_key="actorId",
        allow_none=True,
        metadata={"description": "a user's or an API key's id; null for the system"},
    )
    action = fields.String()
    wallet_id = fields.UUID(data_key="walletId", allow_none=True)
    subject = fields.String(allow_none=True, metadata={"description": "the object of the action, beside the wallet"})
    before = StateField(allow_none=True, metadata={"description": "spelled as in other answers"})
    after = StateField(allow_none=True, metadata={"description": "spelled as in other answers"})
    refusal = fields.String(
        allow_none=True, metadata={"description": "the code of the refusal; null if the action was done"}
    )
    request_id = fields.String(data_key="requestId", allow_none=True)
    address = fields.String(allow_none=True)
    hash = fields.Function(lambda entry: entry.hash.hex(), metadata={"type": "string", "description": "hexadecimal"})


AuditPageSchema = page_schema(AuditEntrySchema)


class AuditQuery(PageQuery):
    action = Text(max_length=100)
    actor_id = fields.UUID(data_key="actorId")
    wallet_id = fields.UUID(data_key="walletId")
    is_refused = fields.Boolean(data_key="refused")
