"""The tables of the feed. Triggers write events, and `events_stamp_v1` numbers them; nothing else does."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db import TenantModel

# What a command from a queue may ask for.
COMMAND_VERBS: Final = ("payment", "deposit", "refund", "hold", "capture", "void")
# Every type of the feed. A type's data may get new members; with another meaning it is a new version.
EVENT_TYPES: Final = (
    *(f"wallet.{kind}.posted.v1" for kind in ("deposit", "payment", "refund", "adjustment", "opening")),
    *(f"wallet.{change}.v1" for change in ("opened", "frozen", "unfrozen", "closed", "limit_changed")),
    *(f"hold.{change}.v1" for change in ("authorised", "captured", "voided", "expired")),
    *(f"order.{change}.v1" for change in ("placed", "cancelled")),
    *(f"wallet.{verb}.{outcome}.v1" for verb in COMMAND_VERBS for outcome in ("completed", "refused")),
)


class Event(TenantModel):
    """Something that happened. The id of a movement's event is the movement's. `n` grows within a wallet; `position`,
    the place in the feed, is null until the event is numbered.
    """

    __tablename__ = "events"
    __table_args__ = (
        sa.Index("events_position_idx", "position", unique=True, postgresql_where=sa.text("position IS NOT NULL")),
        sa.Index(
            "events_wallet_id_position_idx",
            *("wallet_id", "position"),
            postgresql_where=sa.text("position IS NOT NULL"),
        ),
        sa.Index("events_unstamped_n_idx", "n", postgresql_where=sa.text("position IS NULL")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    n: Mapped[int] = mapped_column(sa.BigInteger, server_default=sa.text("nextval('events_n')"))
    type: Mapped[str] = mapped_column(sa.Text)
    wallet_id: Mapped[UUID | None]
    subject_id: Mapped[UUID | None]
    data: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    traceparent: Mapped[str | None] = mapped_column(sa.Text)
    at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.clock_timestamp())
    position: Mapped[int | None] = mapped_column(sa.BigInteger)


class EventsHead(TenantModel):
    """The head of the feed: one row. Another `feed_id` is another feed, whose positions mean something else."""

    __tablename__ = "events_head"

    one: Mapped[bool] = mapped_column(primary_key=True, server_default=sa.true())
    feed_id: Mapped[UUID]
    position: Mapped[int] = mapped_column(sa.BigInteger, server_default=sa.text("0"))
    trimmed_to: Mapped[int] = mapped_column(sa.BigInteger, server_default=sa.text("0"))
    started_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.clock_timestamp())
