"""The table of attempts (shared schema). `database_counters.py` counts in it."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.db import SharedModel
from tenant_schemas.tenant import SHARED_SCHEMA


class AttemptCount(SharedModel):
    """The number of attempts of one address, account, device, user or session in the window that ends at `ends_at`."""

    __tablename__ = "attempt_counts"
    __table_args__ = (
        sa.Index("attempt_counts_ends_at_idx", "ends_at"),
        {"schema": SHARED_SCHEMA, "prefixes": ["UNLOGGED"]},
    )

    key: Mapped[bytes] = mapped_column(sa.LargeBinary, primary_key=True)
    number: Mapped[int] = mapped_column(sa.Integer)
    ends_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
