"""A wrong row is named by file and line, and nobody is half imported: all is stopped, or its user is left out whole."""

import pytest

from tests.app.opening_balances.conftest import Books, OldSystem
from tests.factories.people import People, Person

# In place of {ana} stands the address of the member who has the wrong row.
WRONG_ORDERS = {
    "an unknown user": ("9,nobody@example.com,1.00,,,", "there is no user 'nobody@example.com'"),
    "an unknown id": ("9,00000000-0000-4000-8000-000000000000,1.00,,,", "there is no user '00000000-"),
    "no user": ("9,,1.00,,,", "there is no user ''"),
    "no amount": ("9,{ana},,,,", "amount '': Write digits"),
    "a word for an amount": ("9,{ana},many,,,", "amount 'many': Write digits"),
    "a space in an amount": ("9,{ana}, 1.00,,,", "amount ' 1.00': Write digits"),
    "a float": ("9,{ana},1e3,,,", "amount '1e3': Write digits"),
    "digits that are not ASCII": ("9,{ana},١.00,,,", "Write digits"),
    "an amount below zero": ("9,{ana},-1.00,,,", "amount '-1.00': The amount must not be below zero."),
    "too many fraction digits": ("9,{ana},1.001,,,", "amount '1.001': EUR has 2 fraction digits."),
    "fraction digits in yen": ("9,{ana},1.00,JPY,,", "JPY has 0 fraction digits."),
    "too many fraction digits in dinars": ("9,{ana},1.0001,KWD,,", "KWD has 3 fraction digits."),
    "more than can be kept": ("9,{ana},92233720368547758.08,,,", "The largest amount is 92233720368547758.07 EUR."),
    "an unknown currency": ("9,{ana},1.00,EURO,,", "'EURO' is not an ISO 4217 currency"),
    "a currency in lower case": ("9,{ana},1.00,eur,,", "'eur' is not an ISO 4217 currency"),
    "a currency that is not the tenant's": (
        "9,{ana},1.00,BAM,,",
        "this tenant does not allow wallets in BAM, only in EUR, USD",
    ),
    "an unknown status": ("9,{ana},1.00,,pending,", "the status 'pending' is unknown; known are canceled, cancelled"),
    "no order id": (",{ana},1.00,,,", "orderId is empty"),
    "too few cells": ("9,{ana},1.00", "it has 3 cells"),
    "a decimal comma": ("9,{ana},1,00,,,", "it has 7 cells"),
    "an order that was there before": ("1,{ana},1.00,,,", "order '1' appears 2 times, first in line 2"),
    "bytes that are no UTF-8": ("9,{ana},1.00,,,\udcff", "it is not UTF-8"),
    "a NUL character": ("9,{ana},1.00,,,\x00", "it has a NUL character"),
    "a control character, shown harmlessly": ("9,\x1b[31m,1.00,,,", r"there is no user '\x1b[31m'"),
}


@pytest.fixture
def ana(people: People) -> Person:
    return people.make(eur="member")


@pytest.fixture
def bob(people: People) -> Person:
    return people.make(eur="member")


@pytest.fixture(params=WRONG_ORDERS)
def wrong_order(request: pytest.FixtureRequest, ana: Person) -> tuple[str, str]:
    line, text = WRONG_ORDERS[request.param]
    return line.replace("{ana}", ana.email), text


def test_a_wrong_row_is_named_and_stops_all(
    bob: Person, old: OldSystem, books: Books, wrong_order: tuple[str, str]
) -> None:
    line, text = wrong_order
    old.orders(f"1,{bob.email},1.00,,,", line, f"3,{bob.email},1.00,,,")
    result = old.bring()
    assert result.exit_code == 1, result.output
    assert "orders.csv line 3: " in result.output
    assert text in result.output
    assert "nothing was posted" in result.output
    assert (books.openings(bob), books.wallet(bob, "id"), books.reconciled(bob)) == ([], [], [])


def test_to_skip_a_wrong_row_leaves_its_user_out_whole(
    ana: Person, bob: Person, old: OldSystem, books: Books, wrong_order: tuple[str, str]
) -> None:
    line, _ = wrong_order
    old.orders(f"2,{bob.email},1.00,,,", line, f"3,{ana.email},1.00,,,", "1,nobody@example.com,0.00,,,")
    old.deposits(f"{ana.email},5.00,,,", f"{ana.email},5,JPY,,")
    result = old.bring("--on-error", "skip")
    assert result.exit_code == 0, result.output
    assert "orders.csv line 3: " in result.output
    assert books.openings(bob) == [-100]
    if ana.email in line:
        assert books.openings(ana) == []
        assert f"left out: {ana.email} ({ana.user_id})" in result.output
    else:
        assert books.openings(ana) == [400, 5]
        assert "0 users were skipped" in result.output


