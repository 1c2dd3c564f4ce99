"""The parts of a statement. They have no table: the ledger is their source."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

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


class Line(NamedTuple):
    """The public columns of a wallet transaction, without a session."""

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


LINE_COLUMNS = tuple(WalletTransaction.__table__.c[name] for name in Line._fields)
