"""A tenant with money is migrated from the first revision to head: its data stays true, and yesterday's code, which
still runs meanwhile, can't bypass today's rules.
"""

import shutil
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest
from flask import Flask

from app.config import ROOT
from app.tenancy import MIGRATIONS
from tenant_schemas.migrations import runner
from tenant_schemas.migrations.history import History, Migrations
from tenant_schemas.testing.plugin import Database, make_tenant
from tests.factories.people import People

Superuser = psycopg.Connection[Any]
POST = "SELECT (posted).id, (posted).seq, replayed FROM wallet_post_v1(%s, %s, %s, %s, NULL, %s, NULL, %s, NULL, NULL)"


@pytest.fixture
def first_revision(tmp_path: Path) -> Migrations:
    """The histories at the time when the tenant history had one revision."""
    shutil.copytree(ROOT / "migrations", tmp_path / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    for later in (tmp_path / "migrations" / "tenant").glob("0*"):
        if not later.name.startswith("0001"):
            later.unlink()
    return Migrations(tmp_path / "setup.cfg", MIGRATIONS.roles)


@pytest.fixture
def old(fresh_app: Flask, fresh_database: Database, first_revision: Migrations) -> Superuser:
    """A superuser in the schema of the tenant `old`, whose ledger was written at the first revision."""
    tenant = make_tenant(fresh_database, first_revision, "old", {"currency": "EUR"})
    assert tenant.revision == "0001"
    person = People(fresh_app).make(old="member")
    connection = fresh_database.as_superuser()
    connection.execute("SET search_path TO old_schema")
    (wallet_id,) = connection.execute(
        "SELECT (wallet).id FROM wallet_open_v1(%s, 'EUR')", (person.user_id,)
    ).fetchall()[0]
    for type_, amount_minor, key, order_id in (
        ("deposit", 10_000, "one", None),
        ("payment", 700, "two", "order-1"),
        ("payment", 700, "three", "order-1"),  # The first revision did not refuse it.
        ("payment", 100, "four", "order-2"),
    ):
        connection.execute(POST, (wallet_id, type_, amount_minor, key, order_id, "bread"))
    for version, limit_minor in ((1, 300), (2, 0)):
        connection.execute(
            "SELECT wallet_configure_v1(%s, %s, %s, %s, NULL, 'r')", (wallet_id, version, person.user_id, limit_minor)
        )
    return connection


def wallet_of(old: Superuser) -> UUID:
    (wallet_id,) = old.execute("SELECT id FROM wallets").fetchall()[0]
    return UUID(str(wallet_id))


def migrate(database: Database) -> None:
    failed = [outcome for outcome in runner.migrate(database.admin_engine(), MIGRATIONS) if outcome.has_failed]
    assert failed == []
    assert database.tenant("old").revision == MIGRATIONS.head(History.TENANT)


def test_a_ledger_of_the_first_revision_is_sound_afterwards_and_is_answered_as_before(
    old: Superuser, fresh_database: Database
) -> None:
    before = old.execute(
        "SELECT id, hash, amount_minor, balance_after_minor FROM wallet_transactions ORDER BY seq"
    ).fetchall()
    again = (wallet_of(old), "payment", 700, "two", "order-1", "bread")
    first_answer = old.execute(POST, again).fetchall()
    migrate(fresh_database)
    assert old.execute("SELECT * FROM ledger_audit_v5()").fetchall() == []
    assert old.execute("SELECT * FROM ledger_audit_v1()").fetchall() == []
    after = old.execute("SELECT id, hash, amount_minor, balance_after_minor FROM wallet_transactions ORDER BY seq")
    assert after.fetchall() == before
    assert old.execute(POST, again).fetchall() == first_answer, "yesterday's code gives another answer"
    by_todays = old.execute(POST.replace("_v1", "_v2"), again).fetchall()
    assert by_todays == first_answer
    assert first_answer[0][2] is True


def test_the_audit_log_of_before_is_the_beginning_of_its_chain(old: Superuser, fresh_database: Database) -> None:
    query = "SELECT id, at, actor_id, action, before, after FROM audit_log ORDER BY at"
    before = old.execute(query).fetchall()
    migrate(fresh_database)
    assert old.execute(query).fetchall() == before
    places = old.execute("SELECT seq, actor_kind FROM audit_log ORDER BY at").fetchall()
    assert places == [(1, "user"), (2, "user")]
    assert old.execute("SELECT * FROM ledger_audit_v5()").fetchall() == []
    old.execute("SET session_replication_role TO replica")
    old.execute("UPDATE audit_log SET before = '{}' WHERE seq = 1")
    assert "entry 1" in str(old.execute("SELECT finding FROM ledger_audit_v5()").fetchall())


def test_an_order_paid_before_is_paid_and_one_paid_twice_stays_in_the_ledger(
    old: Superuser, fresh_database: Database
) -> None:
    migrate(fresh_database)
    paid = old.execute(
        "SELECT o.order_id, t.seq FROM order_payments o JOIN wallet_transactions t ON t.id = o.transaction_id"
        " ORDER BY o.order_id"
    )
    assert paid.fetchall() == [("order-1", 2), ("order-2", 4)]
    for version in ("_v1", "_v2"):
        with pytest.raises(psycopg.Error, match="order_already_paid"):
            old.execute(POST.replace("_v1", version), (wallet_of(old), "payment", 1, f"new{version}", "order-2", None))


def test_yesterdays_code_can_not_spend_what_is_held_today(old: Superuser, fresh_database: Database) -> None:
    migrate(fresh_database)
    wallet_id = wallet_of(old)
    old.execute("SELECT hold_authorise_v1(%s, 8000, 'hold', NULL, NULL, NULL)", (wallet_id,))
    with pytest.raises(psycopg.Error, match="insufficient_funds"):
        old.execute(POST, (wallet_id, "payment", 501, "five", None, None))
    old.execute(POST, (wallet_id, "payment", 500, "six", None, None))
    assert old.execute("SELECT * FROM ledger_audit_v5()").fetchall() == []


def test_yesterdays_code_opens_and_configures_by_todays_policy(
    old: Superuser, fresh_app: Flask, fresh_database: Database
) -> None:
    migrate(fresh_database)
    person = People(fresh_app).make(old="member")
    old.execute("SELECT credit_policy_set_v1('EUR', 500, 900, %s, 'r')", (person.user_id,))
    opened = old.execute(
        "SELECT (wallet).id, (wallet).credit_limit_minor FROM wallet_open_v1(%s, 'EUR')", (person.user_id,)
    )
    wallet_id, limit_minor = opened.fetchall()[0]
    assert limit_minor == 500
    with pytest.raises(psycopg.Error, match="credit_limit_above_policy"):
        old.execute("SELECT wallet_configure_v1(%s, 1, %s, 901, NULL, 'r')", (wallet_id, person.user_id))
    assert old.execute("SELECT * FROM ledger_audit_v5()").fetchall() == []


@pytest.mark.parametrize(
    "opens",
    [
        "SELECT wallet_open_v1(%s, 'EUR')",
        "SELECT wallet_open_v2(%s, 'EUR', NULL, 'r')",
        "SELECT wallets_open_missing_v1(ARRAY[%s::uuid], 'EUR')",
    ],
)
def test_yesterdays_code_opens_a_wallet_with_the_id_that_todays_code_shows(
    old: Superuser, fresh_app: Flask, fresh_database: Database, opens: LiteralString
) -> None:
    migrate(fresh_database)
    person = People(fresh_app).make(old="member")
    shown = old.execute("SELECT id FROM wallet_unopened_v1(%s, 'EUR')", (person.user_id,)).fetchall()
    old.execute(opens, (person.user_id,))
    assert old.execute("SELECT id FROM wallets WHERE user_id = %s", (person.user_id,)).fetchall() == shown


def test_a_tampered_entry_of_before_is_found_beside_movements_of_today(
    old: Superuser, fresh_database: Database
) -> None:
    """Movements of before have their entries in a table of their own, and the first form of the hash."""
    migrate(fresh_database)
    old.execute(POST, (wallet_of(old), "deposit", 5, "five", None, None))
    forms = old.execute("SELECT seq, debit_account FROM wallet_transactions ORDER BY seq").fetchall()
    assert forms == [(1, None), (2, None), (3, None), (4, None), (5, "cash")]
    assert old.execute("SELECT * FROM ledger_audit_v5()").fetchall() == []
    entries = old.execute("SELECT entry_no, debit_account, amount_minor FROM movement_entries ORDER BY created_at")
    assert [row[1:] for row in entries.fetchall()] == [
        ("cash", 10_000),
        ("wallets", 700),
        ("wallets", 700),
        ("wallets", 100),
        ("cash", 5),
    ]
    of = "FROM wallet_transactions t WHERE t.id = e.transaction_id AND t.seq = 2"
    for tampering in (
        f"UPDATE ledger_entries e SET amount_minor = 1 {of}",
        f"UPDATE ledger_entries e SET credit_account = 'cash' {of}",
        f"DELETE FROM ledger_entries e USING {of.removeprefix('FROM ')}",
        "UPDATE wallet_transactions SET amount_minor = amount_minor - 1 WHERE seq = 2",
        "UPDATE wallet_transactions SET debit_account = 'wallets', credit_account = 'sales' WHERE seq = 2",
        "UPDATE wallet_transactions SET description = 'forged' WHERE seq = 2",
    ):
        old.execute("BEGIN")
        old.execute("SET LOCAL session_replication_role TO replica")
        old.execute(tampering)
        found = old.execute("SELECT seq FROM ledger_audit_v5() WHERE wallet_id IS NOT NULL").fetchall()
        old.execute("ROLLBACK")
        assert found[0] == (2,), tampering


def test_yesterdays_queries_still_read_what_was_a_column(old: Superuser, fresh_database: Database) -> None:
    queries = [
        "SELECT wallets.deposit_balance_minor, w.credit_used_minor FROM wallets, wallets w",
        "SELECT (o.wallet).deposit_balance_minor, (o.wallet).credit_used_minor"
        f" FROM wallet_open_v1('{old.execute('SELECT user_id FROM wallets').fetchall()[0][0]}', 'EUR') o",
        "SELECT sum(wallets.deposit_balance_minor)::bigint, sum(wallets.credit_used_minor)::bigint FROM wallets",
    ]
    before = [old.execute(query).fetchall() for query in queries]
    migrate(fresh_database)
    assert [old.execute(query).fetchall() for query in queries] == before == [[(8_500, 0)]] * 3