def test_a_user_of_another_tenant_is_told_from_one_nobody_knows(
    people: People, ana: Person, old: OldSystem, books: Books
) -> None:
    stranger = people.make(km="member")
    old.deposits(f"{stranger.email},1.00,,,", f"{stranger.user_id},1.00,,,", "nobody@example.com,1.00,,,")
    old.orders(f"1,{ana.email},1.00,,,")
    result = old.bring("--on-error", "skip")
    assert f"deposits.csv line 2: '{stranger.email}' is not a member of this tenant" in result.output
    assert f"deposits.csv line 3: '{stranger.user_id}' is not a member of this tenant" in result.output
    assert "deposits.csv line 4: there is no user 'nobody@example.com'" in result.output
    assert (books.openings(ana), books.openings(stranger)) == ([-100], [])


def test_an_order_that_two_users_have_leaves_both_out(ana: Person, bob: Person, old: OldSystem, books: Books) -> None:
    old.orders(f"1,{ana.email},1.00,,,", f"1,{bob.email},1.00,,cancelled,")
    result = old.bring("--on-error", "skip")
    assert (books.openings(ana), books.openings(bob)) == ([], [])
    assert "orders.csv line 2: order '1' appears 2 times, first in line 2" in result.output
    assert "orders.csv line 3: order '1' appears 2 times, first in line 2" in result.output


def test_rows_that_together_are_more_than_a_wallet_keeps_are_wrong(
    ana: Person, bob: Person, old: OldSystem, books: Books
) -> None:
    old.orders()
    old.deposits(*[f"{ana.email},90000000000000000.00,,,"] * 2, f"{bob.email},1.00,,,")
    result = old.bring("--on-error", "skip")
    assert (
        "deposits.csv line 3: together with the user's other rows in EUR it exceeds the largest amount" in result.output
    )
    assert (books.openings(ana), books.openings(bob)) == ([], [100])


def test_of_many_wrong_rows_the_first_are_listed_and_the_rest_counted(old: OldSystem) -> None:
    old.orders(*[f"{number},nobody@example.com,1.00,,," for number in range(60)])
    result = old.bring()
    assert result.output.count("there is no user") == 50
    assert "and 10 more" in result.output
    assert "60 rows are wrong: nothing was posted." in result.output


# Files of which no row can be trusted stop all, whatever is asked.

WRONG_FILES = {
    "no header": ("1,{bob},1.00", "orders.csv line 1: the column orderId is missing"),
    "a missing column": ("orderId,user\n1,{bob}", "the column amount is missing"),
    "a misspelt column": ("orderId,user,amount,curency\n1,{bob},1.00,JPY", "the column 'curency' is unknown"),
    "a column twice": ("orderId,user,amount,amount\n1,{bob},1.00,2.00", "the column amount appears twice"),
    "semicolons": ("orderId;user;amount\n1;{bob};1.00", "the column orderId is missing"),
    "nothing at all": ("", "the header line is missing"),
    "a quote that is not closed": (
        'orderId,user,amount\n1,{bob},1.00\n2,"{ana},1.00\n3,{bob},1.00\n',
        "orders.csv line 3: invalid CSV",
    ),
    "a quote that is closed lines later": (
        'orderId,user,amount\n1,{bob},1.00\n2,"{ana},1.00\n3,{bob},1.00\n4,",1.00\n',
        "orders.csv line 3: a cell continues in the next line",
    ),
    "text after a quote": ('orderId,user,amount\n1,"{bob}"x,1.00\n', "orders.csv line 2: invalid CSV"),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_a_file_that_cannot_be_read_stops_all(
    ana: Person, bob: Person, old: OldSystem, books: Books, case: str
) -> None:
    text, said = WRONG_FILES[case]
    (old.folder / "orders.csv").write_text(text.format(ana=ana.email, bob=bob.email))
    for on_error in ("stop", "skip"):
        result = old.bring("--on-error", on_error)
        assert result.exit_code == 1, result.output
        assert said in result.output
        assert books.openings(bob) == []
