"""`flask wallets import` posts the sums of the old system's rows, once, for every user without a wrong row."""

import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep
from uuid import uuid4

import pytest
from flask import Flask
from psycopg.types.json import Jsonb

from tenant_schemas.testing.plugin import Database
from tests.app.opening_balances.conftest import Books, OldSystem
from tests.factories.api import Api
from tests.factories.people import People, Person


@pytest.fixture
def ana(people: People) -> Person:
    return people.make(eur="member")


@pytest.fixture
def bob(people: People) -> Person:
    return people.make(eur="member")


@pytest.mark.parametrize(("slug", "currency"), [("eur", "EUR"), ("km", "BAM")])
def test_a_balance_is_the_deposits_less_the_orders_that_count(
    people: People, old: OldSystem, database: Database, slug: str, currency: str
) -> None:
    person, admin = people.make(eur="member", km="member"), people.make(eur="admin", km="admin")
    old.deposits(f"{person.email},20.00,,wire,", f"{admin.user_id},5.00,,,")
    old.orders(
        f"1,{person.email.upper()},2.50,{currency},paid,2024-05-01",
        f"2,{person.user_id},1.00,,,",
        f"3,{person.email},7.00,,Cancelled,",
        f"4,{person.email},0.49,,delivered,",
    )
    result = old.bring(tenant=slug)
    assert result.exit_code == 0, result.output
    assert f"{slug}: imported 6 rows" in result.output
    assert f"{currency}: 2 posted (21.01), 0 unchanged, 0 limits raised" in result.output
    books = Books(database, slug)
    assert (books.openings(person), books.openings(admin)) == ([1601], [500])
    assert books.reconciled(person) == [(currency, 1601, 1601, 0, None)]
    assert old.run("audit").exit_code == 0


def test_the_other_tenant_is_not_touched(people: People, old: OldSystem, database: Database) -> None:
    person = people.make(eur="member", km="member")
    other = Books(database, "km")
    before = other.everything()
    old.orders(f"1,{person.email},2.00,,,")
    assert old.bring().exit_code == 0
    assert other.everything() == before


def test_each_currency_is_exact_and_apart_from_the_others(ana: Person, old: OldSystem, books: Books) -> None:
    old.deposits(f"{ana.email},1.000,KWD,,", f"{ana.email},1.23,,,", f"{ana.email},9223372036854775807,JPY,,")
    old.orders(f"1,{ana.email},0.001,KWD,,", f"2,{ana.email},0.03,EUR,,", f"3,{ana.email},1,JPY,,")
    result = old.bring()
    assert result.exit_code == 0, result.output
    assert books.reconciled(ana) == [
        ("EUR", 120, 120, 0, None),
        ("JPY", 2**63 - 2, 2**63 - 2, 0, None),
        ("KWD", 999, 999, 0, None),
    ]
    assert "KWD: 1 users, 0.999 calculated, 0.999 posted, 0 differ" in result.output
    assert "JPY: 1 posted (9223372036854775806)" in result.output


def test_columns_may_stand_in_any_order_after_a_bom_and_lines_may_be_quoted_or_empty(
    ana: Person, old: OldSystem, books: Books
) -> None:
    old.orders(f'"3.00","{ana.email}",77', "", header="\ufeffamount,user,orderId")
    assert old.bring().exit_code == 0
    assert books.openings(ana) == [-300]


# Again.


def test_the_same_rows_in_another_order_and_writing_post_nothing(ana: Person, old: OldSystem, books: Books) -> None:
    old.deposits(f"{ana.email},10.00,,a,", f"{ana.email},10.00,,a,", f"{ana.email},4.5,EUR,b,")
    old.orders(f"1,{ana.email},1,,paid,", f"2,{ana.email},2.00,,,")
    assert old.bring().exit_code == 0
    old.deposits(f"{ana.user_id},4.50,,b,", f"{ana.email},10.0,EUR,a,", f"{ana.email},10.00,,a,")
    old.orders(f"2,{ana.email},2,EUR,PAID,", f"1,{ana.user_id},1.00,EUR,,")
    result = old.bring()
    assert (result.exit_code, books.openings(ana)) == (0, [2150])
    assert "EUR: 0 posted (0.00), 1 unchanged, 0 limits raised" in result.output


