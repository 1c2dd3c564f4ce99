"""The tables of webhooks. Only SQL functions write them."""

from datetime import datetime
from typing import Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.db import TenantModel

PAYLOADS: Final = ("full", "thin")
ORDERS: Final = ("wallet", "none")
STATUSES: Final = ("enabled", "disabled")
DISABLED_REASONS: Final = ("admin", "gone", "failing", "trimmed", "restored")
SOURCES: Final = ("feed", "replay", "test")
OUTCOMES: Final = ("delivered", "failed", "parked", "skipped")

_NOW: Final = sa.func.clock_timestamp()


class WebhookEndpoint(TenantModel):
    """A consumer's URL, and its place in the feed. Its secret is derived from its id and epoch."""

    __tablename__ = "webhook_endpoints"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=sa.func.gen_random_uuid())
    url: Mapped[str] = mapped_column(sa.Text)
    description: Mapped[str | None] = mapped_column(sa.Text)
    types: Mapped[list[str]] = mapped_column(ARRAY(sa.Text), server_default=sa.text("'{}'"))
    payload: Mapped[str] = mapped_column(sa.Text, server_default="full")
    delivery_order: Mapped[str] = mapped_column(sa.Text, server_default="wallet")
    status: Mapped[str] = mapped_column(sa.Text, server_default="enabled")
    disabled_reason: Mapped[str | None] = mapped_column(sa.Text)
    disabled_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    notice_owed: Mapped[bool] = mapped_column(server_default=sa.false())
    secret_epoch: Mapped[int] = mapped_column(server_default=sa.text("1"))
    rotated_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    replaced_at: Mapped[list[datetime]] = mapped_column(
        ARRAY(sa.DateTime(timezone=True)), server_default=sa.text("'{}'")
    )
    version: Mapped[int] = mapped_column(server_default=sa.text("1"))
    created_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=_NOW)
    feed_id: Mapped[UUID]
    position: Mapped[int] = mapped_column(sa.BigInteger)
    delivered: Mapped[int] = mapped_column(sa.BigInteger, server_default=sa.text("0"))
    last_delivered_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    failures: Mapped[int] = mapped_column(server_default=sa.text("0"))
    failing_since: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    next_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=_NOW)
    lease_by: Mapped[UUID | None]
    lease_until: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=_NOW)
    trimmed_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=_NOW)


class WebhookLane(TenantModel):
    """The first event that waits at an endpoint: of a wallet, or alone."""

    __tablename__ = "webhook_lanes"
    __table_args__ = (sa.Index("webhook_lanes_endpoint_id_next_at_idx", "endpoint_id", "next_at"),)

    endpoint_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey("webhook_endpoints.id", name="webhook_lanes_endpoint_id_fkey", ondelete="CASCADE"),
        primary_key=True,
    )
    key: Mapped[UUID] = mapped_column(primary_key=True)
    is_ordered: Mapped[bool]
    position: Mapped[int] = mapped_column(sa.BigInteger)
    attempts: Mapped[int]
    next_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))


class ParkedEvent(TenantModel):
    """An event that was tried as often as the schedule allows."""

    __tablename__ = "webhook_parked"

    endpoint_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey("webhook_endpoints.id", name="webhook_parked_endpoint_id_fkey", ondelete="CASCADE"),
        primary_key=True,
    )
    event_id: Mapped[UUID] = mapped_column(primary_key=True)
    type: Mapped[str] = mapped_column(sa.Text)
    position: Mapped[int] = mapped_column(sa.BigInteger)
    parked_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=_NOW)


class WebhookReplay(TenantModel):
    """A second cursor of an endpoint, with an end. Until `ledger_until` is null it is at movements before the feed."""

    __tablename__ = "webhook_replays"
    __table_args__ = (
        sa.Index(
            "webhook_replays_endpoint_id_next_at_idx",
            *("endpoint_id", "next_at"),
            postgresql_where=sa.text("finished_at IS NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=sa.func.gen_random_uuid())
    endpoint_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey("webhook_endpoints.id", name="webhook_replays_endpoint_id_fkey", ondelete="CASCADE")
    )
    types: Mapped[list[str]] = mapped_column(ARRAY(sa.Text))
    position: Mapped[int] = mapped_column(sa.BigInteger)
    until_position: Mapped[int] = mapped_column(sa.BigInteger)
    attempts: Mapped[int] = mapped_column(server_default=sa.text("0"))
    delivered: Mapped[int] = mapped_column(sa.BigInteger, server_default=sa.text("0"))
    next_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=_NOW)
    created_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=_NOW)
    finished_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    ledger_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    ledger_wallet_id: Mapped[UUID | None]
    ledger_seq: Mapped[int | None] = mapped_column(sa.BigInteger)
    ledger_until: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))


class WebhookAttempt(TenantModel):
    """An entry of the delivery log."""

    __tablename__ = "webhook_attempts"
    __table_args__ = (sa.Index("webhook_attempts_endpoint_id_at_id_idx", "endpoint_id", "at", "id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=sa.func.gen_random_uuid())
    endpoint_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey("webhook_endpoints.id", name="webhook_attempts_endpoint_id_fkey", ondelete="CASCADE")
    )
    event_id: Mapped[UUID]
    type: Mapped[str] = mapped_column(sa.Text)
    source: Mapped[str] = mapped_column(sa.Text)
    attempt: Mapped[int]
    at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=_NOW)
    outcome: Mapped[str] = mapped_column(sa.Text)
    status: Mapped[int | None]
    failure: Mapped[str | None] = mapped_column(sa.Text)
    duration_ms: Mapped[int]
    answer: Mapped[str] = mapped_column(sa.Text)
