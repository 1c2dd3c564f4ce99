"""A caller who was let in before pays without a question before the payment: the payment's own statement proves the
standing. Whatever ends the standing counts from the very next request on, as on every other route.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast
from uuid import UUID

import pytest
from flask import Flask

from app.auth.tokens import TokenMint
from tenant_schemas.testing.plugin import Database
from tests.factories.api import Api
from tests.factories.people import People, Person

PAYMENT = {"amount": "1.00"}


@pytest.fixture
def payer(fresh_app: Flask) -> Person:
    person = People(fresh_app).make(km="member")
    People(fresh_app).wallet(person, "km", balance_minor=10_000)
    return person


@pytest.fixture
def pay(fresh_app: Flask, payer: Person) -> Callable[..., tuple[int, str]]:
    """Pays, and returns the status and the problem's code."""
    api = Api(fresh_app)

    def pay(path: str = "/api/wallet/payments", body: dict[str, Any] | None = None) -> tuple[int, str]:
        response = api.post(path, payer, "km", json=body or PAYMENT)
        return response.status_code, cast(dict[str, Any], response.json).get("code", "")

    assert pay() == (201, "")
    return pay


def session_of(app: Flask, person: Person) -> UUID:
    mint: TokenMint = app.extensions["token_mint"]
    return cast(UUID, mint.check(person.token).session_id)


CHANGES = {
    "an ended session": (
        "UPDATE shared.sessions SET ended_at = now(), end_reason = 'logout' WHERE id = %(session)s",
        "UPDATE shared.sessions SET ended_at = NULL, end_reason = NULL WHERE id = %(session)s",
        (401, "session_over"),
    ),
    "a disabled user": (
        "UPDATE shared.users SET status = 'disabled' WHERE id = %(user)s",
        "UPDATE shared.users SET status = 'active' WHERE id = %(user)s",
        (401, "session_over"),
    ),
    "a removed member": (
        "UPDATE shared.memberships SET user_id = %(other)s WHERE user_id = %(user)s",
        "UPDATE shared.memberships SET user_id = %(user)s WHERE user_id = %(other)s",
        (404, "tenant_not_found"),
    ),
    "a member who is an auditor now": (
        "UPDATE shared.memberships SET role = 'auditor' WHERE user_id = %(user)s",
        "UPDATE shared.memberships SET role = 'member' WHERE user_id = %(user)s",
        (403, "member_required"),
    ),
    "a suspended tenant": (
        "UPDATE shared.tenants SET status = 'suspended' WHERE slug = 'km'",
        "UPDATE shared.tenants SET status = 'active' WHERE slug = 'km'",
        (404, "tenant_not_found"),
    ),
    "an archived tenant": (
        "UPDATE shared.tenants SET status = 'archived' WHERE slug = 'km'",
        "UPDATE shared.tenants SET status = 'active' WHERE slug = 'km'",
        (404, "tenant_not_found"),
    ),
    "a tenant behind this code": (
        "UPDATE shared.tenants SET revision = '0001' WHERE slug = 'km'",
        "UPDATE shared.tenants SET revision = '9999' WHERE slug = 'km'",
        (503, "schema_behind"),
    ),
    "a tenant without this currency": (
        """UPDATE shared.tenants SET settings = settings || '{"currency": "EUR"}' WHERE slug = 'km'""",
        """UPDATE shared.tenants SET settings = settings || '{"currency": "BAM"}' WHERE slug = 'km'""",
        (409, "insufficient_funds"),
    ),
}


def test_a_standing_that_has_changed_counts_from_the_next_payment_on_and_back(
    fresh_app: Flask, fresh_database: Database, payer: Person, pay: Callable[..., tuple[int, str]]
) -> None:
    other = People(fresh_app).make()
    names = {"user": payer.user_id, "session": session_of(fresh_app, payer), "other": other.user_id}
    superuser = fresh_database.as_superuser()
    for what, (ends, restores, refusal) in CHANGES.items():
        superuser.execute(ends, names)
        assert pay() == refusal, what
        assert pay() == refusal, f"{what}, again"
        superuser.execute(restores, names)
        assert pay() == (201, ""), f"{what}, and back"
        assert pay() == (201, ""), f"{what}, and remembered again"


