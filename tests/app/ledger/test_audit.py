"""The audit finds and locates every change that a superuser makes to a ledger."""

from uuid import UUID, uuid4

import psycopg
import pytest
from flask import Flask
from psycopg.rows import TupleRow

from app.ledger.models import Movement
from app.ledger.service import post
from tenant_schemas.flask import tenant_context
from tenant_schemas.migrations.history import Migrations
from tenant_schemas.testing.plugin import Database, make_tenant
from tests.factories.locks import held_tenant
from tests.factories.people import People


@pytest.fixture
def wallets(fresh_app: Flask) -> dict[str, UUID]:
    """In each tenant one wallet with a deposit, two payments and a refund."""
    people = People(fresh_app)
    person = people.make(eur="member", km="member")
    wallets = {}
    for slug in ("eur", "km"):
        wallets[slug] = people.wallet(person, slug, balance_minor=1000, credit_limit_minor=100)
        with fresh_app.app_context(), tenant_context(slug):
            payment, _ = post(wallets[slug], Movement(type="payment", amount_minor=300, idempotency_key="a"))
            post(wallets[slug], Movement(type="payment", amount_minor=750, idempotency_key="b"))
            post(
                wallets[slug],
                Movement(type="refund", amount_minor=None, refund_of=payment.id, idempotency_key="c"),
            )
    return wallets


def audit(app: Flask, *arguments: str) -> tuple[int, str]:
    result = app.test_cli_runner().invoke(args=["wallets", "audit", *arguments])
    return result.exit_code, result.output


def test_an_untouched_ledger_is_sound(fresh_app: Flask, wallets: dict[str, UUID]) -> None:
    code, said = audit(fresh_app)
    assert code == 0
    assert said.count("sound: 1 wallets, 4 transactions") == 2


TAMPERING = {
    "an amount": ("UPDATE wallet_transactions SET amount_minor = amount_minor - 1 WHERE seq = 2", 2),
    "a balance after": ("UPDATE wallet_transactions SET balance_after_minor = 0 WHERE seq = 3", 3),
    "a description": ("UPDATE wallet_transactions SET description = 'forged' WHERE seq = 2", 2),
    "a time": ("UPDATE wallet_transactions SET created_at = created_at - interval '1 day' WHERE seq = 3", 3),
    "the admin": ("UPDATE wallet_transactions SET admin_id = gen_random_uuid() WHERE seq = 1", 1),
    "a key": ("UPDATE wallet_transactions SET idempotency_key = 'z' WHERE seq = 2", 2),
    "a fingerprint": ("UPDATE wallet_transactions SET request_fingerprint = '\\x00' WHERE seq = 2", 2),
    "a hash": ("UPDATE wallet_transactions SET hash = sha256('x') WHERE seq = 2", 2),
    "an entry's account": ("UPDATE wallet_transactions SET credit_account = 'cash' WHERE seq = 2", 2),
    "a missing entry": (
        "UPDATE wallet_transactions SET debit_account = NULL, credit_account = NULL WHERE seq = 3",
        3,
    ),
    "an entry too many": (
        "INSERT INTO ledger_entries SELECT id, 2, 'sales', 'cash', 5 FROM wallet_transactions WHERE seq = 3",
        3,
    ),
    "an id": ("UPDATE wallet_transactions SET id = gen_random_uuid() WHERE seq = 2", 2),
    "the last row gone": ("DELETE FROM wallet_transactions WHERE seq = 4", 4),
    "a row gone": ("DELETE FROM wallet_transactions WHERE seq = 3", 4),
    "the smallest number there is": (
        "UPDATE wallet_transactions SET amount_minor = -9223372036854775808 WHERE seq = 2",
        2,
    ),
    "the wallet's balance": ("UPDATE wallets SET balance_minor = balance_minor + 1", 4),
    "whose the wallet is": (
        "INSERT INTO shared.users (email, name) VALUES ('thief@example.com', '') ON CONFLICT DO NOTHING;"
        " UPDATE wallets SET user_id = (SELECT id FROM shared.users WHERE email = 'thief@example.com')",
        1,
    ),
    "the limit": ("UPDATE wallets SET credit_limit_minor = 5000", 4),
    "the status": ("UPDATE wallets SET status = 'frozen'", 4),
    "what is held": ("UPDATE wallets SET held_minor = 5", 4),
    "whether it uses credit": (
        "ALTER TABLE wallets DROP CONSTRAINT wallets_sound; UPDATE wallets SET uses_credit = NOT uses_credit",
        4,
    ),
    "when it was last posted to": ("UPDATE wallets SET last_posted_at = now()", 4),
    "everything in one wallet": (
        "UPDATE wallet_transactions SET amount_minor = amount_minor + 5, balance_after_minor = balance_after_minor + 5"
        " WHERE seq = 1; UPDATE wallet_transactions SET balance_after_minor = balance_after_minor + 5 WHERE seq > 1;"
        " UPDATE wallets SET balance_minor = balance_minor + 5",
        1,
    ),
}


Superuser = psycopg.Connection[TupleRow]


@pytest.fixture
def superuser(fresh_database: Database, wallets: dict[str, UUID]) -> Superuser:
    """A superuser in km's schema with triggers disabled."""
    connection = fresh_database.as_superuser()
    connection.execute("SET search_path TO km_schema")
    connection.execute("SET session_replication_role TO replica")
    return connection


