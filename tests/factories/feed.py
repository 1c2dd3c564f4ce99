"""Reads the feed of a tenant as the service does."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID, uuid4

from flask import Flask

from app.events.feed import FeedEvent, FeedHead, feed_head, read_events, stamp_events
from app.ledger.models import Movement
from tenant_schemas.flask import tenant_context
from tenant_schemas.tenant import Tenant

# A payment of one minor unit, for a connection of the owner: a wallet and a key.
POST: Final = "SELECT wallet_post_v4(%s, NULL, NULL, 'payment', 1, %s, NULL, NULL, NULL, NULL, NULL, NULL)"


@contextmanager
def in_tenant(app: Flask, slug: str = "eur") -> Iterator[Tenant]:
    with app.app_context(), tenant_context(slug) as tenant:
        yield tenant


def movement(type_: str, amount_minor: int | None, key: str | None = None, **told: Any) -> Movement:
    return Movement(type=type_, amount_minor=amount_minor, idempotency_key=key or uuid4().hex, **told)


class Feed:
    """The feed of one tenant. Other tests write into it too: ask for the events of your own wallets."""

    def __init__(self, app: Flask, slug: str) -> None:
        self.app, self.slug = app, slug

    def stamp(self, batch: int = 500) -> int:
        """Number all that waits. Returns how many events."""
        count = 0
        with self.app.app_context(), tenant_context(self.slug):
            while stamped := stamp_events(batch):
                count += stamped
        return count

    def head(self) -> FeedHead:
        with self.app.app_context(), tenant_context(self.slug):
            return feed_head()

    def read(self, after: int = 0, limit: int = 1000, **filters: Any) -> list[FeedEvent]:
        with self.app.app_context(), tenant_context(self.slug):
            return read_events(after, limit, **filters)

    def of(self, *wallet_ids: UUID, types: Collection[str] | None = None) -> list[FeedEvent]:
        """All events of these wallets, numbered now."""
        self.stamp()
        return self.read(types=types, wallet_ids=wallet_ids)

    def assert_gapless(self) -> None:
        """Every position up to the head has its event."""
        positions = [event.position for event in self.read(limit=100_000)]
        assert positions == list(range(1, self.head().position + 1))
