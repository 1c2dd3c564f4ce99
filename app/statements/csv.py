"""Movements as CSV (RFC 4180: CRLF, a header, the same number of cells in each record), produced in pieces.

Spreadsheets run text that looks like a formula, and members write the texts of movements, so such text gets a leading
apostrophe. Where the decimal sign is a comma, spreadsheets also split cells at semicolons, and then quotes protect
nothing: so the apostrophe also follows each semicolon, tab and end of line in a text. Amounts are numbers and stay
unchanged, with their sign.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from typing import Any, Final

from app.money import format_minor
from app.statements.models import Line, Statement
from app.statements.schemas import moment_text, shown
from tenant_schemas.context import current_tenant

MEDIA_TYPE = "text/csv"
CONTENT_TYPE = "text/csv; charset=utf-8; header=present"
COLUMNS: Final = (
    *("createdAt", "walletId", "seq", "type", "amount", "balanceAfter", "currency", "orderId", "paymentId", "holdId"),
    *("adminId", "description", "reference", "reason", "id", "tenantId"),
)
TEXT: Final = ("orderId", "description", "reference", "reason")
# OWASP's list; the last four are full-width signs, which some spreadsheets read as the plain ones. Spreadsheets may
# drop spaces and quotes before a sign.
_SIGN: Final = r"[=+\-@＝＋－＠]"
# Spaces and quotes before a sign. The look-behind lets a run be tried at its first character only, and the possessive
# quantifier only once: otherwise a long run without a sign takes quadratic time.
_BEFORE_SIGN: Final = re.compile(rf"""(?<![\s"])[\s"]*+(?={_SIGN})""")
_CELL_END: Final = re.compile(r"\r\n?|[\t\n]")


def statement_pieces(statement: Statement, batches: Iterable[Sequence[Line]]) -> Iterator[bytes]:
    """The opening balance, each movement and the closing balance. A file without the last record is incomplete."""

    def balance(name: str, at: Any, minor: int) -> dict[str, Any]:
        return {
            "createdAt": moment_text(at),
            "walletId": statement.wallet_id,
            "type": name,
            "balanceAfter": format_minor(minor, statement.currency),
            "currency": statement.currency,
            "tenantId": current_tenant().slug,
        }

    yield _written([balance("openingBalance", statement.start, statement.opening_minor)], header=True)
    for batch in batches:
        yield _written(shown(line) for line in batch)
    yield _written([balance("closingBalance", statement.end, statement.closing_minor)])


def transaction_pieces(batches: Iterable[Sequence[Line]]) -> Iterator[bytes]:
    """Transactions without balances."""
    yield _written([], header=True)
    for batch in batches:
        yield _written(shown(line) for line in batch)


def _written(records: Iterable[dict[str, Any]], *, header: bool = False) -> bytes:
    piece = StringIO(newline="")
    writer = csv.writer(piece, lineterminator="\r\n")
    if header:
        writer.writerow(COLUMNS)
    writer.writerows([_cell(record, column) for column in COLUMNS] for record in records)
    return piece.getvalue().encode()


def _cell(record: dict[str, Any], column: str) -> Any:
    value = record.get(column)
    return defused(value) if value and column in TEXT else value


def defused(text: str) -> str:
    """The text, changed so that no spreadsheet reads a formula in it. Takes time in proportion to the text's length."""
    changed = _BEFORE_SIGN.sub(_defused_run, text)
    return f"'{changed}" if changed.startswith(("\t", "\r", "\n")) else changed


def _defused_run(found: re.Match[str]) -> str:
    """The run with an apostrophe at each place where a spreadsheet may begin a cell."""
    begins_cell = found.start() == 0 or found.string[found.start() - 1] == ";"
    return ("'" if begins_cell else "") + _CELL_END.sub(r"\g<0>'", found[0])
