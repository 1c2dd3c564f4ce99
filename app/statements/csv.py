"""Movements as CSV (RFC 4180: CRLF, a header, the same number of cells in each record), piece by piece.

Spreadsheets run what looks like a formula, and members choose what is in the text of a movement: such text gets an
apostrophe in front. Where the decimal sign is a comma, spreadsheets part cells at semicolons, and a line that is not
parted where we mean it has no quotes that count: so the same is done after each semicolon, tab and end of line in a
text. Amounts are numbers of ours and stay as they are, with their sign.
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
# OWASP's list: the last four are the full-width signs, which some spreadsheets take for the plain ones. Spaces and
# quotes before a sign may be dropped when a cell is read.
_FORMULA_START: Final = re.compile(r"""(^|[;\t\n]|\r\n?)(?=[\s"]*[=+\-@＝＋－＠])|^(?=[\t\r\n])""")


def statement_pieces(statement: Statement, batches: Iterable[Sequence[Line]]) -> Iterator[bytes]:
    """The opening balance, each movement and the closing balance: without the last record it is not whole."""

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
    """Transactions and nothing else."""
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
    """Text that no spreadsheet takes for a formula."""
    return _FORMULA_START.sub(r"\1'", text)
