"""CSV by RFC 4180, without text that a spreadsheet would run."""

import csv
from io import StringIO
from uuid import uuid4

import pytest
from flask import Flask

from app.statements.csv import COLUMNS
from tests.app.statements.conftest import Book, text_of


def records(text: str) -> list[dict[str, str]]:
    """Parsed strictly: each record has all cells, and ends in CRLF."""
    assert text.endswith("\r\n")
    rows = list(csv.reader(StringIO(text, newline=""), strict=True))
    assert {len(row) for row in rows} == {len(COLUMNS)}
    assert tuple(rows[0]) == COLUMNS
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows[1:]]


@pytest.mark.parametrize("slug", ["eur", "km"])
def test_a_csv_statement_says_what_the_json_statement_says(app: Flask, slug: str) -> None:
    book = Book(app, slug)
    book.post("deposit", 5_000, reference="Ref; 7")
    book.post("payment", 120, order_id=uuid4().hex, description='say "hi", then\nleave — ćš')
    answer = book.ask(format="csv")
    assert answer.content_type == "text/csv; charset=utf-8; header=present"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{slug}-statement.csv"'
    opening, *movements, closing = records(answer.text)
    shown = book.statement()
    assert (opening["type"], opening["balanceAfter"]) == ("openingBalance", shown["openingBalance"])
    assert (closing["type"], closing["balanceAfter"]) == ("closingBalance", shown["closingBalance"])
    assert (opening["createdAt"], closing["createdAt"]) == (shown["from"], shown["to"])
    expected = [{name: "" if said is None else str(said) for name, said in line.items()} for line in shown["movements"]]
    assert movements == expected


@pytest.mark.parametrize(
    "start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", " =", "\u00a0\u3000-", "  @", '"=', ' " +']
)
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(book: Book, start: str) -> None:
    evil = f"{start}cmd|' /C calc'!A0"
    order = f"{start}{uuid4().hex}"
    book.post("deposit", 100, reference=evil)
    book.post("payment", 50, order_id=order, description=evil)
    book.post("adjustment", -5, reason=evil, admin_id=book.admin.user_id)
    _, deposit, payment, adjustment, _ = records(book.ask(format="csv").text)
    assert (deposit["reference"], payment["description"], adjustment["reason"]) == (f"'{evil}",) * 3
    assert payment["orderId"] == f"'{order}"
    assert payment["amount"] == "-0.50"


def test_harmless_text_and_signs_inside_it_stay_as_they_are(book: Book) -> None:
    harmless = '\'a=b+c-d@e, -f\r\ng; h\t"i" = 2'
    book.post("deposit", 100, reference=harmless)
    assert records(book.ask(format="csv").text)[1]["reference"] == harmless


HIDDEN = ("x;{}", 'x; "{}', "x\n{}", "x\r\n {}", "x\r{}", "x\t{}", ";;{}", '";{}')


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("sign", ["=", "＝"])
def test_a_spreadsheet_that_parts_cells_at_semicolons_or_tabs_finds_no_formula_either(
    book: Book, hidden: str, sign: str
) -> None:
    book.post("deposit", 100, reference=hidden.format(f'{sign}HYPERLINK("x")'), description=hidden.format(f"{sign}1"))
    told = book.ask(format="csv").text
    assert "HYPERLINK" in told
    for parted_at in (",", ";", "\t"):
        cells = [cell for row in csv.reader(StringIO(told, newline=""), delimiter=parted_at) for cell in row]
        assert [cell for cell in cells if cell.strip(' "\t\r\n').startswith(sign)] == []


def test_the_export_has_the_tenants_transactions_oldest_first_and_no_other_tenants(app: Flask) -> None:
    books, other = [Book(app), Book(app)], Book(app, "km")
    start = text_of(books[0].post("deposit", 1_000))
    books[1].post("deposit", 1)
    other.post("deposit", 1)
    order = uuid4().hex
    end = text_of(books[0].post("payment", 10, order_id=order))
    query = {"from": start}
    path = "/api/admin/transactions.csv"

    def export(**more: str) -> list[tuple[str, str]]:
        answer = books[0].api.get(path, books[0].admin, "eur", query_string=query | more)
        assert answer.headers["Content-Disposition"] == 'attachment; filename="eur-transactions.csv"'
        return [(record["walletId"], record["amount"]) for record in records(answer.text)]

    first, second = (str(book.wallet_id) for book in books)
    assert export() == [(first, "10.00"), (second, "0.01"), (first, "-0.10")]
    assert export(to=end, type="deposit") == [(first, "10.00"), (second, "0.01")]
    assert export(orderId=order) == [(first, "-0.10")]
    refused = books[0].api.get(path, books[0].admin, "eur", query_string={"from": end, "to": start})
    assert refused.get_json()["errors"][0]["code"] == "empty_period"
