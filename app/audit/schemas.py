"""The audit log on the wire."""

import re
from typing import Any

from marshmallow import fields

from app.api.fields import Answer, Choice, Identifier, Moment, PeriodQuery, QueryFlag, Text, Word
from app.api.pagination import CountedPageQuery, counted_page_schema
from app.api.spelling import camel_case
from app.auth.schemas import ACTOR_KINDS, ActorSchema
from app.money import format_minor
from app.users.schemas import PersonSchema

_MINOR = re.compile("(_m|M)inor$")
# Release 0.2.0 wrote times like this, in UTC. The chain keeps them, and an answer shows a Z.
_UTC_OFFSET = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?)\+00:00", re.ASCII)
# Release 0.2.0 wrote the address into the entries of invitations. The chain keeps it, and no answer shows it: the
# tenant may have forgotten whose it is.
_ADDRESS = "email"


class StateField(fields.Dict):
    """A state before or after a change. The log stores names as the database has them and amounts in minor units; an
    answer spells both as all other answers do. A state without a currency of its own has its wallet's.
    """

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> dict[str, Any] | None:
        return None if value is None else _spelled(value, value.get("currency", obj.currency))


def _spelled(state: dict[str, Any], currency: str | None) -> dict[str, Any]:
    return {
        camel_case(_MINOR.sub("", name)): _spelled_value(name, value, currency)
        for name, value in state.items()
        if name != _ADDRESS
    }


def _spelled_value(name: str, value: Any, currency: str | None) -> Any:
    if isinstance(value, dict):
        return _spelled(value, currency)
    if isinstance(value, list):
        return [_spelled_value("", each, currency) for each in value]
    if isinstance(value, str):
        return _UTC_OFFSET.sub(r"\1Z", value) if _UTC_OFFSET.fullmatch(value) else value
    if currency and isinstance(value, int) and _MINOR.search(name):
        return _amount(value, currency)
    return value


def _amount(minor: int, currency: Any) -> Any:
    """The amount as a decimal string; as it is if an entry names no currency that there is."""
    try:
        return format_minor(minor, currency)
    except (TypeError, ValueError):
        return minor


class AuditEntrySchema(Answer):
    seq = fields.Integer(metadata={"description": "gapless in the tenant"})
    at = Moment()
    actor_kind = Word(ACTOR_KINDS, data_key="actorKind")
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
    before = StateField(allow_none=True, metadata={"description": "spelled as in other answers"})
    after = StateField(allow_none=True, metadata={"description": "spelled as in other answers"})
    refusal = fields.String(
        allow_none=True, metadata={"description": "the code of the refusal; null if the action was done"}
    )
    request_id = fields.String(data_key="requestId", allow_none=True)
    address = fields.String(allow_none=True)
    hash = fields.Function(lambda entry: entry.hash.hex(), metadata={"type": "string", "description": "hexadecimal"})


AuditPageSchema = counted_page_schema(AuditEntrySchema)


class AuditQuery(CountedPageQuery, PeriodQuery):
    action = Text(max_length=100)
    actor_id = Identifier(data_key="actorId")
    actor_kind = Choice(ACTOR_KINDS, data_key="actorKind")
    wallet_id = Identifier(data_key="walletId")
    is_refused = QueryFlag(data_key="refused")
