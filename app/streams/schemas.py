"""The query of a stream."""

from app.api.fields import Identifier, Schema, Text
from app.events.schemas import EventTypes


class OwnStreamQuery(Schema):
    after = Text(max_length=60, description="the cursor after which to start; `Last-Event-ID` has precedence")
    types = EventTypes()


class StreamQuery(OwnStreamQuery):
    wallet_id = Identifier(data_key="walletId")
