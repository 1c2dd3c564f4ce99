"""A member's wallet with a history, and the ways to read it."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app.ledger.models import Movement
from app.ledger.service import post
from tenant_schemas.flask import tenant_context
from tenant_schemas.testing.plugin import Database
from tests.factories.api import Api
from tests.factories.people import People

START, END = "2000-01-01T00:00:00Z", "2100-01-01T00:00:00Z"


class Book:
    """One wallet in one tenant, its member, and an admin."""

    def __init__(self, app: Flask, slug: str = "eur", currency: str | None = None) -> None:
        people = People(app)
        self.app, self.slug, self.api = app, slug, Api(app)
        self.member = people.make(**{slug: "member"})
        self.admin = people.make(**{slug: "admin"})
        self.wallet_id: UUID = people.wallet(self.member, slug, currency=currency)

    def post(self, type_: str, amount_minor: int, **more: Any) -> datetime:
        """Post to the wallet; returns the time of the posting."""
        movement = Movement(type=type_, amount_minor=amount_minor, idempotency_key=uuid4().hex, **more)
        with self.app.app_context(), tenant_context(self.slug):
            return post(self.wallet_id, movement)[0].created_at

    def ask(self, start: str = START, end: str = END, *, by_admin: bool = False, **more: Any) -> TestResponse:
        """The wallet's statement, by the member's or the admin's route."""
        buffered = more.pop("buffered", True)
        form = more.pop("format", "json")
        path = f"/api/admin/wallets/{self.wallet_id}/statement" if by_admin else "/api/wallet/statement"
        path += "" if form == "json" else f".{form}"
        person = self.admin if by_admin else self.member
        query = {"from": start, "to": end, **more}
        return self.api.get(path, person, self.slug, query_string=query, buffered=buffered)

    def statement(self, start: str = START, end: str = END, **more: Any) -> dict[str, Any]:
        answer = self.ask(start, end, **more)
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.get_json()
        return shown


@pytest.fixture
def book(app: Flask) -> Book:
    return Book(app)


def fill(database: Database, book: Book, count: int) -> None:
    """Give an empty wallet this many movements of one minor unit, a second apart from 2020 on, with triggers
    disabled.
    """
    schema = f"{book.slug}_schema"
    superuser = database.as_superuser()
    superuser.execute("SET session_replication_role = replica")
    superuser.execute(
        f"INSERT INTO {schema}.wallet_transactions (id, wallet_id, currency, seq, type, amount_minor,"
        " balance_after_minor, idempotency_key, request_fingerprint, description, created_at, hash)"
        " SELECT gen_random_uuid(), w.id, w.currency, n, 'deposit', 1, n, n::text, '', 'movement ' || n,"
        f" timestamptz '2020-01-01Z' + n * interval '1 second', '' FROM {schema}.wallets w,"
        " generate_series(1, %s) n WHERE w.id = %s".encode(),
        (count, book.wallet_id),
    )
    superuser.execute(
        f"UPDATE {schema}.wallets SET balance_minor = %s, last_seq = %s, last_posted_at = now() WHERE id = %s".encode(),
        (count, count, book.wallet_id),
    )


def text_of(moment: datetime, plus: timedelta = timedelta(0)) -> str:
    return (moment + plus).astimezone(UTC).isoformat()
