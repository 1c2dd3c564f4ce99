"""The feed on the wire."""

from typing import Any, ClassVar, Final

from marshmallow import fields

from app.api.fields import Answer, Identifier, PeriodQuery, Schema, Text, Word, Words, coded
from app.api.pagination import DEFAULT_LIMIT, MAX_LIMIT, LimitField, PageQuery, page_schema
from app.events.models import EVENT_TYPES

TYPES: Final = Words("EventType", *EVENT_TYPES)
MAX_WAIT_SECONDS: Final = 25  # Proxies often close a connection that is silent for 30 s.

_LIST: Final = ", ".join(f"`{type_}`" for type_ in EVENT_TYPES)


class EventTypes(fields.String):
    """Types of events, separated by commas, in a query."""

    default_error_messages = {  # noqa: RUF012
        "unknown_choice": coded("unknown_choice", "Name types of events, separated by commas: {choices}."),
    }

    def __init__(self, **kwargs: Any) -> None:
        about = {"description": f"types separated by commas: {_LIST}", "maxLength": 1000}
        super().__init__(metadata=about, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        types = str(value).split(",")
        if not set(types) <= set(EVENT_TYPES):
            raise self.make_error("unknown_choice", choices=", ".join(EVENT_TYPES))
        return types


class WaitField(LimitField):
    """Seconds to wait for the next event, in plain digits."""

    least, most = 0, MAX_WAIT_SECONDS
    default_error_messages = {  # noqa: RUF012
        "out_of_range": coded("wait_out_of_range", f"0 to {MAX_WAIT_SECONDS}."),
    }


class EventQuery(Schema):
    after = Text(max_length=60, description="the `nextCursor` of the page before; default: the oldest event")
    types = EventTypes()
    wallet_id = Identifier(data_key="walletId")
    limit = LimitField(load_default=DEFAULT_LIMIT, metadata={"minimum": 1, "maximum": MAX_LIMIT})
    wait = WaitField(load_default=0, metadata={"minimum": 0, "maximum": MAX_WAIT_SECONDS})


class EnvelopeSchema(Answer):
    """The members of a CloudEvent 1.0 that are described alike wherever events are sent or shown."""

    specversion = fields.String(metadata={"enum": ["1.0"]})
    source = fields.String(metadata={"description": "`/tenants/` and the tenant's id, which no renaming changes"})
    subject = fields.String(metadata={"description": "what it happened to, like `wallets/` and its id"})
    datacontenttype = fields.String(metadata={"enum": ["application/json"]})
    sequence = fields.String(
        metadata={"pattern": "^[0-9]{20}$", "description": "the position in the tenant's feed; compare it as text"}
    )
    partitionkey = fields.String(metadata={"description": "the wallet's id: its events keep their order"})
    feedid = fields.String(metadata={"description": "another feed has other sequences, after a restore for example"})
    traceparent = fields.String(metadata={"description": "of the request that caused it (W3C Trace Context)"})


class FeedEventSchema(EnvelopeSchema):
    """A CloudEvent 1.0. Take members that you do not know: there may be more of them."""

    may_lack: ClassVar[tuple[str, ...]] = ("partitionkey", "traceparent")

    id = fields.String(metadata={"description": "of a movement's event the movement's; unique in its `source`"})
    type = Word(TYPES)
    time = fields.String(metadata={"format": "date-time", "description": "when it happened"})
    data = fields.Dict(keys=fields.String(), metadata={"description": "see the page about events"})


class ReplayQuery(PageQuery, PeriodQuery):
    types = EventTypes()


class ReplayedEventSchema(FeedEventSchema):
    """The event of a movement, made again from the ledger: as in the feed, without `sequence` and `traceparent`."""

    may_lack: ClassVar[tuple[str, ...]] = ("sequence", "traceparent")

    replay = fields.Boolean(metadata={"description": "true: it has no position in the feed"})


ReplayedEventPageSchema = page_schema(ReplayedEventSchema)


class EventPageSchema(Answer):
    items = fields.List(fields.Nested(FeedEventSchema))
    next_cursor = fields.String(
        data_key="nextCursor", metadata={"description": "to go on after, also if there is no event yet"}
    )