def test_each_tampering_is_found_and_its_wallet_and_seq_are_named(
    fresh_app: Flask, superuser: Superuser, wallets: dict[str, UUID]
) -> None:
    """All in one test, each rolled back before the next: a database for each would cost more than it proves."""
    for what, (statement, seq) in TAMPERING.items():
        superuser.execute("BEGIN")
        superuser.execute("CREATE TEMP TABLE kept_t AS TABLE wallet_transactions")
        superuser.execute("CREATE TEMP TABLE kept_e AS TABLE ledger_entries")
        superuser.execute("CREATE TEMP TABLE kept_w AS TABLE wallets")
        superuser.execute(statement)
        superuser.execute("COMMIT")
        code, said = audit(fresh_app)
        assert code == 1, what
        assert "eur: sound" in said, what
        assert "km: NOT SOUND" in said, what
        assert f"wallet {wallets['km']} seq {seq}:" in said, (what, said)
        superuser.execute("BEGIN")
        superuser.execute("DELETE FROM ledger_entries")
        superuser.execute("DELETE FROM wallet_transactions")
        superuser.execute("INSERT INTO wallet_transactions TABLE kept_t")
        superuser.execute("INSERT INTO ledger_entries TABLE kept_e")
        superuser.execute(
            "UPDATE wallets w SET balance_minor = k.balance_minor, user_id = k.user_id, status = k.status,"
            " credit_limit_minor = k.credit_limit_minor, held_minor = k.held_minor, last_posted_at = k.last_posted_at,"
            " uses_credit = k.uses_credit"
            " FROM kept_w k WHERE k.id = w.id"
        )
        superuser.execute("DROP TABLE kept_t, kept_e, kept_w")
        superuser.execute("COMMIT")
    assert audit(fresh_app)[0] == 0


def test_an_entry_without_a_transaction_is_found(fresh_app: Flask, superuser: Superuser) -> None:
    superuser.execute("INSERT INTO ledger_entries VALUES (gen_random_uuid(), 1, 'cash', 'sales', 5)")
    code, said = audit(fresh_app, "--tenant", "km")
    assert code == 1
    assert "belongs to no transaction" in said


def test_a_movement_without_its_event_and_an_event_without_its_movement_are_found(
    fresh_app: Flask, superuser: Superuser, wallets: dict[str, UUID]
) -> None:
    superuser.execute("UPDATE events SET id = gen_random_uuid() WHERE type = 'wallet.refund.posted.v1'")
    code, said = audit(fresh_app, "--tenant", "km")
    assert code == 1
    assert said.count(f"wallet {wallets['km']}: event ") == 2
    assert "movement without its event" in said
    assert "event without its movement" in said


def test_a_ledger_that_cannot_be_read_fails_its_own_tenant_only(fresh_app: Flask, superuser: Superuser) -> None:
    superuser.execute("DROP FUNCTION ledger_audit_v1, ledger_audit_v2, ledger_audit_v3, ledger_audit_v4")
    superuser.execute("DROP FUNCTION ledger_audit_v5")
    code, said = audit(fresh_app)
    assert code == 1
    assert "eur: sound" in said
    assert "km: not audited: function ledger_audit_v5() does not exist" in said
    assert "1 of 2 tenants audited, 0 with findings, 1 not audited (km)" in said


def test_a_locked_tenant_and_one_that_is_gone_are_a_line_each_and_the_others_are_audited(
    fresh_app: Flask, fresh_database: Database, tenancy_migrations: Migrations
) -> None:
    make_tenant(fresh_database, tenancy_migrations, "third", {"currency": "EUR"})
    fresh_database.as_superuser().execute("DROP SCHEMA eur_schema CASCADE")
    with held_tenant(fresh_database, "km") as pid:
        code, said = audit(fresh_app, "--lock-timeout", "50")
    assert code == 1
    assert "eur: not audited: Schema eur_schema of" in said
    assert "km: not audited: canceling statement due to lock timeout. Blocked by: " in said
    assert f"process {pid}, a forgotten shell" in said
    assert "third: sound" in said
    assert "1 of 3 tenants audited, 0 with findings, 2 not audited (eur, km)" in said


def test_a_wallet_without_transactions_but_with_a_balance_is_found(
    fresh_app: Flask, superuser: Superuser, wallets: dict[str, UUID]
) -> None:
    person = People(fresh_app).make(km="member")
    wallet_id = People(fresh_app).wallet(person, "km")
    superuser.execute("UPDATE wallets SET balance_minor = 500 WHERE id = %s", (wallet_id,))
    code, said = audit(fresh_app, "--tenant", "km")
    assert code == 1
    assert f"wallet {wallet_id} seq 0:" in said
    assert "the trial balance in BAM is off" in said


def test_an_unknown_tenant_is_an_error_that_says_so(fresh_app: Flask) -> None:
    code, said = audit(fresh_app, "--tenant", f"t{uuid4().hex[:8]}")
    assert code == 2
    assert "There is no tenant" in said


def test_the_trial_balance_balances_and_splits_the_control_account(
    fresh_database: Database, wallets: dict[str, UUID], fresh_app: Flask
) -> None:
    people = People(fresh_app)
    debtor = people.wallet(people.make(eur="member"), "eur", credit_limit_minor=100)
    with fresh_app.app_context(), tenant_context("eur"):
        post(debtor, Movement(type="payment", amount_minor=40, idempotency_key="k"))
    rows = fresh_database.as_tenant("eur").execute(
        "SELECT account, part, debit_minor, credit_minor FROM trial_balance ORDER BY account, part"
    ).fetchall()  # fmt: skip
    assert rows == [
        ("cash", None, 1000, 0),
        ("sales", None, 0, 790),
        ("wallets", "owed by members", 40, 0),
        ("wallets", "owed to members", 0, 250),
    ]
    assert sum(row[2] for row in rows) == sum(row[3] for row in rows)
