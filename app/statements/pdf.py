"""A statement as PDF: the tenant's name on each page, times and amounts in the form of the tenant's locale.

fpdf2 keeps the whole document in memory and needs a quarter of a millisecond of processor time for a movement, so the
number of movements is limited. Noto Sans has Latin, Greek and Cyrillic letters; a replacement sign stands for any other
character.
"""

import unicodedata
from collections.abc import Iterable
from copy import copy
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from secrets import token_hex
from typing import Final, cast

import fontpkg
from babel import Locale
from babel.dates import format_datetime
from babel.numbers import NumberPattern
from fpdf import FPDF
from fpdf.enums import Align
from fpdf.fonts import TTFFont

from app.money import fraction_digits
from app.statements.models import Line, Statement
from app.tenant_settings import locale_of
from tenant_schemas.tenant import Tenant

MEDIA_TYPE = "application/pdf"
# The most movements that a request lays out itself, in about 0.2 s: another thread of the process may wait so long.
DIRECT_MOVEMENTS = 250
# The most in a document: about 30 s of one core, 4,000 pages and 5 MB.
MAX_MOVEMENTS = 100_000

_FONT: Final = "Noto Sans"
_MISSING: Final = "\N{REPLACEMENT CHARACTER}"
_ROW_MM: Final = 5
_DETAILS_MM: Final = 89
_COLUMNS: Final = (
    ("Time (UTC)", 42, Align.L),
    ("No.", 16, Align.R),
    ("Type", 30, Align.L),
    ("Details", _DETAILS_MM, Align.L),
    ("Amount", 50, Align.R),
    ("Balance", 50, Align.R),
)


def money_text(amount_minor: int, currency: str, locale: Locale) -> str:
    """`125000, "EUR"` is "€1,250.00" in English and "1.250,00 €" in German.

    The locale gives the form, ISO 4217 the number of digits: Babel has fewer digits for some currencies (IQD, LBP) and
    would round.
    """
    digits = fraction_digits(currency)
    amount = Decimal((int(amount_minor < 0), tuple(map(int, str(abs(amount_minor)))), -digits))
    return str(_pattern(locale, digits).apply(amount, locale, currency=currency, currency_digits=False))


@cache
def _pattern(locale: Locale, digits: int) -> NumberPattern:
    pattern: NumberPattern = copy(locale.currency_formats["standard"])
    pattern.frac_prec = (digits, digits)
    return pattern


def statement_document(tenant: Tenant, statement: Statement, lines: Iterable[Line]) -> bytes:
    """The whole document. Reads no database."""
    document = _Document(tenant, statement)
    document.add_page()
    document.balance("Opening balance", statement.start, statement.opening_minor)
    for line in lines:
        document.movement(line)
    document.balance("Closing balance", statement.end, statement.closing_minor)
    return bytes(document.output())


class _Document(FPDF):
    """The page layout: a head on each page, rows of _COLUMNS, page numbers."""

    def __init__(self, tenant: Tenant, statement: Statement) -> None:
        super().__init__(orientation="landscape", format="A4")
        self._tenant_name = tenant.name
        self._statement = statement
        self._locale = locale_of(tenant.settings)
        self.add_font(_FONT, fname=fontpkg.path(_FONT))
        self.set_font(_FONT, size=8)
        # fpdf2's default alias {nb} in a member's text would become the number of pages.
        self.alias_nb_pages(token_hex(3))
        self._drawn: dict[str, str] = {}
        font = cast(TTFFont, self.current_font)
        self._glyphs, self._widths = frozenset(font.cmap), font.cw
        self.set_title(f"Statement of wallet {statement.wallet_id}")
        self.set_author(tenant.name)
        self.set_auto_page_break(True, margin=15)

    def header(self) -> None:
        """fpdf2 calls it at the top of each page."""
        statement = self._statement
        self.set_font_size(14)
        self.cell(0, 8, self._fitting(self._tenant_name, 260), new_x="LMARGIN", new_y="NEXT")
        self.set_font_size(8)
        period = f"From {self._time(statement.start)} until before {self._time(statement.end)}, UTC"
        for text in (f"Statement of wallet {statement.wallet_id} in {statement.currency}", period):
            self.cell(0, _ROW_MM, self._drawable(text), new_x="LMARGIN", new_y="NEXT")
        self.ln(2)
        self._row(*(title for title, _, _ in _COLUMNS), border="B")

    def footer(self) -> None:
        """fpdf2 calls it at the bottom of each page, and replaces its alias by the number of pages at the end."""
        self.set_y(-12)
        self.cell(0, _ROW_MM, f"{self.page_no()} / {self.str_alias_nb_pages}", align=Align.R)

    def movement(self, line: Line) -> None:
        told = " · ".join(text for text in (line.order_id, line.description, line.reference, line.reason) if text)
        self._row(
            self._time(line.created_at),
            str(line.seq),
            line.type,
            self._fitting(told, _DETAILS_MM),
            self._money(line.amount_minor),
            self._money(line.balance_after_minor),
        )

    def balance(self, name: str, at: datetime, balance_minor: int) -> None:
        self._row(self._time(at), "", "", name, "", self._money(balance_minor), border="TB")

    def _row(self, *texts: str, border: str = "") -> None:
        for text, (_, width, align) in zip(texts, _COLUMNS, strict=True):
            self.cell(width, _ROW_MM, self._drawable(text), border=border, align=align)
        self.ln(_ROW_MM)

    def _time(self, moment: datetime) -> str:
        """A time in the locale's form; in ISO 8601 if the font lacks the locale's letters, because a month or the half
        of the day would be missing.
        """
        text = self._drawable(format_datetime(moment, tzinfo=UTC, locale=self._locale))
        return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if _MISSING in text else text

    def _money(self, amount_minor: int) -> str:
        currency = self._statement.currency
        text = self._drawable(money_text(amount_minor, currency, self._locale))
        return money_text(amount_minor, currency, Locale("en")) if _MISSING in text else text

    def _fitting(self, text: str, width: float) -> str:
        """As much of the text as fits into the width. Measures each character once, and none after the width's end."""
        text = self._drawable(text)
        room = width - 2 * self.c_margin
        room_before_sign = room - self._width_of(self._units_of("…"))
        kept = units = 0
        for number, character in enumerate(text, start=1):
            units += self._units_of(character)
            used = self._width_of(units)
            if used > room:
                return text[:kept] + "…"
            if used <= room_before_sign:
                kept = number
        return text

    def _units_of(self, character: str) -> int:
        """The character's width in the font's own units, which are integers: their sum has no rounding errors."""
        return int(self._widths[ord(character)])

    def _width_of(self, units: int) -> float:
        """The width in millimetres, as FPDF's `get_string_width` computes it for a whole text."""
        return units * self.font_size_pt * 0.001 / self.k

    def _drawable(self, text: str) -> str:
        return "".join(self._drawn.get(character) or self._draw(character) for character in text)

    def _draw(self, character: str) -> str:
        """The character, or its plain form (¥ for the wide ￥), or the replacement sign."""
        forms: tuple[str, ...] = (character, unicodedata.normalize("NFKC", character), _MISSING)
        if character.isspace():  # A row is one line without breaks, so all spaces are equal.
            forms = (" ",)
        elif unicodedata.category(character) == "Cf":  # It selects the form of another character and draws nothing.
            forms = ("",)
        self._drawn[character] = next(form for form in forms if all(ord(part) in self._glyphs for part in form))
        return self._drawn[character]
