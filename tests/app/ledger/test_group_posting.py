"""Payments that arrive together are posted by one call. Each has its own answer or refusal, as if it were alone."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from flask import Flask

from tenant_schemas.testing.plugin import Database
from tests.factories.api import Api
from tests.factories.application import running
from tests.factories.people import People, Person

Answer = tuple[int, str | None]
# Rows that were written by one db transaction have one xmin.
DB_TRANSACTIONS = """
    SELECT count(DISTINCT xmin::text), count(*) FROM wallet_transactions
    WHERE type = 'payment' AND idempotency_key LIKE %s"""


def payers(app: Flask, count: int) -> list[Person]:
    """Members with money, whose standing the process remembers."""
    people = People(app)
    made = [people.make(km="member") for _ in range(count)]
    for person in made:
        people.wallet(person, "km", balance_minor=100_000)
        assert pay(app, person) == (201, None)
    return made


def pay(app: Flask, person: Person, key: str | None = None, **body: Any) -> Answer:
    response = Api(app).post("/api/wallet/payments", person, "km", key=key, json={"amount": "1.00", **body})
    assert response.json is not None
    replayed = "replayed" if response.headers.get("Idempotent-Replayed") else None
    return response.status_code, response.json.get("code", replayed)


def pay_together(app: Flask, payments: Sequence[tuple[Person, str, dict[str, Any]]]) -> list[Answer]:
    """All at the same moment, each in a thread of its own."""
    barrier = Barrier(len(payments))

    def one(payment: tuple[Person, str, dict[str, Any]]) -> Answer:
        person, key, body = payment
        barrier.wait()
        return pay(app, person, key, **body)

    with ThreadPoolExecutor(len(payments)) as threads:
        return list(threads.map(one, payments))


@pytest.fixture
def superuser(fresh_database: Database) -> psycopg.Connection[Any]:
    connection = fresh_database.as_superuser()
    connection.execute("SET search_path TO km_schema")
    return connection


@contextmanager
def locked(superuser: psycopg.Connection[Any], person: Person) -> Iterator[None]:
    """The person's wallet is locked by another session."""
    with superuser.transaction():
        superuser.execute("SELECT FROM wallets WHERE user_id = %s FOR UPDATE", (person.user_id,))
        yield


def test_payments_that_arrive_while_one_is_under_way_are_posted_by_one_call(
    fresh_app: Flask, fresh_database: Database, superuser: psycopg.Connection[Any]
) -> None:
    """The one under way waits for a locked wallet. The others do not wait for it."""
    first, *others = payers(fresh_app, 7)
    with ThreadPoolExecutor(1) as thread:
        with locked(superuser, first):
            slow = thread.submit(pay, fresh_app, first)
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'tenant_km' AND wait_event_type = 'Lock'"
            observer = fresh_database.as_superuser()
            while observer.execute(waiting).fetchone() != (1,):
                pass
            answers = pay_together(fresh_app, [(person, f"together-{n}", {}) for n, person in enumerate(others)])
            assert answers == [(201, None)] * 6
            assert not slow.done()
        assert slow.result() == (201, None)
    calls, rows = superuser.execute(DB_TRANSACTIONS, ("together-%",)).fetchone() or (0, 0)
    assert rows == 6
    assert calls < 6
    assert superuser.execute("SELECT * FROM ledger_audit_v5()").fetchall() == []


def test_each_payment_of_a_group_has_its_own_answer_or_refusal(
    fresh_app: Flask, fresh_database: Database, superuser: psycopg.Connection[Any]
) -> None:
    people = payers(fresh_app, 16)
    logged_out, removed, frozen, holder, *good = people
    assert pay(fresh_app, good[0], "used") == (201, None)
    assert (
        Api(fresh_app).post("/api/wallet/holds", holder, "km", key="of-hold", json={"amount": "5.00"}).status_code
        == 201
    )
    superuser.execute(
        "UPDATE shared.sessions SET ended_at = now(), end_reason = 'logout' WHERE user_id = %s", (logged_out.user_id,)
    )
    superuser.execute("DELETE FROM shared.memberships WHERE user_id = %s", (removed.user_id,))
    superuser.execute("UPDATE wallets SET status = 'frozen' WHERE user_id = %s", (frozen.user_id,))
    for round_ in range(5):
        asked: list[tuple[Person, str, dict[str, Any], Answer]] = [
            (logged_out, f"a{round_}", {}, (401, "session_over")),
            (removed, f"b{round_}", {}, (404, "tenant_not_found")),
            (frozen, f"c{round_}", {}, (409, "wallet_frozen")),
            (holder, "of-hold", {}, (422, "idempotency_key_reused")),
            (holder, f"d{round_}", {}, (201, None)),
            (good[0], "used", {}, (201, "replayed")),
            (good[1], f"e{round_}", {"amount": "5000.00"}, (409, "insufficient_funds")),
            (good[2], f"f{round_}", {"amount": 1}, (422, "validation_failed")),
            (good[3], f"g{round_}", {"orderId": f"order-{round_}"}, (201, None)),
            (good[4], f"h{round_}", {"orderId": f"order-{round_}-b"}, (201, None)),
            *((person, f"i{round_}", {"description": "bread"}, (201, None)) for person in good[5:]),
        ]
        answers = pay_together(fresh_app, [(person, key, body) for person, key, body, _ in asked])
        assert answers == [answer for *_, answer in asked]
    # `frozen` was set by hand, and the audit says so.
    findings = superuser.execute("SELECT finding FROM ledger_audit_v5()").fetchall()
    assert findings == [("limit or status is not what the audit log says",)]


