"""`flask wallets reconcile` compares calculated balances with what stands, and exits 1 on a difference."""

from pathlib import Path

import pytest
from flask import Flask

from tenant_schemas.testing.plugin import Database
from tests.app.opening_balances.conftest import Books, OldSystem
from tests.factories.people import People, Person


@pytest.fixture
def old(fresh_app: Flask, tmp_path: Path) -> OldSystem:
    return OldSystem(fresh_app, tmp_path)


@pytest.fixture
def members(old: OldSystem, fresh_app: Flask) -> list[Person]:
    """Two in eur, whose balances were imported: 8.00 EUR, and -3 JPY and 1.00 EUR."""
    people = People(fresh_app)
    members = [people.make(eur="member", km="member"), people.make(eur="member")]
    old.deposits(f"{members[0].email},10.00,,,", f"{members[1].email},1.00,,,")
    old.orders(f"1,{members[0].email},2.00,,,", f"2,{members[1].email},3,JPY,,")
    assert old.bring().exit_code == 0
    return members


@pytest.fixture
def books(fresh_database: Database) -> Books:
    """As a superuser with the triggers out of the way."""
    books = Books(fresh_database, "eur")
    books.connection.execute("SET session_replication_role TO replica")
    return books


@pytest.mark.parametrize("with_files", [False, True])
def test_an_untouched_import_has_no_difference(old: OldSystem, members: list[Person], with_files: bool) -> None:
    result = old.run("reconcile", "--batch", "1", *(["--tenant", "eur", *old.files()] if with_files else []))
    assert result.exit_code == 0, result.output
    assert "eur: reconciled, 0 differences" in result.output
    assert "EUR: 2 users, 9.00 calculated, 9.00 posted, 0 differ" in result.output
    assert "JPY: 1 users, -3 calculated, -3 posted, 0 differ" in result.output
    assert ("km: reconciled, 0 differences" in result.output) is not with_files


@pytest.mark.parametrize("with_files", [False, True])
def test_a_superusers_change_is_found_and_named(
    old: OldSystem, members: list[Person], books: Books, with_files: bool
) -> None:
    books.connection.execute("UPDATE wallet_transactions SET amount_minor = 799 WHERE amount_minor = 800")
    result = old.run("reconcile", *(["--tenant", "eur", *old.files()] if with_files else []))
    assert result.exit_code == 1
    assert f"{members[0].user_id} EUR: calculated 8.00, posted 7.99, difference 0.01" in result.output
    assert "eur: reconciled, 1 differences" in result.output
    assert books.reconciled(members[0]) == [("EUR", 800, 799, 1, None)]


def test_it_posts_nothing_and_leaves_later_movements_alone(
    old: OldSystem, members: list[Person], books: Books, fresh_app: Flask
) -> None:
    People(fresh_app).wallet(members[0], "eur", balance_minor=500)
    assert old.run("reconcile", "--tenant", "eur").exit_code == 0
    assert (books.openings(members[0]), books.wallet(members[0], "balance_minor")) == ([800], [1300])


def test_newer_files_show_what_is_still_to_be_posted(old: OldSystem, members: list[Person], books: Books) -> None:
    old.deposits(f"{members[0].email},10.00,,,", f"{members[1].email},2.50,,,")
    result = old.run("reconcile", "--tenant", "eur", *old.files())
    assert result.exit_code == 1
    assert f"{members[1].user_id} EUR: calculated 2.50, posted 1.00, difference 1.50" in result.output
    assert books.openings(members[1], "EUR") == [100]


def test_whoever_the_files_no_longer_name_has_a_difference(old: OldSystem, members: list[Person]) -> None:
    old.orders(f"1,{members[0].email},2.00,,,")
    result = old.run("reconcile", "--tenant", "eur", "--batch", "1", *old.files())
    assert result.exit_code == 1
    assert f"{members[1].user_id} JPY: calculated 0, posted -3, difference 3" in result.output
    assert "eur: reconciled, 1 differences" in result.output


def test_what_was_refused_is_remembered_and_still_a_difference(
    old: OldSystem, members: list[Person], books: Books
) -> None:
    old.orders(f"1,{members[0].email},50.00,,,", f"2,{members[1].email},3,JPY,,")
    assert old.bring("--keep-limits").exit_code == 1
    for _ in range(2):
        result = old.run("reconcile")
        assert result.exit_code == 1
        assert "calculated -40.00, posted 8.00, difference -48.00 insufficient_funds" in result.output
    assert books.reconciled(members[0]) == [("EUR", -4000, 800, -4800, "WA001")]


def test_a_dry_run_finds_the_difference_and_notes_nothing(old: OldSystem, members: list[Person], books: Books) -> None:
    books.connection.execute("UPDATE wallet_transactions SET amount_minor = 799 WHERE amount_minor = 800")
    assert old.run("reconcile", "--dry-run").exit_code == 1
    assert books.reconciled(members[0]) == [("EUR", 800, 800, 0, None)]


def test_wrong_rows_stop_it_or_leave_their_users_out(old: OldSystem, members: list[Person]) -> None:
    old.orders(f"1,{members[0].email},many,,,", f"2,{members[1].email},3,JPY,,")
    old.deposits(f"{members[1].email},1.00,,,")
    arguments = ("reconcile", "--tenant", "eur", *old.files())
    stopped = old.run(*arguments)
    assert stopped.exit_code == 1
    assert "nothing was posted" in stopped.output
    skipped = old.run(*arguments, "--on-error", "skip")
    assert skipped.exit_code == 0, skipped.output
    assert f"left out: {members[0].email}" in skipped.output
    assert "EUR: 1 users, 1.00 calculated, 1.00 posted, 0 differ" in skipped.output


def test_files_need_one_tenant_and_deposits_need_orders(old: OldSystem, members: list[Person]) -> None:
    files = old.files()
    assert old.run("reconcile", *files).exit_code == 2
    assert old.run("reconcile", "--tenant", "eur", *files[2:]).exit_code == 2
