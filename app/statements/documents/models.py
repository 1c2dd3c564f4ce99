"""The table of documents. Only SQL functions write it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.db import TenantModel

LONGEST_LEASE: Final = timedelta(minutes=3)  # of two minutes, with a clock that may differ from the database's
_IS_UNFINISHED = sa.text("status IN ('pending', 'running')")


class Document(TenantModel):
    """A job from its request on, and a statement as PDF once it is done."""

    __tablename__ = "documents"
    __table_args__ = (
        sa.Index("documents_requested_by_requested_at_idx", "requested_by", "requested_at"),
        sa.Index("documents_unfinished_requested_at_idx", "requested_at", postgresql_where=_IS_UNFINISHED),
        sa.Index("documents_expires_at_idx", "expires_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=sa.func.gen_random_uuid())
    wallet_id: Mapped[UUID]
    requested_by: Mapped[UUID]
    period_start: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    period_end: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    status: Mapped[str] = mapped_column(sa.Text, server_default="pending")
    movements: Mapped[int] = mapped_column(sa.BigInteger)
    rendered: Mapped[int] = mapped_column(sa.BigInteger, server_default="0")
    attempt: Mapped[int] = mapped_column(server_default="0")
    leased_until: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    failure: Mapped[str | None] = mapped_column(sa.Text)
    content: Mapped[bytes | None] = mapped_column(sa.LargeBinary, deferred=True)
    requested_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.clock_timestamp())
    finished_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    expires_at: Mapped[datetime] = mapped_column(
        sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp() + interval '1 day'")
    )

    @property
    def is_unfinished(self) -> bool:
        return self.status in {"pending", "running"}

    @property
    def progress(self) -> int:
        """The share of the movements that is laid out, in percent."""
        return 100 if self.status == "done" else min(99, 100 * self.rendered // max(1, self.movements))

    @property
    def has_lease(self) -> bool:
        """Whether a program works at it now. A lease that ended belongs to a program that was killed, and one that ends
        later than any lease of now was taken before the clock was set back.
        """
        now = datetime.now(UTC)
        return self.leased_until is not None and now < self.leased_until <= now + LONGEST_LEASE


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed document. `attempt` tells this claim from earlier and later ones of the same document."""

    id: UUID
    attempt: int
    wallet_id: UUID
    start: datetime
    end: datetime
