"""The laws of money, each attacked through the posting function as the service calls it, in both tenants."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from flask import Flask

from app.auth.actors import Actor, ActorKind
from app.db import db
from app.errors import ServiceError
from app.ledger.errors import (
    IdempotencyKeyReused,
    InsufficientFunds,
    PaymentNotFound,
    RefundExceedsPayment,
)
from app.ledger.models import Movement, PostedTransaction
from app.ledger.service import post
from app.money import MAX_MINOR
from app.wallets.errors import AmountOutOfRange, WalletClosed, WalletFrozen, WalletNotFound
from app.wallets.service import configure_wallet, get_wallet
from tenant_schemas.flask import tenant_context
from tenant_schemas.testing.plugin import Database
from tests.factories.people import People, Person

TENANTS = pytest.mark.parametrize("slug", ["eur", "km"])


class Teller:
    """Posts in one tenant on behalf of one person."""

    def __init__(self, app: Flask, slug: str, person: Person, wallet_id: UUID) -> None:
        self.app, self.slug, self.person, self.wallet_id = app, slug, person, wallet_id

    def post(self, type_: str, amount_minor: int | None, key: str | None = None, **told: Any) -> PostedTransaction:
        return self.post_or_replay(type_, amount_minor, key, **told)[0]

    def post_or_replay(
        self, type_: str, amount_minor: int | None, key: str | None = None, **told: Any
    ) -> tuple[PostedTransaction, bool]:
        movement = Movement(type=type_, amount_minor=amount_minor, idempotency_key=key or uuid4().hex, **told)
        with self.app.app_context(), tenant_context(self.slug):
            return post(told.pop("wallet_id", self.wallet_id), movement)

    def adjust(self, amount_minor: int) -> PostedTransaction:
        return self.post("adjustment", amount_minor, admin_id=self.person.user_id, reason="a test")

    def configure(self, *, credit_limit_minor: int | None = None, status: str | None = None) -> None:
        with self.app.app_context(), tenant_context(self.slug):
            configure_wallet(
                self.wallet_id,
                version=get_wallet(self.wallet_id).version,
                actor=Actor(ActorKind.USER, self.person.user_id),
                credit_limit_minor=credit_limit_minor,
                status=status,
            )
            db.session.commit()

    def state(self) -> dict[str, Any]:
        with self.app.app_context(), tenant_context(self.slug):
            wallet = get_wallet(self.wallet_id)
            names = ("balance_minor", "deposit_balance_minor", "credit_used_minor", "available_minor", "last_seq")
            return {name.removesuffix("_minor"): getattr(wallet, name) for name in names}


MakeTeller = Callable[..., Teller]


@pytest.fixture
def teller(app: Flask, people: People) -> MakeTeller:
    def make(slug: str, *, balance_minor: int = 0, credit_limit_minor: int = 0) -> Teller:
        person = people.make(**{slug: "member"})
        wallet_id = people.wallet(person, slug, balance_minor=balance_minor, credit_limit_minor=credit_limit_minor)
        return Teller(app, slug, person, wallet_id)

    return make


@TENANTS
def test_a_payment_draws_the_deposit_first_and_then_credit(teller: MakeTeller, slug: str) -> None:
    own = teller(slug, balance_minor=1000, credit_limit_minor=500)
    own.post("payment", 1200)
    assert own.state() == {
        "balance": -200, "deposit_balance": 0, "credit_used": 200, "available": 300, "last_seq": 2,
    }  # fmt: skip


def test_a_deposit_repays_credit_first(teller: MakeTeller) -> None:
    own = teller("eur", credit_limit_minor=500)
    own.post("payment", 300)
    own.post("deposit", 1000)
    assert own.state()["credit_used"] == 0
    assert own.state()["deposit_balance"] == 700


def test_a_refusal_for_funds_explains_itself_and_writes_nothing(teller: MakeTeller) -> None:
    own = teller("eur", balance_minor=1000, credit_limit_minor=500)
    with pytest.raises(InsufficientFunds) as refused:
        own.post("payment", 1501)
    assert refused.value.members == {
        "currency": "EUR", "available": "15.00", "required": "15.01", "shortfall": "0.01",
    }  # fmt: skip
    assert own.state()["last_seq"] == 1


def test_an_adjustment_down_obeys_the_same_limit(teller: MakeTeller) -> None:
    own = teller("eur", balance_minor=100)
    with pytest.raises(InsufficientFunds):
        own.adjust(-101)
    own.adjust(-100)
    own.adjust(250)
    assert own.state()["balance"] == 250


def test_an_adjustment_without_reason_or_admin_is_refused_by_its_constraint(teller: MakeTeller) -> None:
    own = teller("eur", balance_minor=100)
    for told in ({"reason": "no admin"}, {"admin_id": own.person.user_id}, {"admin_id": uuid4(), "reason": "  "}):
        with pytest.raises(psycopg.errors.CheckViolation, match="wallet_transactions_adjustment_explained"):
            own.post("adjustment", 5, **told)


@pytest.mark.parametrize(("type_", "amount_minor"), [("deposit", 0), ("deposit", -1), ("payment", -1), ("opening", 0)])
def test_the_function_itself_refuses_an_amount_of_the_wrong_sign(
    teller: MakeTeller, type_: str, amount_minor: int
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        teller("eur", balance_minor=10).post(type_, amount_minor)


@pytest.mark.parametrize("type_", ["deposit", "payment", "adjustment", "opening"])
def test_the_function_itself_refuses_a_missing_amount_unless_it_is_a_refund(teller: MakeTeller, type_: str) -> None:
    own = teller("eur", balance_minor=10)
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        own.post(type_, None, admin_id=own.person.user_id, reason="a test")


def test_an_unknown_type_is_refused(teller: MakeTeller) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        teller("eur").post("gift", 5)


def test_an_opening_balance_may_be_in_credit(teller: MakeTeller) -> None:
    own = teller("km", credit_limit_minor=500)
    own.post("opening", -300)
    assert own.state()["credit_used"] == 300


def test_a_balance_beyond_bigint_is_refused_by_name(teller: MakeTeller) -> None:
    own = teller("eur", balance_minor=MAX_MINOR)
    with pytest.raises(AmountOutOfRange):
        own.post("deposit", 1)
    assert own.state()["balance"] == MAX_MINOR


def test_refunds_in_parts_stop_at_what_is_left(teller: MakeTeller) -> None:
    own = teller("eur", balance_minor=1000)
    payment = own.post("payment", 600)
    own.post("refund", 200, refund_of=payment.id)
    with pytest.raises(RefundExceedsPayment) as refused:
        own.post("refund", 401, refund_of=payment.id)
    assert refused.value.members["refundable"] == "4.00"
    assert own.post("refund", None, refund_of=payment.id).amount_minor == 400
    with pytest.raises(RefundExceedsPayment):
        own.post("refund", None, refund_of=payment.id)
    assert own.state()["balance"] == 1000


def test_a_refund_names_a_payment_of_the_same_wallet_and_nothing_else(teller: MakeTeller) -> None:
    own, other = teller("eur", balance_minor=1000), teller("eur", balance_minor=1000)
    theirs = other.post("payment", 100)
    deposit = own.post("deposit", 100)
    for wrong in (theirs.id, deposit.id, uuid4(), None):
        with pytest.raises(PaymentNotFound):
            own.post("refund", 50, refund_of=wrong)


def test_a_repeated_request_has_the_first_answer_for_ever(teller: MakeTeller) -> None:
    own = teller("eur", balance_minor=1000)
    first, replayed = own.post_or_replay("payment", 300, "k", description="one")
    assert not replayed
    own.post("payment", 700)
    own.configure(status="frozen")
    assert own.post_or_replay("payment", 300, "k", description="one") == (first, True)
    assert own.state()["last_seq"] == 3


@pytest.mark.parametrize(
    "changed", [{"amount_minor": 301}, {"description": "two"}, {"order_id": "7"}, {"type_": "deposit"}]
)
def test_a_key_used_for_another_request_is_refused(teller: MakeTeller, changed: dict[str, Any]) -> None:
    own = teller("eur", balance_minor=1000)
    request: dict[str, Any] = {"type_": "payment", "amount_minor": 300, "description": "one"}
    own.post(**request, key="k")
    with pytest.raises(IdempotencyKeyReused):
        own.post(**(request | changed), key="k")
    assert own.state()["balance"] == 700


def test_a_repeated_refund_of_the_rest_is_a_replay_and_not_a_second_refund(teller: MakeTeller) -> None:
    own = teller("eur", balance_minor=1000)
    payment = own.post("payment", 600)
    first = own.post_or_replay("refund", None, "k", refund_of=payment.id)
    assert own.post_or_replay("refund", None, "k", refund_of=payment.id) == (first[0], True)


def test_one_key_may_be_used_in_two_wallets_and_two_tenants(teller: MakeTeller) -> None:
    for own in (teller("eur", balance_minor=10), teller("eur", balance_minor=10), teller("km", balance_minor=10)):
        assert not own.post_or_replay("payment", 10, "the same key")[1]


def test_a_frozen_wallet_is_paid_into_and_not_from(teller: MakeTeller) -> None:
    own = teller("eur", balance_minor=1000)
    payment = own.post("payment", 100)
    own.configure(status="frozen")
    with pytest.raises(WalletFrozen):
        own.post("payment", 1)
    own.post("deposit", 5)
    own.post("refund", 100, refund_of=payment.id)
    own.configure(status="active")
    own.post("payment", 1)


def test_a_closed_wallet_moves_no_more(teller: MakeTeller) -> None:
    own = teller("eur")
    own.configure(status="closed")
    for type_ in ("deposit", "payment"):
        with pytest.raises(WalletClosed):
            own.post(type_, 1)


def test_a_wallet_of_the_other_tenant_does_not_exist(app: Flask, teller: MakeTeller) -> None:
    eur = teller("eur", balance_minor=10)
    with app.app_context(), tenant_context("km"), pytest.raises(WalletNotFound):
        post(eur.wallet_id, Movement(type="payment", amount_minor=1, idempotency_key="k"))


def test_every_transaction_has_its_entry(teller: MakeTeller, database: Database) -> None:
    own = teller("km", balance_minor=1000, credit_limit_minor=100)
    payment = own.post("payment", 600)
    own.post("refund", 100, refund_of=payment.id)
    own.adjust(7)
    own.adjust(-7)
    own.post("opening", 5)
    entries = database.as_superuser().execute(
        """SELECT t.type, e.entry_no, e.debit_account, e.credit_account, e.amount_minor
        FROM km_schema.movement_entries e JOIN km_schema.wallet_transactions t ON t.id = e.transaction_id
        WHERE t.wallet_id = %s ORDER BY t.seq""",
        (own.wallet_id,),
    )
    assert entries.fetchall() == [
        ("deposit", 1, "cash", "wallets", 1000),
        ("payment", 1, "wallets", "sales", 600),
        ("refund", 1, "sales", "wallets", 100),
        ("adjustment", 1, "adjustments", "wallets", 7),
        ("adjustment", 1, "wallets", "adjustments", 7),
        ("opening", 1, "opening_balances", "wallets", 5),
    ]


def in_threads(count: int, act: Callable[[int], Any]) -> list[Any]:
    """Start all at the same moment; an error of the service counts as a result."""
    start = Barrier(count)

    def run(number: int) -> Any:
        start.wait()
        try:
            return act(number)
        except ServiceError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


@TENANTS
def test_sixteen_threads_spend_exactly_what_the_wallet_held(teller: MakeTeller, slug: str, database: Database) -> None:
    own = teller(slug, balance_minor=1000, credit_limit_minor=50)

    def spend(number: int) -> int:
        spent = 0
        while True:
            try:
                spent -= own.post("payment", 7 + number).amount_minor
            except InsufficientFunds:
                return spent

    spent = in_threads(16, spend)
    state = own.state()
    assert sum(spent) == 1000 - state["balance"]
    assert 0 <= state["available"] < 7
    rows = database.as_superuser().execute(
        f"SELECT seq, created_at, balance_after_minor FROM {slug}_schema.wallet_transactions"
        " WHERE wallet_id = %s ORDER BY seq",
        (own.wallet_id,),
    ).fetchall()  # fmt: skip
    assert [seq for seq, *_ in rows] == list(range(1, len(rows) + 1))
    assert [at for _, at, _ in rows] == sorted(at for _, at, _ in rows)
    assert rows[-1][2] == state["balance"]


def test_two_requests_with_one_key_at_the_same_moment_post_once(teller: MakeTeller) -> None:
    own = teller("eur", balance_minor=1000)
    for _ in range(5):
        key = uuid4().hex
        results = in_threads(8, lambda _, key=key: own.post_or_replay("payment", 100, key))
        assert sorted(replayed for _, replayed in results) == [False] + [True] * 7
        assert len({posted.id for posted, _ in results}) == 1
    assert own.state()["balance"] == 500


def test_refunds_at_the_same_moment_never_exceed_the_payment(teller: MakeTeller) -> None:
    own = teller("eur", balance_minor=1000)
    payment = own.post("payment", 1000)
    results = in_threads(16, lambda _: own.post("refund", 90, refund_of=payment.id))
    assert sum(isinstance(result, RefundExceedsPayment) for result in results) == 5
    assert own.state()["balance"] == 11 * 90


@pytest.mark.parametrize("table", ["wallet_transactions", "ledger_entries", "audit_log"])
@pytest.mark.parametrize("verb", ["UPDATE {} SET {} = {}", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
def test_not_even_the_owner_changes_history(database: Database, table: str, verb: str) -> None:
    column = {"wallet_transactions": "amount_minor", "ledger_entries": "amount_minor", "audit_log": "action"}[table]
    for statement in (verb.format(f"eur_schema.{table}", column, column),):
        with pytest.raises(psycopg.errors.RestrictViolation):
            database.as_superuser().execute(statement)


def test_a_lost_connection_is_retried_with_the_same_key_and_posts_once(teller: MakeTeller, database: Database) -> None:
    own = teller("eur", balance_minor=1000)
    own.post("payment", 1)
    database.as_superuser().execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND usename = 'tenant_eur'",
        (database.name,),
    )
    own.post("payment", 1)
    assert own.state()["last_seq"] == 3
