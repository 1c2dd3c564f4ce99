"""The audit log: append-only, and one chain of hashes for each tenant."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db import TenantModel

MAX_STATE_CHARACTERS: Final = 20_000  # as in audit_state_is_plain_v1
_INT64: Final = range(-(2**63), 2**63)


class State(sa.TypeDecorator[dict[str, Any]]):
    """The state before or after a change. The database takes plain objects only. An entry from before that rule may
    hold any JSON: a value that can't be shown is read as `{"unreadable": …}` with its beginning, so that it hides no
    other entry.
    """

    impl = JSONB
    cache_ok = True

    def column_expression(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        return sa.type_coerce(sa.func.left(sa.cast(column, sa.Text), MAX_STATE_CHARACTERS + 1, type_=sa.Text), State)

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Any:
        return state_of


def state_of(text: str | None) -> dict[str, Any] | None:
    """The object that this JSON text is, if it is one that every reader can read; else `{"unreadable": …}`."""
    if text is None or text == "null":
        return None
    try:
        state = json.loads(text) if len(text) <= MAX_STATE_CHARACTERS else None
        if isinstance(state, dict) and _is_plain(state):
            return state
    except (ValueError, RecursionError):
        pass
    return {"unreadable": text[:200]}


def _is_plain(value: Any, depth: int = 0) -> bool:
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return depth < 6 and all(_is_plain(each, depth + 1) for each in inner)  # noqa: PLR2004  as in SQL
    return not isinstance(value, int) or value in _INT64


class AuditRecord(TenantModel):
    """One entry. `before` and `after` hold the changed state, `subject` names the object of the change beside the
    wallet, and `refusal` holds the code of a refusal.
    """

    __tablename__ = "audit_log"
    __table_args__ = (
        sa.UniqueConstraint("seq", name="audit_log_seq_key"),
        sa.Index("audit_log_wallet_id_at_idx", "wallet_id", "at"),
        sa.Index("audit_log_at_idx", "at", postgresql_where=sa.text("wallet_id IS NULL")),
        sa.Index("audit_log_actor_id_seq_idx", "actor_id", "seq"),
        sa.Index("audit_log_action_seq_idx", "action", "seq"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=sa.func.gen_random_uuid())
    seq: Mapped[int] = mapped_column(sa.BigInteger)
    at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.clock_timestamp())
    actor_kind: Mapped[str] = mapped_column(sa.Text)
    actor_id: Mapped[UUID | None]
    action: Mapped[str] = mapped_column(sa.Text)
    wallet_id: Mapped[UUID | None]
    subject: Mapped[str | None] = mapped_column(sa.Text)
    before: Mapped[dict[str, Any] | None] = mapped_column(State)
    after: Mapped[dict[str, Any] | None] = mapped_column(State)
    request_id: Mapped[str | None] = mapped_column(sa.Text)
    address: Mapped[str | None] = mapped_column(sa.Text)
    refusal: Mapped[str | None] = mapped_column(sa.Text)
    hash: Mapped[bytes] = mapped_column(sa.LargeBinary)


@dataclass(frozen=True, slots=True)
class ReadEntry:
    """An entry with the currency of its wallet."""

    record: AuditRecord
    currency: str | None

    def __getattr__(self, attribute: str) -> Any:
        """All attributes of the record."""
        return getattr(self.record, attribute)


class AuditChain(TenantModel):
    """The head of the tenant's chain of hashes: one row."""

    __tablename__ = "audit_chain"

    id: Mapped[bool] = mapped_column(primary_key=True, server_default=sa.true())
    last_seq: Mapped[int] = mapped_column(sa.BigInteger)
    last_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    last_hash: Mapped[bytes] = mapped_column(sa.LargeBinary)


class RefusalCount(TenantModel):
    """The refusals of one caller and action in the current window, for want of a right."""

    __tablename__ = "audit_refusals"
    __table_args__ = (sa.Index("audit_refusals_began_at_idx", "began_at"),)

    actor_id: Mapped[UUID] = mapped_column(primary_key=True)
    action: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    actor_kind: Mapped[str] = mapped_column(sa.Text)
    refusal: Mapped[str] = mapped_column(sa.Text)
    refused: Mapped[int] = mapped_column(sa.BigInteger, server_default=sa.text("1"))
    began_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.clock_timestamp())
    latest_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.clock_timestamp())
