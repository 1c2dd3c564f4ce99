"""The query of a stream."""

from marshmallow import fields

from app.api.fields import Schema, Text
from app.events.schemas import EventTypes


class OwnStreamQuery(Schema):
    after = Text(max_length=100, metadata={"description": "the cursor after which to start; Last-Event-ID is stronger"})
    types = EventTypes()


class StreamQuery(OwnStreamQuery):
    wallet_id = fields.UUID(data_key="walletId")
