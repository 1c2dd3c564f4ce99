"""One item of a bulk request, and its outcome."""

from dataclasses import dataclass
from uuid import UUID

from app.errors import ServiceError
from app.ledger.models import PostedTransaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A movement to post. `amount_minor` is above zero, signed for an adjustment, and None if the wallet and so its
    currency are unknown.
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
    """Either a transaction, with whether an earlier request posted it, or a refusal."""

    transaction: PostedTransaction | None
    is_replayed: bool
    refusal: ServiceError | None