def test_more_rows_post_the_difference(ana: Person, old: OldSystem, books: Books) -> None:
    old.orders()
    for deposits in (1, 2, 3):
        old.deposits(*[f"{ana.email},10.00,,,"] * deposits)
        assert old.bring().exit_code == 0
    old.orders(f"1,{ana.email},4.00,,,")
    assert old.bring().exit_code == 0
    assert books.openings(ana) == [1000, 1000, 1000, -400]


def test_rows_that_come_back_in_any_order_post_what_brings_them_back(ana: Person, old: OldSystem, books: Books) -> None:
    old.orders()
    first, second = f"{ana.email},10.00,,,", f"{ana.email},5.00,,,"
    for deposits in ((first, second), (first, second, first)):
        old.deposits(*deposits)
        assert old.bring().exit_code == 0
    old.deposits(second, first)
    for _ in range(2):
        assert old.bring().exit_code == 0
        assert books.openings(ana) == [1500, 1000, -1000]
        assert books.reconciled(ana) == [("EUR", 1500, 1500, 0, None)]


def test_what_was_deposited_and_paid_since_stays(people: People, ana: Person, old: OldSystem, books: Books) -> None:
    people.wallet(ana, "eur", balance_minor=700)
    old.orders()
    old.deposits(f"{ana.email},10.00,,,")
    assert old.bring().exit_code == 0
    assert books.wallet(ana, "balance_minor") == [1700]


# Below zero.


def test_a_balance_below_zero_raises_the_limit_just_enough_and_that_is_logged(
    ana: Person, old: OldSystem, books: Books
) -> None:
    old.orders(f"1,{ana.email},12.34,,,")
    result = old.bring()
    assert (result.exit_code, books.openings(ana)) == (0, [-1234])
    assert "EUR: 1 posted (-12.34), 0 unchanged, 1 limits raised" in result.output
    assert books.wallet(ana, "credit_limit_minor") == [1234]
    logged = books.connection.execute(
        "SELECT a.action, a.before ->> 'creditLimitMinor', a.after ->> 'creditLimitMinor', a.actor_id"
        " FROM audit_log a JOIN wallets w ON w.id = a.wallet_id WHERE w.user_id = %s",
        (ana.user_id,),
    )
    assert logged.fetchall() == [("wallet.import", "0", "1234", None)]


def test_other_entries_of_the_audit_log_do_not_hide_what_an_admin_granted(
    app: Flask, people: People, old: OldSystem, books: Books
) -> None:
    admin, person = people.make(eur="admin"), people.make(eur="member")
    wallet_id = people.wallet(person, "eur", credit_limit_minor=10_000)
    old.orders(f"{uuid4().hex},{person.email},150.00,EUR,paid,2024-05-01")
    assert old.bring().exit_code == 0
    path = f"/api/admin/wallets/{wallet_id}/deposits"
    assert Api(app).post(path, admin, "eur", json={"amount": "1.00"}).status_code == 201
    old.orders(f"{uuid4().hex},{person.email},20.00,EUR,paid,2024-05-01")
    assert old.bring().exit_code == 0
    assert books.wallet(person, "credit_limit_minor") == [10_000]


