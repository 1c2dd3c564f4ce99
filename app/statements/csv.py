"""Movements as CSV, produced in pieces."""

from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from typing import Any, Final

from app.api.fields import moment_text
from app.money import format_minor
from app.statements.models import Line, Statement
from app.statements.schemas import shown
from tenant_schemas.context import current_tenant
from tenant_schemas.csv_writer import CsvWriter

MEDIA_TYPE = "text/csv"
CONTENT_TYPE = "text/csv; charset=utf-8; header=present"
COLUMNS: Final = (
    *("createdAt", "walletId", "seq", "type", "amount", "balanceAfter", "currency", "orderId", "paymentId", "holdId"),
    *("adminId", "description", "reference", "reason", "id", "tenantId"),
)


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
    writer = CsvWriter(piece)
    if header:
        writer.write(COLUMNS)
    writer.write_all([record.get(column) for column in COLUMNS] for record in records)
    return piece.getvalue().encode()
