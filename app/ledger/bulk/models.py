"""A bulk request, one of its items, and the outcome of an item."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.db import TenantModel
from app.errors import ServiceError
from app.ledger.models import PostedTransaction


class BulkRequest(TenantModel):
    """The idempotency record of a bulk request. `caller_id` is a user's id, or the nil UUID for all API keys."""

    __tablename__ = "bulk_requests"

    caller_id: Mapped[UUID] = mapped_column(primary_key=True)
    idempotency_key: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    request_fingerprint: Mapped[str] = mapped_column(sa.Text)
    created_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.clock_timestamp())


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
