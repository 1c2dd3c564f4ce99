"""An idempotency key belongs to its caller: the wallet's owner, a user of the staff, or all API keys of the tenant."""

from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from flask import Flask

from app.auth.actors import Actor, ActorKind
from app.ledger.bulk.models import Item, Outcome
from app.ledger.bulk.service import post_many
from app.ledger.errors import IdempotencyKeyReused
from app.ledger.models import Movement, PostedTransaction
from app.ledger.service import post, post_own
from tenant_schemas.flask import tenant_context
from tenant_schemas.testing.plugin import Database
from tests.factories.people import People, Person

KEY = "the same key"
PAYMENT: dict[str, Any] = {"type": "payment", "amount_minor": 100, "idempotency_key": KEY}


class Counter:
    """A wallet of 100.00 in `km`, its owner, and two tellers."""

    def __init__(self, app: Flask, people: People) -> None:
        self.app = app
        self.owner = people.make(km="member")
        self.wallet_id = people.wallet(self.owner, "km", balance_minor=10_000)
        self.tellers = [people.make(km="admin").user_id for _ in range(2)]

    def post(self, admin_id: UUID | None, **changed: Any) -> tuple[PostedTransaction, bool]:
        movement = Movement(**PAYMENT | changed, admin_id=admin_id)
        with self.app.app_context(), tenant_context("km"):
            if admin_id is None:
                return post_own(self.owner.user_id, "BAM", movement)
            return post(self.wallet_id, movement)

    def post_many(self, admin_id: UUID, amount_minor: int = 100) -> list[Outcome]:
        items = [Item(wallet_id=self.wallet_id, type="payment", amount_minor=amount_minor) for _ in range(2)]
        with self.app.app_context(), tenant_context("km"):
            return post_many(items, actor=Actor(ActorKind.USER, admin_id), idempotency_key=KEY, is_atomic=True)


@pytest.fixture
def counter(app: Flask, people: People) -> Counter:
    return Counter(app, people)


def test_each_caller_has_the_key_for_itself_and_finds_its_own_result(counter: Counter) -> None:
    """The member, two tellers and a service use one key in one wallet; so does each in a bulk afterwards."""
    callers = (None, *counter.tellers, uuid4())
    first = [counter.post(caller) for caller in callers]
    again = [counter.post(caller) for caller in callers]
    assert [replayed for _, replayed in first + again] == [False] * 4 + [True] * 4
    assert [posted.id for posted, _ in again] == [posted.id for posted, _ in first]
    assert [posted.seq for posted, _ in first] == [2, 3, 4, 5]


@pytest.mark.parametrize("caller", ["member", "teller", "service"])
def test_another_request_of_the_same_caller_is_refused(counter: Counter, caller: str) -> None:
    admin_id = {"member": None, "teller": counter.tellers[0], "service": uuid4()}[caller]
    counter.post(admin_id)
    with pytest.raises(IdempotencyKeyReused):
        counter.post(admin_id, amount_minor=101)


def test_a_service_with_a_new_api_key_finds_what_the_old_one_did(counter: Counter) -> None:
    old, new = uuid4(), uuid4()
    first, _ = counter.post(old)
    posted, replayed = counter.post(new)
    assert replayed
    assert posted == first, "with the admin_id of the first request"
    with pytest.raises(IdempotencyKeyReused):
        counter.post(new, amount_minor=101)


def test_a_service_with_a_new_api_key_finds_its_bulk(counter: Counter) -> None:
    old, new = uuid4(), uuid4()
    first = counter.post_many(old)
    again = counter.post_many(new)
    assert [outcome.is_replayed for outcome in first + again] == [False, False, True, True]
    assert [outcome.transaction for outcome in again] == [outcome.transaction for outcome in first]
    with pytest.raises(IdempotencyKeyReused):
        counter.post_many(new, 101)


def test_a_member_who_is_on_the_staff_is_one_caller_in_the_own_wallet(counter: Counter) -> None:
    counter.post(None)
    for act in (counter.post, counter.post_many):
        with pytest.raises(IdempotencyKeyReused):
            act(counter.owner.user_id)


def test_a_bulk_of_the_last_release_is_recognised(counter: Counter, database: Database) -> None:
    """It left no row in bulk_requests: its items are its record."""
    teller = counter.tellers[0]
    first = counter.post_many(teller)
    superuser = database.as_superuser()
    superuser.execute("SET session_replication_role TO replica")
    superuser.execute("DELETE FROM km_schema.bulk_requests WHERE caller_id = %s", (teller,))
    with pytest.raises(IdempotencyKeyReused) as refused:
        counter.post_many(teller, 101)
    assert refused.value.members == {"item": 0, "walletId": str(counter.wallet_id)}
    assert [outcome.transaction for outcome in counter.post_many(teller)] == [outcome.transaction for outcome in first]


def test_no_members_key_stands_in_the_way_of_an_opening_balance(counter: Counter, database: Database) -> None:
    """A member may guess the form of an opening's key, but for the commas that no key of a request has."""
    source_hash = uuid4().hex
    for form in ("opening:0:{}", "opening;0;{}"):
        counter.post(None, idempotency_key=form.format(source_hash))
    assert opened(database, counter.owner, source_hash) == (-500, None)


def opened(database: Database, person: Person, source_hash: str) -> Any:
    items = [{"user_id": str(person.user_id), "calculated_minor": -500, "source_rows": 1, "source_hash": source_hash}]
    query = "SELECT moved_minor, (reconciled).refused_by FROM openings_post_v1(%s, 'BAM', true)"
    return database.as_tenant("km").execute(query, (psycopg.types.json.Jsonb(items),)).fetchone()
