"""The tenant's credit policy, and the rows of its reports."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.db import TenantModel

# Views, so they are in no metadata.
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
    """The credit that the tenant grants in a currency: the limit of a new wallet, and the maximum limit. Only an SQL
    function writes it.
    """

    __tablename__ = "credit_policies"

    currency: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    default_limit_minor: Mapped[int] = mapped_column(sa.BigInteger)
    max_limit_minor: Mapped[int | None] = mapped_column(sa.BigInteger)


@dataclass(frozen=True, slots=True)
class LimitChange:
    """One change of a wallet's credit limit. Without an actor, a command made it."""

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
    """One change of the policy of a currency. `before` and `after` are as in the audit log."""

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
    """A policy in the form of the audit log."""
    return CreditPolicy(**{column.name: logged[column.name] for column in CreditPolicy.__table__.columns})


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditInUse:
    """Used credit and its age: the parts by age add up to the used credit, and `since` is the date of the
    oldest part.
    """

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
    """One wallet that uses credit, with its member's address and name as the tenant knows them. A former member has a
    `removed_at`.
    """

    wallet_id: UUID
    user_id: UUID
    email: str | None
    name: str | None
    removed_at: datetime | None
