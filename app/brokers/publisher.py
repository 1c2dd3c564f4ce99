"""What every broker's publisher does, whichever the broker."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

# The name under which each broker has the events: an exchange, a subject, the start of a stream's key.
EVENTS: Final = "wallet.events"
CONTENT_TYPE: Final = "application/cloudevents+json"
CONNECT_SECONDS: Final = 10.0
# A broker that confirms nothing for so long counts as dead. A broker that is out of memory does that.
CONFIRM_SECONDS: Final = 30.0


class BrokerUnavailable(Exception):
    """No connection to the broker could be made, or it confirmed nothing in time. The same call may succeed later."""


class BrokerMisconfigured(Exception):
    """The URL has no known scheme, or the broker's library is not installed."""


@dataclass(frozen=True, slots=True)
class Message:
    """An event on its way. `routing_key` is `<tenant id>.<type>`. Messages with the same `partition_key` reach the
    broker in their order.
    """

    id: str
    type: str
    routing_key: str
    partition_key: str
    body: bytes

    @property
    def tenant_id(self) -> str:
        return self.routing_key.partition(".")[0]


class Publisher(Protocol):
    """A connection to a broker, made by the first `publish` and again after it broke. For one thread at a time."""

    def publish(self, messages: Sequence[Message]) -> int:
        """Publish the messages in their order. Returns how many the broker confirmed, counted from the front: fewer
        than all if it refused one, returned one or died. The caller then publishes again from there on. Messages
        behind may have arrived too, so consumers see some twice, and never a gap or another order within a
        `partition_key`.

        Raises BrokerUnavailable.
        """

    def close(self) -> None:
        """Close the connection. A second call has no effect."""
