"""What happens and what becomes of it in the feed."""

from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from flask import Flask

from app.api.fields import moment_text
from app.auth.actors import Actor, ActorKind
from app.db import db
from app.errors import ServiceError
from app.holds.models import AuthorisedHold
from app.holds.service import authorise, capture, expire_holds, void
from app.ledger.bulk.models import Item
from app.ledger.bulk.service import post_many
from app.ledger.service import post, rehearse
from app.orders.service import cancel, place
from app.wallets.service import configure_wallet, get_wallet
from tenant_schemas.testing.plugin import Database
from tests.factories.catalogue import Catalogue
from tests.factories.feed import POST, Feed, in_tenant, movement
from tests.factories.people import People, Person

Connection = psycopg.Connection[Any]


def words(feed: Feed, wallet_id: UUID) -> list[str]:
    return [event.type.removesuffix(".v1") for event in feed.of(wallet_id)]


def test_every_kind_of_movement_has_an_event_whose_id_is_the_movements(
    app: Flask, feed: Feed, wallet_id: UUID, person: Person
) -> None:
    with in_tenant(app):
        payment, _ = post(wallet_id, movement("payment", 300))
        posted = [
            post(wallet_id, movement("refund", 100, refund_of=payment.id))[0],
            post(wallet_id, movement("adjustment", -7, admin_id=person.user_id, reason="a test"))[0],
            post(wallet_id, movement("opening", 5))[0],
        ]
    events = feed.of(wallet_id)
    assert [event.type for event in events] == [
        "wallet.opened.v1",
        *(f"wallet.{kind}.posted.v1" for kind in ("deposit", "payment", "refund", "adjustment", "opening")),
    ]
    assert [event.id for event in events[2:]] == [payment.id, *(each.id for each in posted)]


def test_changes_of_a_wallet_have_events(app: Flask, feed: Feed, people: People, person: Person) -> None:
    wallet_id = people.wallet(person, "eur")
    for change in ({"credit_limit_minor": 500, "status": "frozen"}, {"status": "active"}, {"status": "active"}):
        configure(app, wallet_id, person, **change)
    configure(app, wallet_id, person, credit_limit_minor=0)
    configure(app, wallet_id, person, status="closed")
    assert words(feed, wallet_id) == [
        *("wallet.opened", "wallet.frozen", "wallet.limit_changed", "wallet.unfrozen", "wallet.limit_changed"),
        "wallet.closed",
    ]


def configure(app: Flask, wallet_id: UUID, person: Person, **change: Any) -> None:
    with in_tenant(app):
        version = get_wallet(wallet_id).version
        told = {"credit_limit_minor": None, "status": None} | change
        configure_wallet(wallet_id, version=version, actor=Actor(ActorKind.USER, person.user_id), **told)
        db.session.commit()


def test_holds_have_events(app: Flask, feed: Feed, person: Person, wallet_id: UUID, database: Database) -> None:
    with in_tenant(app):
        first = hold(person, 300)
        for amount_minor in (100, None):
            capture(person.user_id, first.id, amount_minor=amount_minor, idempotency_key=uuid4().hex)
        second = hold(person, 10)
        for _ in range(2):
            void(wallet_id, second.id)
        db.session.commit()
        third = hold(person, 10)
        due = "UPDATE eur_schema.holds SET expires_at = now() - interval '1 hour' WHERE id = %s RETURNING expires_at"
        (expired_at,) = database.as_superuser().execute(due, (third.id,)).fetchone() or ()
        expire_holds()
        db.session.commit()
    events = feed.of(wallet_id)
    assert [event.type for event in events[2:]] == [
        *("hold.authorised.v1", "hold.captured.v1", "wallet.payment.posted.v1"),
        *("hold.captured.v1", "wallet.payment.posted.v1", "hold.authorised.v1", "hold.voided.v1"),
        *("hold.authorised.v1", "hold.expired.v1"),
    ]
    data = [event.body["data"] for event in events]
    assert [each["captured"] for each in data if "captured" in each] == ["0.00", "1.00", "3.00", *["0.00"] * 4]
    assert events[-1].body["time"] == moment_text(expired_at), "when its time was over, not when that was noted"


def hold(person: Person, amount_minor: int) -> AuthorisedHold:
    told = {"amount_minor": amount_minor, "expires_at": None, "order_id": None, "description": None}
    return authorise(person.user_id, "EUR", idempotency_key=uuid4().hex, **told)[0]


def test_orders_have_events_and_each_tells_what_was_then(
    app: Flask, feed: Feed, person: Person, wallet_id: UUID, database: Database
) -> None:
    _, product_id = Catalogue(database).product(EUR="2.50")
    with in_tenant(app):
        order, _ = place(person.user_id, "EUR", [(product_id, 2)], idempotency_key=uuid4().hex)
        for _ in range(2):
            cancel(person.user_id, order.id, idempotency_key=uuid4().hex)
    payment, placed, refund, cancelled = feed.of(wallet_id)[2:]
    assert placed.body["data"] == {
        **{"walletId": str(wallet_id), "orderId": str(order.id), "userId": str(person.user_id), "status": "paid"},
        **{"total": "5.00", "currency": "EUR", "paymentId": str(payment.id), "refundId": None},
    }
    assert cancelled.type == "order.cancelled.v1"
    assert cancelled.body["data"] == {**placed.body["data"], "status": "cancelled", "refundId": str(refund.id)}


