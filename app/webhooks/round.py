"""Sends the messages of one round to an endpoint, several at once, and tells what came of each.

The messages of a group go one after the other, and end at the first failure. No db is used here.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Lock
from time import monotonic
from typing import Final
from uuid import UUID

from app.events.feed import FeedEvent, event_json
from app.metrics.definitions import DELIVERED, FAILED, SINK_ATTEMPTS
from app.tracing import delivery_span
from app.webhooks.lease import Claimed
from app.webhooks.schedule import FAILURES_BEFORE_PAUSE, retry_after_of
from app.webhooks.sender import Answer, Channel, Sender
from app.webhooks.signature import signed_headers, signing_epochs
from tenant_schemas.context import current_tenant

SINK: Final = "webhook"
CONTENT_TYPE: Final = "application/cloudevents+json; charset=utf-8"
CONNECTIONS: Final = 8  # to one endpoint at once
SECONDS: Final = 10.0  # then a round begins no further message
GONE: Final = 410
ASK_TO_WAIT: Final = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Delivery:
    """How this process delivers webhooks."""

    sender: Sender
    master_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sent:
    """A message and its answer."""

    event: FeedEvent
    at: datetime
    answer: Answer

    @property
    def retry_after(self) -> timedelta | None:
        """How long the endpoint asks to wait."""
        return retry_after_of(self.answer.retry_after, self.at) if self.answer.status in ASK_TO_WAIT else None


@dataclass(slots=True)
class Group:
    """Events that go in their order. `attempts` is how often the first was tried before. `sent` has those that were
    sent: all were delivered but perhaps the last.
    """

    key: UUID
    is_ordered: bool
    events: Sequence[FeedEvent]
    attempts: int = 0
    sent: list[Sent] = field(default_factory=list)

    @property
    def delivered(self) -> list[FeedEvent]:
        return [each.event for each in self.sent if each.answer.is_success]

    @property
    def failed(self) -> Sent | None:
        return self.sent[-1] if self.sent and not self.sent[-1].answer.is_success else None


class Round:
    """One round to one endpoint. It stops early if the endpoint fails several times in a row, is gone, or asks to
    wait.
    """

    def __init__(self, sender: Sender, master_secret: str, endpoint: Claimed) -> None:
        self._sender, self._secret, self._endpoint = sender, master_secret, endpoint
        self._tenant_id = current_tenant().id  # The threads of the pool are bound to no tenant.
        self._ends_at = 0.0
        self._lock = Lock()
        self._is_over = False
        self._failures = endpoint.failures

    def run(self, groups: Sequence[Group]) -> None:
        """Send the groups, as far as the round goes."""
        waiting = [group for group in groups if group.events]
        if not waiting:
            return
        channel = self._sender.open(self._endpoint.url, connections=CONNECTIONS)
        if isinstance(channel, Answer):  # No address to send to: the first message has failed.
            SINK_ATTEMPTS.labels(SINK, FAILED).inc()
            waiting[0].sent.append(Sent(waiting[0].events[0], datetime.now(UTC), channel))
            return
        self._ends_at = monotonic() + SECONDS  # A name that resolves slowly leaves no less time for messages.
        with channel:
            if len(waiting) == 1:
                self._send(channel, waiting[0])
                return
            with ThreadPoolExecutor(min(CONNECTIONS, len(waiting)), "webhooks") as pool:
                list(pool.map(lambda group: self._send(channel, group), waiting))

    def _send(self, channel: Channel, group: Group) -> None:
        for event in group.events:
            if self._is_over or monotonic() > self._ends_at:
                return
            body = event_json(event, "thin" if self._endpoint.payload == "thin" else "full")
            sent_at = datetime.now(UTC)
            with delivery_span(SINK, event.body.get("traceparent")):
                answer = channel.send(self._headers(str(event.id), body, sent_at), body)
            SINK_ATTEMPTS.labels(SINK, DELIVERED if answer.is_success else FAILED).inc()
            group.sent.append(Sent(event, sent_at, answer))
            self._note(answer)
            if not answer.is_success:
                return

    def _headers(self, message_id: str, body: bytes, sent_at: datetime) -> dict[str, str]:
        own = self._endpoint
        return {"Content-Type": CONTENT_TYPE} | signed_headers(
            self._secret,
            self._tenant_id,
            own.id,
            signing_epochs(own.secret_epoch, own.replaced_at, sent_at),
            message_id=message_id,
            timestamp=int(sent_at.timestamp()),
            body=body,
        )

    def _note(self, answer: Answer) -> None:
        with self._lock:
            self._failures = 0 if answer.is_success else self._failures + 1
            asks_to_wait = answer.status in ASK_TO_WAIT and answer.retry_after is not None
            if self._failures >= FAILURES_BEFORE_PAUSE or answer.status == GONE or asks_to_wait:
                self._is_over = True
