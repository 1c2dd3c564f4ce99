"""PDF statements: text that can be read back, in the tenant's locale, up to the limit of movements."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from typing import cast
from uuid import uuid4

import pytest
from babel import Locale
from flask import Flask
from fpdf.fonts import TTFFont
from pypdf import PdfReader

from app.statements import pdf
from app.statements.models import Line, Statement
from tenant_schemas.tenant import Tenant, TenantStatus
from tenant_schemas.testing.plugin import Database
from tests.app.statements.conftest import Book

MOMENT = datetime(2026, 1, 31, 12, 0, 5, tzinfo=UTC)


def read(document: bytes) -> list[str]:
    return [" ".join(page.extract_text().split()) for page in PdfReader(BytesIO(document)).pages]


def line(currency: str, amount_minor: int, description: str) -> Line:
    return Line(
        id=uuid4(),
        wallet_id=uuid4(),
        seq=1,
        type="payment",
        amount_minor=amount_minor,
        balance_after_minor=0,
        currency=currency,
        order_id=None,
        refund_of=None,
        hold_id=None,
        admin_id=None,
        description=description,
        reference=None,
        reason=None,
        created_at=MOMENT,
    )


def printed(tenant: Tenant, locale: str, currency: str, amount_minor: int, description: str = "d") -> str:
    localised = replace(tenant, name="Šećer Ltd", settings={"locale": locale})
    statement = Statement(uuid4(), currency, MOMENT, MOMENT, 0, amount_minor, 1)
    return read(pdf.statement_document(localised, statement, [line(currency, amount_minor, description)]))[0]


@contextmanager
def empty_document(database: Database) -> Iterator[pdf._Document]:
    """A document without a page, whose font file is closed at the end."""
    document = pdf._Document(database.tenant("eur"), Statement(uuid4(), "EUR", MOMENT, MOMENT, 0, 0, 0))
    yield document
    cast(TTFFont, document.current_font).ttfont.close()


@pytest.mark.parametrize("slug", ["eur", "km"])
def test_the_document_names_the_tenant_and_holds_both_balances_and_each_movement(app: Flask, slug: str) -> None:
    book = Book(app, slug)
    book.post("deposit", 500_000)
    book.post("payment", 1_250, order_id=uuid4().hex, description="Kafa i kolač")
    answer = book.ask(format="pdf")
    assert answer.content_type == "application/pdf"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{slug}-statement.pdf"'
    text = read(answer.data)[0]
    sign = {"eur": "€", "km": "BAM"}[slug]
    assert text.startswith(f"{slug} Statement of wallet {book.wallet_id}")
    for expected in (f"Opening balance {sign}0.00", f"-{sign}12.50", f"Closing balance {sign}4,987.50", "Kafa i kolač"):
        assert expected in text
    assert text.endswith("1 / 1")


def test_a_members_words_are_never_the_number_of_pages(app: Flask) -> None:
    book = Book(app, "eur")
    book.post("deposit", 100)
    book.post("payment", 50, description="pay {nb}")
    assert "pay {nb}" in read(book.ask(format="pdf").data)[0]


@pytest.mark.parametrize("locale", ["ar_EG", "he_IL", "zh_CN", "th", "fa_IR"])
def test_a_time_or_amount_in_letters_that_cannot_be_drawn_is_written_plainly(locale: str) -> None:
    tenant = Tenant(uuid4(), "x", "x_schema", "tenant_x", "X", TenantStatus.ACTIVE, 1, "0001", {"locale": locale})
    noon = datetime(2026, 11, 22, 12, 34, 56, tzinfo=UTC)
    statement = Statement(uuid4(), "EUR", noon, noon, 123_456, 123_456, 0)
    text = read(pdf.statement_document(tenant, statement, []))[0]
    assert "\N{REPLACEMENT CHARACTER}" not in text
    assert "2026" in text


@pytest.mark.parametrize(
    ("amount_minor", "currency", "locale", "expected"),
    [
        (123_456_789, "EUR", "en", "€1,234,567.89"),
        (-123_456, "EUR", "de", "-1.234,56 €"),
        (123_456, "BAM", "bs_BA", "1.234,56 KM"),
        (123_456, "JPY", "en", "¥123,456"),
        (-123_456, "JPY", "ja", "-¥123,456"),
        (123_456, "KWD", "en", "KWD123.456"),
        (-5, "KWD", "en", "-KWD0.005"),
        (123_456, "KWD", "ar", "\u200f123.456 د.ك.\u200f"),
        (1_234, "IQD", "en", "IQD1.234"),
        (-(2**63), "EUR", "en", "-€92,233,720,368,547,758.08"),
    ],
)
def test_an_amount_has_the_locales_form_and_the_digits_of_iso_4217(
    amount_minor: int, currency: str, locale: str, expected: str
) -> None:
    text = pdf.money_text(amount_minor, currency, Locale.parse(locale))
    assert text.replace("\xa0", " ").replace("￥", "¥") == expected


@pytest.mark.parametrize(
    ("locale", "currency", "expected"),
    [
        ("en", "JPY", "-¥123,456"),
        ("ja", "JPY", "-¥123,456"),
        ("de-DE", "KWD", "-123,456 KWD"),
        ("nowhere", "KWD", "-KWD123.456"),
    ],
)
def test_yen_and_dinars_are_printed_in_the_tenants_locale(
    database: Database, locale: str, currency: str, expected: str
) -> None:
    text = printed(database.tenant("eur"), locale, currency, -123_456)
    assert text.startswith("Šećer Ltd")
    assert expected in text


def test_what_the_font_can_not_draw_is_shown_as_missing_and_what_is_too_long_is_cut(database: Database) -> None:
    tenant = database.tenant("eur")
    assert "Кафа �� tab" in printed(tenant, "en", "EUR", 1, "Кафа\u200f 珈琲\ttab")
    text = printed(tenant, "en", "EUR", 1, "W" * 500)
    assert "…" in text
    assert 20 < text.count("W") < 60


@pytest.mark.parametrize(
    "text",
    [
        "",
        "W",
        "short",
        "W" * 29,
        "W" * 30,
        "W" * 31,
        "W" * 500,
        "i" * 500,
        "Wi" * 90,
        "wide 珈琲 \u200f" * 60,
        "\t" * 300,
    ],
)
def test_a_text_is_cut_where_the_longest_beginning_with_the_sign_fits(database: Database, text: str) -> None:
    with empty_document(database) as document:
        drawn, room = document._drawable(text), 89 - 2 * document.c_margin
        beginnings = (drawn[:length] + "…" for length in range(len(drawn), -1, -1))
        expected = next(each for each in (drawn, *beginnings) if document.get_string_width(each) <= room)
        assert document._fitting(text, 89) == expected


@pytest.mark.parametrize("length", [500, 1_000, 100_000])
def test_a_longer_text_is_not_measured_further_than_it_fits(
    database: Database, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    measured: list[str] = []
    units_of = pdf._Document._units_of
    monkeypatch.setattr(
        pdf._Document, "_units_of", lambda self, character: measured.append(character) or units_of(self, character)
    )
    with empty_document(database) as document:
        monkeypatch.setattr(document, "get_string_width", lambda *_: pytest.fail("the whole text is measured"))
        assert document._fitting("W" * length, 89).endswith("W…")
    assert len(measured) < 50


def test_a_long_statement_has_the_head_on_each_page(database: Database) -> None:
    statement = Statement(uuid4(), "EUR", MOMENT, MOMENT, 0, 0, 80)
    pages = read(pdf.statement_document(database.tenant("eur"), statement, [line("EUR", 1, "d")] * 80))
    assert len(pages) == 3
    assert all(page.startswith("eur Statement of wallet") for page in pages)
    assert [page[-5:] for page in pages] == ["1 / 3", "2 / 3", "3 / 3"]
    assert sum(page.count("payment") for page in pages) == 80