def test_an_import_takes_wallets_before_the_audit_log_and_so_waits_for_a_deposit_that_does_too(
    fresh_app: Flask, fresh_database: Database
) -> None:
    """One of the users has no wallet yet, and opening it with a limit writes an entry."""
    people = People(fresh_app)
    admin, known, new = people.make(eur="admin"), people.make(eur="member"), people.make(eur="member")
    wallet_id = people.wallet(known, "eur")
    policy = {"defaultLimit": "10.00", "maxLimit": None}
    answer = Api(fresh_app).send("PUT", "/api/admin/credit-policies/EUR", admin, "eur", json=policy)
    assert answer.status_code == 200
    rows = [
        {"user_id": str(user_id), "calculated_minor": 500, "source_rows": 1, "source_hash": uuid4().hex}
        for user_id in (known.user_id, new.user_id)
    ]
    importing, depositing = fresh_database.as_tenant("eur"), fresh_database.as_tenant("eur")
    with ThreadPoolExecutor(1) as thread, depositing.transaction():
        post = "SELECT wallet_post_v2(%s, 'deposit', 100, 'k', NULL, NULL, NULL, NULL, NULL, NULL)"
        depositing.execute(post, (wallet_id,))
        imported = thread.submit(importing.execute, "SELECT openings_post_v3(%s, 'EUR', true)", (Jsonb(rows),))
        wait_until_blocked(fresh_database, importing.info.backend_pid)
        depositing.execute("SELECT audit_note_v1(%s)", (Jsonb({"action": "test"}),))
    assert len(imported.result().fetchall()) == 2


def wait_until_blocked(database: Database, pid: int) -> None:
    with database.as_superuser() as superuser:
        while superuser.execute("SELECT pg_blocking_pids(%s) <> '{}'", (pid,)).fetchone() != (True,):
            sleep(0.01)


def test_a_limit_that_an_import_raised_goes_down_again_with_what_it_brings(
    people: People, ana: Person, old: OldSystem, books: Books
) -> None:
    """A forgotten file of deposits raises no limit for ever; an admin's limit is the lower bound."""
    people.wallet(ana, "eur", credit_limit_minor=300)
    old.orders(f"1,{ana.email},50.00,,,")
    for deposited, balance, limit in (("0.00", -5000, 5000), ("20.00", -3000, 3000), ("60.00", 1000, 300)):
        old.deposits(f"{ana.email},{deposited},,,")
        assert old.bring().exit_code == 0
        assert (books.wallet(ana, "balance_minor"), books.wallet(ana, "credit_limit_minor")) == ([balance], [limit])
    assert books.connection.execute("SELECT * FROM ledger_audit_v5()").fetchall() == []


def test_a_limit_that_is_high_enough_stays(people: People, ana: Person, old: OldSystem, books: Books) -> None:
    people.wallet(ana, "eur", credit_limit_minor=5000)
    old.orders(f"1,{ana.email},12.34,,,")
    assert "0 limits raised" in old.bring().output
    assert books.wallet(ana, "credit_limit_minor") == [5000]


def test_with_keep_limits_it_is_refused_and_the_others_are_posted(
    ana: Person, bob: Person, old: OldSystem, books: Books
) -> None:
    old.orders(f"1,{ana.email},12.34,,,")
    old.deposits(f"{bob.email},1.00,,,")
    result = old.bring("--keep-limits")
    assert result.exit_code == 1
    assert "EUR: 1 refused: insufficient_funds" in result.output
    assert f"{ana.user_id} EUR: calculated -12.34, posted 0.00, difference -12.34 insufficient_funds" in result.output
    assert (books.openings(ana), books.openings(bob)) == ([], [100])
    assert books.wallet(ana, "credit_limit_minor") == [0]
    assert books.reconciled(ana) == [("EUR", -1234, 0, -1234, "WA001")]
    assert old.bring().exit_code == 0
    assert books.reconciled(ana) == [("EUR", -1234, -1234, 0, None)]


def test_a_closed_wallet_refuses_its_balance_and_its_limit_stays(
    people: People, ana: Person, old: OldSystem, books: Books
) -> None:
    wallet_id = people.wallet(ana, "eur")
    books.connection.execute("SELECT wallet_configure_v2(%s, 1, %s, NULL, 'closed', 'test')", (wallet_id, ana.user_id))
    old.orders(f"1,{ana.email},12.34,,,")
    result = old.bring()
    assert (result.exit_code, books.openings(ana)) == (1, [])
    assert "EUR: 1 refused: wallet_closed" in result.output
    assert books.wallet(ana, "credit_limit_minor") == [0]


