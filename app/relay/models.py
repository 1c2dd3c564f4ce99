"""The table of the relay."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.db import TenantModel


class EventCursor(TenantModel):
    """The position up to which a sink has a tenant's events, and the relay process that works on it until
    `lease_until`.
    """

    __tablename__ = "event_cursors"

    sink: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    feed_id: Mapped[UUID]
    position: Mapped[int] = mapped_column(sa.BigInteger)
    lease_by: Mapped[UUID]
    lease_until: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
