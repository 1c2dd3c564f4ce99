"""The tenant's credit policy, and the rows of its reports."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.db import TenantModel

# Views, so in no metadata.
limit_changes = sa.table(
    "credit_limit_changes",
    *(sa.column("id", sa.Uuid), sa.column("at", sa.DateTime(timezone=True)), sa.column("actor_id", sa.Uuid)),
    *(sa.column("action", sa.Text), sa.column("wallet_id", sa.Uuid), sa.column("currency", sa.Text)),
    *(sa.column("from_minor", sa.BigInteger), sa.column("to_minor", sa.BigInteger)),
)
AGES: Final = ("up_to_30_days_minor", "up_to_60_days_minor", "up_to_90_days_minor", "over_90_days_minor")
credit_in_use = sa.table(
    "credit_in_use",
    *(sa.column("wallet_id", sa.Uuid), sa.column("user_id", sa.Uuid), sa.column("currency", sa.Text)),
    *(sa.column(name, sa.BigInteger) for name in ("credit_limit_minor", "credit_used_minor", *AGES)),
    sa.column("since", sa.DateTime(timezone=True)),
)


class CreditPolicy(TenantModel):
    """What the tenant grants in a currency: to a wallet when it is opened, and at most. Written by a function only."""

    __tablename__ = "credit_policies"

    currency: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    default_limit_minor: Mapped[int] = mapped_column(sa.BigInteger)
    max_limit_minor: Mapped[int | None] = mapped_column(sa.BigInteger)


@dataclass(frozen=True, slots=True)
class LimitChange:
    """One change of a wallet's credit limit. Without an actor it was an operator's command."""

    id: UUID
    at: datetime
    actor_id: UUID | None
    action: str
    wallet_id: UUID
    currency: str
    from_minor: int
    to_minor: int


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """One change of the policy of a currency. `before` and `after` are as the log has them."""

    id: UUID
    at: datetime
    actor_id: UUID | None
    request_id: str | None
    before: CreditPolicy
    after: CreditPolicy

    @property
    def currency(self) -> str:
        return self.after.currency


def logged_policy(logged: Mapping[str, Any]) -> CreditPolicy:
    """A policy as a row of the log has it."""
    return CreditPolicy(**{column.name: logged[column.name] for column in CreditPolicy.__table__.columns})


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditInUse:
    """Credit in use and how old it is: the parts by age add up to what is used, and `since` is the oldest's."""

    currency: str
    credit_limit_minor: int
    credit_used_minor: int
    up_to_30_days_minor: int
    up_to_60_days_minor: int
    up_to_90_days_minor: int
    over_90_days_minor: int
    since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditTotals(CreditInUse):
    """All wallets of a currency that use credit."""

    wallets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletCredit(CreditInUse):
    """One wallet that uses credit, and whose it is, as the tenant's directory of members says."""

    wallet_id: UUID
    user_id: UUID
    email: str | None
    name: str | None
