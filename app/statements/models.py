"""The parts of a statement. They have no table: the ledger is their source."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from app.ledger.models import WalletTransaction


@dataclass(frozen=True, slots=True)
class Statement:
    """A wallet's balances at both ends of a period, and the number of movements between. `start` is inclusive, `end` is
    exclusive. The movements are read in batches.
    """

    wallet_id: UUID
    currency: str
    start: datetime
    end: datetime
    opening_minor: int
    closing_minor: int
    count: int
    previous_hash: bytes | None = None
    """The hash that the first movement continues, of a statement with proof: that of the movement before, or where the
    wallet's chain starts.
    """


class Line(NamedTuple):
    """The public columns of a wallet transaction, without a session; in a statement with proof, also what else its hash
    is made of.
    """

    id: UUID
    wallet_id: UUID
    seq: int
    type: str
    amount_minor: int
    balance_after_minor: int
    currency: str
    order_id: str | None
    refund_of: UUID | None
    hold_id: UUID | None
    admin_id: UUID | None
    description: str | None
    reference: str | None
    reason: str | None
    created_at: datetime
    hash: bytes | None = None
    request_fingerprint: bytes | None = None
    idempotency_key: str | None = None
    debit_account: str | None = None
    credit_account: str | None = None
    entries: list[tuple[int, str, str, int]] | None = (
        None  # of a movement from before revision 0009, whose hash covers them
    )


_COLUMNS = WalletTransaction.__table__.c
_PUBLIC: Final = Line._fields[: Line._fields.index("hash")]
LINE_COLUMNS = tuple(_COLUMNS[name] for name in _PUBLIC)
PROVEN_COLUMNS = (
    *LINE_COLUMNS,
    *(_COLUMNS[name] for name in ("hash", "request_fingerprint", "idempotency_key", "debit_account", "credit_account")),
    sa.case(
        (
            _COLUMNS.debit_account.is_(None),
            sa.text(
                "(SELECT jsonb_agg(jsonb_build_array(e.entry_no, e.debit_account, e.credit_account, e.amount_minor)"
                " ORDER BY e.entry_no) FROM ledger_entries e WHERE e.transaction_id = wallet_transactions.id)"
            ),
        )
    ),
)
