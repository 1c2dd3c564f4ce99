"""Statements in yen, without fraction digits, and in dinars, with three, in every format."""

from typing import Any

import pytest
from flask import Flask

from tests.app.statements.conftest import END, START, Book
from tests.app.statements.test_csv import records
from tests.app.statements.test_pdf import read

# Deposited and paid: 100,000 and 1,234 minor units.
CURRENCIES = pytest.mark.parametrize(
    ("currency", "deposited", "paid", "left"),
    [
        ("JPY", "100000", "-1234", "98766"),
        ("KWD", "100.000", "-1.234", "98.766"),
        ("USD", "1000.00", "-12.34", "987.66"),
    ],
)


def filled(app: Flask, currency: str) -> Book:
    book = Book(app, "eur", currency)
    book.post("deposit", 100_000)
    book.post("payment", 1_234)
    return book


@CURRENCIES
def test_a_statement_in_json_has_the_currencys_digits(
    app: Flask, currency: str, deposited: str, paid: str, left: str
) -> None:
    book = filled(app, currency)
    shown = book.statement(currency=currency)
    assert book.statement(by_admin=True) == shown
    assert (shown["currency"], shown["closingBalance"]) == (currency, left)
    assert [(line["amount"], line["balanceAfter"]) for line in shown["movements"]] == [
        (deposited, deposited),
        (paid, left),
    ]
    assert {line["currency"] for line in shown["movements"]} == {currency}


@CURRENCIES
def test_a_statement_in_csv_has_the_currencys_digits(
    app: Flask, currency: str, deposited: str, paid: str, left: str
) -> None:
    told = records(filled(app, currency).ask(format="csv", currency=currency).text)
    assert [record["amount"] for record in told] == ["", deposited, paid, ""]
    assert [record["balanceAfter"] for record in told[1:]] == [deposited, left, left]
    assert {record["currency"] for record in told} == {currency}


@pytest.mark.parametrize(
    ("currency", "paid", "left"),
    [("JPY", "-¥1,234", "¥98,766"), ("KWD", "-KWD1.234", "KWD98.766"), ("USD", "-$12.34", "$987.66")],
)
def test_a_statement_in_pdf_has_the_currencys_digits(app: Flask, currency: str, paid: str, left: str) -> None:
    (text,) = read(filled(app, currency).ask(format="pdf", currency=currency).data)
    assert f" in {currency} " in text
    assert f"{paid} {left}" in text
    assert f"Closing balance {left}" in text


@pytest.mark.parametrize("form", ["json", "csv", "pdf"])
def test_the_wallet_in_the_main_currency_shows_nothing_of_the_others(app: Flask, form: str) -> None:
    book = filled(app, "JPY")
    other: Any = book.api.get("/api/wallet", book.member, "eur").get_json()
    told = book.ask(format=form)
    shown = " ".join(read(told.data)) if form == "pdf" else told.text
    assert other["id"] in shown
    assert str(book.wallet_id) not in shown
    assert "98766" not in shown.replace(",", "")


def test_a_currency_that_the_tenant_has_not_is_refused_in_every_format(app: Flask) -> None:
    book = Book(app, "km")
    for form in ("json", "csv", "pdf"):
        answer = book.ask(START, END, format=form, currency="EUR")
        assert (answer.status_code, answer.get_json()["errors"][0]["code"]) == (422, "currency_not_allowed")