def test_a_caller_without_standing_learns_nothing_of_the_request(
    fresh_app: Flask, fresh_database: Database, payer: Person, pay: Callable[..., tuple[int, str]]
) -> None:
    """Errors before the statement, and a dry run, which posts nothing: the standing is asked for first."""
    names = {"user": payer.user_id, "session": session_of(fresh_app, payer)}
    ends, restores, refusal = CHANGES["an ended session"]
    asks: tuple[tuple[str, dict[str, Any], tuple[int, str]], ...] = (
        ("/api/wallet/payments", {"amount": 1}, (422, "validation_failed")),
        ("/api/wallet/payments", {"amount": "500.00"}, (409, "insufficient_funds")),
        ("/api/wallet/payments?dryRun=true", PAYMENT, (200, "")),
        ("/api/wallet/payments?currency=EUR", PAYMENT, (422, "validation_failed")),
    )
    for path, body, answer in asks:
        assert pay(path, body) == answer
        assert pay() == (201, "")
        fresh_database.as_superuser().execute(ends, names)
        assert pay(path, body) == refusal, path
        fresh_database.as_superuser().execute(restores, names)
        assert pay() == (201, "")


def test_a_payment_of_a_remembered_caller_is_one_statement(
    fresh_database: Database, pay: Callable[..., tuple[int, str]]
) -> None:
    """Also one that is refused: the shared side is not asked at all."""
    superuser = fresh_database.as_superuser()
    superuser.execute("REVOKE SELECT ON shared.users FROM wallet_app")
    assert pay() == (201, "")
    assert pay(body={"amount": "500.00"}) == (409, "insufficient_funds")
    assert pay(body={"amount": "500"})[0] == 409
    assert pay(body={"amount": 1})[0] == 500, "nothing proved the standing, so it is asked for"


def test_a_token_of_another_session_or_tenant_is_not_remembered(
    fresh_app: Flask, payer: Person, pay: Callable[..., tuple[int, str]]
) -> None:
    """What is remembered is of one session and one name of a tenant."""
    api = Api(fresh_app)
    assert api.post("/api/wallet/payments", payer, "eur", json=PAYMENT).status_code == 404
    assert api.post("/api/eur/wallet/payments", payer, json=PAYMENT).status_code == 404
    assert api.post("/api/km/wallet/payments", payer, "eur", json=PAYMENT).status_code == 400
    stranger = People(fresh_app).make(eur="member")
    assert api.post("/api/wallet/payments", stranger, "km", json=PAYMENT).status_code == 404
    assert pay() == (201, "")


def test_limits_that_were_raised_hold_from_the_next_payment_on(
    fresh_app: Flask, fresh_database: Database, pay: Callable[..., tuple[int, str]]
) -> None:
    superuser = fresh_database.as_superuser()
    limit = "UPDATE shared.tenants SET settings = settings || jsonb_build_object('caller_rate_limit', %s::text)"
    superuser.execute(limit, ("2/hour",))
    # The first payment is counted by the limits that the process remembers, and then learns of the others.
    assert [pay()[0] for _ in range(4)] == [201, 201, 201, 429]
    superuser.execute(limit, ("1000/hour",))
    assert pay() == (201, "")


def test_a_payment_that_waited_proves_the_standing_and_takes_its_time_after_the_wait(
    fresh_app: Flask, fresh_database: Database, payer: Person, pay: Callable[..., tuple[int, str]]
) -> None:
    """Another session holds the wallet's lock, and changes nothing in it."""
    names = {"user": payer.user_id, "session": session_of(fresh_app, payer)}
    other, observer = fresh_database.as_superuser(), fresh_database.as_superuser()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'tenant_km' AND wait_event_type = 'Lock'"
    ends, restores, refusal = CHANGES["an ended session"]
    for change, answer in (("SELECT", (201, "")), (ends, refusal)):
        with ThreadPoolExecutor(1) as thread:
            with other.transaction():
                other.execute("SELECT FROM km_schema.wallets WHERE user_id = %s FOR UPDATE", (payer.user_id,))
                payment = thread.submit(pay)
                while observer.execute(waiting).fetchone() != (1,):
                    pass
                observer.execute(change, names)
                (unlocked_at,) = observer.execute("SELECT clock_timestamp()").fetchone() or (None,)
            assert payment.result() == answer
        newest = "SELECT max(created_at) > %s FROM km_schema.wallet_transactions"
        assert observer.execute(newest, (unlocked_at,)).fetchone() == (answer == (201, ""),)
    observer.execute(restores, names)
