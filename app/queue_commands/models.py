"""The table of commands. Only `command_run_v1` writes it."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db import TenantModel


class CommandOutcome(TenantModel):
    """What became of a command, which its source and its id name."""

    __tablename__ = "command_outcomes"

    source: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    command_id: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    id: Mapped[UUID] = mapped_column(server_default=sa.func.gen_random_uuid())
    type: Mapped[str] = mapped_column(sa.Text)
    fingerprint: Mapped[bytes]
    key_id: Mapped[UUID]
    outcome: Mapped[str | None] = mapped_column(sa.Text)
    code: Mapped[str | None] = mapped_column(sa.Text)
    detail: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    subject_id: Mapped[UUID | None]
    event_id: Mapped[UUID | None]
    at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.clock_timestamp())
