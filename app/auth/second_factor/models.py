"""Second factors and their unused recovery codes (shared schema)."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.db import SharedModel
from tenant_schemas.tenant import SHARED_SCHEMA


class SecondFactor(SharedModel):
    """A user's second factor. Nothing asks for it until it is confirmed."""

    __tablename__ = "second_factors"
    __table_args__ = ({"schema": SHARED_SCHEMA},)

    user_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey("shared.users.id", name="second_factors_user_id_fkey"), primary_key=True
    )
    secret_encrypted: Mapped[bytes] = mapped_column(sa.LargeBinary)
    created_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.now())
    confirmed_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    last_step: Mapped[int] = mapped_column(sa.BigInteger, server_default=sa.text("0"))


class RecoveryCode(SharedModel):
    """The hash of an unused recovery code."""

    __tablename__ = "recovery_codes"
    __table_args__ = ({"schema": SHARED_SCHEMA},)

    user_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey("shared.second_factors.user_id", name="recovery_codes_user_id_fkey", ondelete="CASCADE"),
        primary_key=True,
    )
    code_hash: Mapped[bytes] = mapped_column(sa.LargeBinary, primary_key=True)