def test_dry_runs_replays_and_refusals_have_none(app: Flask, feed: Feed, wallet_id: UUID) -> None:
    before = feed.of(wallet_id)
    with in_tenant(app):
        rehearse(wallet_id, movement("payment", 1))
        for amount_minor in (100_000, 0):
            with pytest.raises((ServiceError, psycopg.Error)):
                post(wallet_id, movement("payment", amount_minor))
        assert feed.of(wallet_id) == before
        for _ in range(3):
            post(wallet_id, movement("payment", 1, "one key"))
    assert len(feed.of(wallet_id)) == len(before) + 1


def test_a_payment_that_is_rolled_back_has_none_and_leaves_no_gap(
    app: Flask, feed: Feed, wallet_id: UUID, database: Database
) -> None:
    before = feed.of(wallet_id)
    owner = database.as_superuser()
    owner.execute("SET search_path TO eur_schema")
    with owner.transaction(force_rollback=True):
        owner.execute(POST, (wallet_id, uuid4().hex))
        waiting = owner.execute("SELECT type FROM events WHERE position IS NULL").fetchall()
        assert waiting == [("wallet.payment.posted.v1",)]
    with in_tenant(app):
        post(wallet_id, movement("payment", 1))
    after = feed.of(wallet_id)
    assert len(after) == len(before) + 1
    feed.assert_gapless()


def test_a_bulk_has_an_event_for_each_item_in_its_wallets_order(
    app: Flask, feed: Feed, wallet_id: UUID, person: Person
) -> None:
    items = [Item(wallet_id=wallet_id, type="payment", amount_minor=amount_minor) for amount_minor in (9, 1, 5)]
    with in_tenant(app):
        post_many(items, actor=Actor(ActorKind.USER, person.user_id), idempotency_key=uuid4().hex, is_atomic=True)
    found = [(event.body["data"]["seq"], event.body["data"]["amount"]) for event in feed.of(wallet_id)[2:]]
    assert found == [(2, "-0.09"), (3, "-0.01"), (4, "-0.05")]


def test_payments_that_are_posted_together_have_events_in_their_wallets_order(
    feed: Feed, people: People, database: Database
) -> None:
    """All are rows of one statement, of two wallets by turns."""
    members = [people.make(eur="member") for _ in range(2)]
    wallets = [people.wallet(member, "eur", balance_minor=1000) for member in members]
    superuser = database.as_superuser()
    superuser.execute("SET search_path TO eur_schema")
    query = "SELECT id FROM shared.sessions WHERE user_id = %s"
    sessions = [superuser.execute(query, (member.user_id,)).fetchone() for member in members]
    (version,) = superuser.execute("SELECT version FROM shared.tenants WHERE slug = 'eur'").fetchone() or ()
    count = 40
    users = [members[n % 2].user_id for n in range(count)]
    proofs = [(sessions[n % 2] or ())[0] for n in range(count)]
    keys = [uuid4().hex for _ in range(count)]
    amounts = list(range(1, count + 1))
    paid = superuser.execute(
        "SELECT item_no FROM wallet_pay_many_v1(%s, %s, %s, 'EUR', %s::bigint[], %s, %s::text[])",
        (users, proofs, version, amounts, keys, [None] * count),
    )
    assert len(paid.fetchall()) == count
    for wallet_id in wallets:
        seqs = [event.body["data"]["seq"] for event in feed.of(wallet_id)[1:]]
        assert seqs == list(range(1, 2 + count // 2))


def test_an_event_has_the_trace_of_its_cause(app: Flask, feed: Feed, wallet_id: UUID, database: Database) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    owner = database.as_superuser()
    with owner.transaction():
        owner.execute(f"SET LOCAL search_path TO eur_schema; SET LOCAL wallet.traceparent TO '{trace}'".encode())
        owner.execute(POST, (wallet_id, uuid4().hex))
    owner.execute("SET search_path TO eur_schema")
    owner.execute(POST, (wallet_id, uuid4().hex))
    assert [event.body.get("traceparent") for event in feed.of(wallet_id)[-2:]] == [trace, None]


def test_hashes_link_up_from_the_wallets_first_movement_on(app: Flask, feed: Feed, wallet_id: UUID) -> None:
    with in_tenant(app):
        for amount_minor in range(1, 6):
            post(wallet_id, movement("payment", amount_minor))
        last_hash = get_wallet(wallet_id).last_hash
    data = [event.body["data"] for event in feed.of(wallet_id) if "hash" in event.body["data"]]
    assert [each["seq"] for each in data] == list(range(1, 7))
    assert [each["previousHash"] for each in data[1:]] == [each["hash"] for each in data[:-1]]
    assert data[-1]["hash"] == last_hash.hex()