def test_payments_from_one_wallet_are_chained_and_the_last_that_fits_is_the_last(
    fresh_app: Flask, superuser: psycopg.Connection[Any]
) -> None:
    """99,900 minor units are left: of twelve payments of 90.00 eleven fit."""
    (person,) = payers(fresh_app, 1)
    answers = pay_together(fresh_app, [(person, f"hot-{n}", {"amount": "90.00"}) for n in range(12)])
    assert sorted(answers, key=str) == [(201, None)] * 11 + [(409, "insufficient_funds")]
    rows = superuser.execute("SELECT seq, balance_after_minor FROM wallet_transactions ORDER BY seq").fetchall()
    assert rows == [(n + 1, balance) for n, balance in enumerate([100_000, *range(99_900, 0, -9_000)])]
    assert superuser.execute("SELECT * FROM ledger_audit_v5()").fetchall() == []


def test_the_same_request_at_the_same_moment_is_posted_once(
    fresh_app: Flask, superuser: psycopg.Connection[Any]
) -> None:
    (person,) = payers(fresh_app, 1)
    answers = pay_together(fresh_app, [(person, "once", {})] * 8)
    assert sorted(answers, key=str) == [(201, "replayed")] * 7 + [(201, None)]
    assert superuser.execute("SELECT count(*) FROM wallet_transactions").fetchone() == (3,)


def test_without_group_posting_each_payment_is_a_db_transaction_of_its_own(
    fresh_database: Database, superuser: psycopg.Connection[Any]
) -> None:
    with running(fresh_database, group_posting=False) as app:
        people = payers(app, 4)
        payments = [(person, f"alone-{uuid4()}", dict[str, Any]()) for person in people * 4]
        assert pay_together(app, payments) == [(201, None)] * 16
    assert superuser.execute(DB_TRANSACTIONS, ("alone-%",)).fetchone() == (16, 16)


PAY_MANY = """
    SELECT item_no, seq, balance_after_minor FROM wallet_pay_many_v1(%s::uuid[], %s::uuid[], (
        SELECT version FROM shared.tenants WHERE slug = 'km'), 'BAM', %s::bigint[], %s::text[], %s::text[])
    ORDER BY item_no"""


def test_the_function_answers_what_it_posted_and_leaves_out_the_rest(
    fresh_app: Flask, fresh_database: Database, superuser: psycopg.Connection[Any]
) -> None:
    one, two, other = payers(fresh_app, 3)
    sessions: dict[UUID, UUID] = dict(superuser.execute("SELECT user_id, id FROM shared.sessions").fetchall())

    def pay_many(*items: tuple[Person, UUID | None, int | None, str]) -> list[tuple[int, int, int]]:
        people, of_sessions, amounts, keys = zip(*items, strict=True)
        arrays = (
            [person.user_id for person in people],
            list(of_sessions),
            list(amounts),
            list(keys),
            [None] * len(items),
        )
        return fresh_database.as_tenant("km").execute(PAY_MANY, arrays).fetchall()

    mine, twos = sessions[one.user_id], sessions[two.user_id]
    assert pay_many(
        (one, mine, 100, "a"),
        (one, twos, 100, "another's session"),
        (one, None, 100, "no session"),
        (one, mine, 0, "nothing"),
        (one, mine, -5, "less than nothing"),
        (one, mine, None, "null"),
        (one, mine, 99_801, "too much"),
        (two, twos, 7, "a"),
        (one, mine, 99_800, "all that is left"),
        (one, mine, 1, "more"),
    ) == [(1, 3, 99_800), (8, 3, 99_893), (9, 4, 0)]
    assert pay_many((one, mine, 100, "a"), (two, twos, 7, "a"), (two, twos, 7, "b")) == [(3, 4, 99_886)]
    assert pay_many((two, twos, 1, "twice"), (two, twos, 1, "twice")) == [(1, 5, 99_885)]
    with locked(superuser, two):
        assert pay_many((two, twos, 1, "c"), (other, sessions[other.user_id], 1, "c")) == [(2, 3, 99_899)]
    assert superuser.execute("SELECT * FROM ledger_audit_v5()").fetchall() == []
