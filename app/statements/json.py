"""A statement as JSON, produced in pieces. An incomplete one is not valid JSON: the closing balance and the last brace
come last.
"""

from collections.abc import Iterable, Iterator, Sequence

import orjson

from app.api.fields import moment_text
from app.money import format_minor
from app.statements.models import Line, Statement
from app.statements.schemas import shown
from tenant_schemas.context import current_tenant

MEDIA_TYPE = "application/json"


def statement_pieces(statement: Statement, batches: Iterable[Sequence[Line]]) -> Iterator[bytes]:
    head = {
        "walletId": statement.wallet_id,
        "tenantId": current_tenant().slug,
        "currency": statement.currency,
        "from": moment_text(statement.start),
        "to": moment_text(statement.end),
        "openingBalance": format_minor(statement.opening_minor, statement.currency),
    }
    if statement.previous_hash is not None:
        head["previousHash"] = statement.previous_hash.hex()
    yield orjson.dumps(head)[:-1] + b',"movements":['
    separator = b""
    for batch in batches:
        yield separator + orjson.dumps([shown(line) for line in batch])[1:-1]
        separator = b","
    closing = {"closingBalance": format_minor(statement.closing_minor, statement.currency)}
    yield b"]," + orjson.dumps(closing)[1:]
