"""One movement of many, and what became of it."""

from dataclasses import dataclass
from uuid import UUID

from app.errors import ServiceError
from app.ledger.models import PostedTransaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What is to be posted. `amount_minor` is above zero, but signed for an adjustment; None if the wallet, and so its
    currency, is unknown.
    """

    wallet_id: UUID
    type: str
    amount_minor: int | None
    order_id: str | None = None
    description: str | None = None
    reference: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Either a transaction, and whether an earlier request had posted it, or what refused it."""

    transaction: PostedTransaction | None
    is_replayed: bool
    refusal: ServiceError | None
