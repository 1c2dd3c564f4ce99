"""Webhooks of one tenant, whose deliveries a test makes itself, as the relay does."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from flask import Flask

from app.auth.actors import SYSTEM
from app.db import db
from app.ledger.models import Movement
from app.ledger.service import post
from app.webhooks import delivery, service
from app.webhooks.delivery import deliver_due
from app.webhooks.models import WebhookEndpoint
from app.webhooks.round import Delivery
from app.webhooks.sender import Sender
from tenant_schemas.testing.plugin import Database
from tests.factories.feed import Feed, in_tenant
from tests.factories.people import People

_CHOSEN = {"description": None, "types": [], "payload": "full", "delivery_order": "wallet"}


class Hooked:
    """The tenant `eur` of the shared database. Its webhooks end with the test."""

    def __init__(self, app: Flask, database: Database, slug: str = "eur") -> None:
        self.app, self.database, self.slug = app, database, slug
        self.feed = Feed(app, slug)
        self._people = People(app)

    def webhook(self, url: str, **chosen: Any) -> UUID:
        """A new webhook, which gets nothing of what was before it."""
        self.feed.stamp()
        with in_tenant(self.app, self.slug):
            made, _ = service.create_webhook(_CHOSEN | chosen | {"url": url}, actor=SYSTEM)
            webhook_id = made.id
            db.session.commit()
        return webhook_id

    def wallet(self) -> UUID:
        """A wallet with money, whose events so far are numbered."""
        wallet_id = self._people.wallet(self._people.make(**{self.slug: "member"}), self.slug, balance_minor=100_000)
        self.feed.stamp()
        return wallet_id

    def pay(self, wallet_id: UUID, times: int = 1) -> list[UUID]:
        """Payments, numbered now. Returns their ids, which are the ids of the events."""
        with in_tenant(self.app, self.slug):
            paid = [
                post(wallet_id, Movement(type="payment", amount_minor=1, idempotency_key=uuid4().hex))
                for _ in range(times)
            ]
        self.feed.stamp()
        return [each.id for each, _ in paid]

    def deliver(self) -> int:
        """Deliver until nothing is due. Returns the number of calls that found something."""
        count = 0
        with in_tenant(self.app, self.slug):
            while deliver_due():
                count += 1
                assert count < 100, "a webhook stays due"
        return count

    def get(self, webhook_id: UUID) -> WebhookEndpoint:
        with in_tenant(self.app, self.slug):
            found = service.get_webhook(webhook_id)
            db.session.expunge(found)
            return found

    def pass_time(self, delta: timedelta) -> None:
        """Let all of this tenant's webhooks be as they would be after this time."""
        seconds = delta.total_seconds()
        self.run(
            "UPDATE webhook_endpoints SET next_at = next_at - make_interval(secs => %(s)s),"
            " failing_since = failing_since - make_interval(secs => %(s)s),"
            " rotated_at = rotated_at - make_interval(secs => %(s)s),"
            " replaced_at = ARRAY(SELECT r - make_interval(secs => %(s)s) FROM unnest(replaced_at) AS r),"
            " lease_until = lease_until - make_interval(secs => %(s)s),"
            " trimmed_at = trimmed_at - make_interval(secs => %(s)s)",
            {"s": seconds},
        )
        for table, column in (
            *(("webhook_lanes", "next_at"), ("webhook_replays", "next_at"), ("webhook_replays", "finished_at")),
            ("webhook_attempts", "at"),
        ):
            self.run(f"UPDATE {table} SET {column} = {column} - make_interval(secs => %(s)s)", {"s": seconds})

    def forget(self) -> None:
        """Delete all webhooks of both tenants."""
        with self.database.as_superuser() as connection:
            for slug in ("eur", "km"):
                connection.execute(f"DELETE FROM {slug}_schema.webhook_endpoints".encode())

    def run(self, statement: str, parameters: Any = ()) -> None:
        """As the owner, who may write the tables."""
        with self.database.as_superuser() as connection:
            connection.execute(f"SET search_path TO {self.slug}_schema")
            connection.execute(statement, parameters)

    def rows(self, query: str, parameters: Any = ()) -> list[Any]:
        with self.database.as_superuser() as connection:
            connection.execute(f"SET search_path TO {self.slug}_schema")
            return connection.execute(query, parameters).fetchall()


@contextmanager
def hooked_tenant(app: Flask, database: Database, sender: Sender) -> Iterator[Hooked]:
    """Deliver with this sender until the end of the block. No webhook of another test is there meanwhile."""
    before: Delivery = app.extensions[delivery.EXTENSION]
    app.extensions[delivery.EXTENSION] = Delivery(sender, before.master_secret)
    hooked = Hooked(app, database)
    hooked.forget()
    try:
        yield hooked
    finally:
        app.extensions[delivery.EXTENSION] = before
        hooked.forget()