# The ways to run it.


def test_a_dry_run_says_the_same_and_changes_nothing(ana: Person, bob: Person, old: OldSystem, books: Books) -> None:
    old.orders(f"1,{ana.email},12.34,,,")
    old.deposits(f"{bob.email},1.00,,,")
    before = books.everything()
    rehearsed = old.bring("--dry-run", "--batch", "1")
    assert books.everything() == before
    done = old.bring("--batch", "1")
    assert books.everything() != before
    assert rehearsed.output == done.output.replace("2 rows", "2 rows (dry run: rolled back)")
    assert "2 posted (-11.34), 0 unchanged, 1 limits raised" in done.output


def test_the_report_has_a_line_for_each_user_and_currency(
    ana: Person, bob: Person, people: People, old: OldSystem, tmp_path: Path
) -> None:
    carl = people.make(eur="member")
    old.orders(f"1,{ana.email},1.00,,,", f"2,{bob.email},5,JPY,,", f"3,{carl.email},none,,,")
    path = tmp_path / "report.csv"
    assert old.bring("--report", str(path), "--keep-limits", "--on-error", "skip").exit_code == 1
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["user", "email", "currency", "calculated", "posted", "difference", "refused"]
    assert sorted(lines) == sorted(
        [
            [str(ana.user_id), ana.email, "EUR", "-1.00", "0.00", "-1.00", "insufficient_funds"],
            [str(bob.user_id), bob.email, "JPY", "-5", "0", "-5", "insufficient_funds"],
            [str(carl.user_id), carl.email, "", "", "", "", "wrong_row"],
        ]
    )


def test_the_tenant_is_to_be_named_where_there_are_two(ana: Person, old: OldSystem, books: Books) -> None:
    old.orders(f"1,{ana.email},1.00,,,")
    result = old.run("import", *old.files())
    assert result.exit_code == 2
    assert "--tenant" in result.output
    assert "eur, km" in result.output
    assert books.openings(ana) == []


def test_an_unknown_tenant_and_no_file_are_bad_arguments(old: OldSystem) -> None:
    old.orders()
    unknown = old.bring(tenant="nope")
    assert (unknown.exit_code, "'nope'" in unknown.output) == (2, True)
    assert old.run("import", "--tenant", "eur").exit_code == 2
    assert old.run("import", "--orders", "/nowhere.csv", "--tenant", "eur").exit_code == 2


def test_the_only_active_tenant_need_not_be_named(fresh_app: Flask, fresh_database: Database, tmp_path: Path) -> None:
    person = People(fresh_app).make(km="member")
    fresh_database.as_superuser().execute("UPDATE shared.tenants SET status = 'suspended' WHERE slug = 'eur'")
    old = OldSystem(fresh_app, tmp_path)
    old.orders(f"1,{person.email},1.00,,,")
    result = old.run("import", *old.files())
    assert result.exit_code == 0, result.output
    assert Books(fresh_database, "km").openings(person) == [-100]


def test_the_help_shows_both_files(old: OldSystem) -> None:
    said = old.run("import", "--help").output
    assert "orderId,user,amount,currency,status,orderedAt" in said
    assert "ana@example.com,20.00,EUR,wire 77,2024-04-30" in said


def test_a_report_that_cannot_be_written_is_said_before_anything_is_posted(
    ana: Person, old: OldSystem, books: Books
) -> None:
    old.orders(f"1,{ana.email},1.00,,,")
    result = old.bring("--report", "/nowhere/report.csv")
    assert (result.exit_code, "/nowhere/report.csv" in result.output) == (1, True)
    assert books.openings(ana) == []
