"""The verbs of credit: set and read the policy, read the history of limits, report used credit and its age.

They work on the bound tenant, in the session's db transaction, and commit nothing. Amounts of different currencies are
never added. `app.wallets.service.configure_wallet` changes the limit of a wallet.
"""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from app.audit.models import AuditRecord
from app.audit.service import mark_written, set_actor
from app.auth.actors import Actor
from app.credit.models import (
    AGES,
    CreditPolicy,
    CreditTotals,
    LimitChange,
    PolicyChange,
    WalletCredit,
    credit_in_use,
    limit_changes,
    logged_policy,
)
from app.db import db
from app.users.models import all_members
from app.wallets.currencies import allowed_currencies

_SET: Final = sa.text(
    "SELECT policy.currency, policy.default_limit_minor, policy.max_limit_minor"
    " FROM credit_policy_set_v1(:currency, :default_limit, :max_limit, :actor_id, :request_id) AS policy"
).columns(*CreditPolicy.__table__.columns)
# An earlier entry of another form, which only SQL could write, is no change of a policy.
_POLICY: Final = """'$.currency like_regex "^[A-Z]{3}$" && $.default_limit_minor <= 9223372036854775807
    && (!exists($.max_limit_minor ? (@ != null)) || $.max_limit_minor <= 9223372036854775807)'"""
_tells_a_policy: Final = sa.text(f"before @@ {_POLICY} AND after @@ {_POLICY}")
_AMOUNTS: Final = ("credit_limit_minor", "credit_used_minor", *AGES)


def list_policies() -> list[CreditPolicy]:
    """The policy of each of the tenant's currencies. Without a policy, the limit of new wallets is zero and there is no
    maximum.
    """
    found = {policy.currency: policy for policy in db.session.scalars(sa.select(CreditPolicy))}
    return [
        found.get(currency) or CreditPolicy(currency=currency, default_limit_minor=0, max_limit_minor=None)
        for currency in allowed_currencies()
    ]


def set_policy(currency: str, *, default_limit_minor: int, max_limit_minor: int | None, actor: Actor) -> CreditPolicy:
    """Set the policy of one of the tenant's currencies. The audit log gets the state before and after. Changes no
    wallet's limit.
    """
    parameters = {
        "currency": currency,
        "default_limit": default_limit_minor,
        "max_limit": max_limit_minor,
        "actor_id": actor.id,
        "request_id": actor.request_id,
    }
    set_actor(actor)
    statement = sa.select(CreditPolicy).from_statement(_SET).execution_options(populate_existing=True)
    policy: CreditPolicy = db.session.scalars(statement, parameters).one()
    mark_written()
    return policy


def list_policy_changes(*, after: list[Any] | None, limit: int) -> list[PolicyChange]:
    """Changes of the policy, newest first; `after` is (at, id). Setting the same values again is no change."""
    log = AuditRecord
    query = (
        sa.select(log.id, log.at, log.actor_id, log.request_id, log.before, log.after)
        .where(log.wallet_id.is_(None), log.action == "credit_policy.set", log.before != log.after, _tells_a_policy)
        .order_by(log.at.desc(), log.id.desc())
        .limit(limit)
    )
    if after is not None:
        query = query.where(sa.tuple_(log.at, log.id) < _moment_and_id(after))
    return [
        PolicyChange(row.id, row.at, row.actor_id, row.request_id, logged_policy(row.before), logged_policy(row.after))
        for row in db.session.execute(query)
    ]


def list_limit_changes(wallet_id: UUID, *, after: list[Any] | None, limit: int) -> list[LimitChange]:
    """Changes of the wallet's credit limit, newest first; `after` is (at, id)."""
    change = limit_changes.c
    query = (
        sa.select(limit_changes)
        .where(change.wallet_id == wallet_id)
        .order_by(change.at.desc(), change.id.desc())
        .limit(limit)
    )
    if after is not None:
        query = query.where(sa.tuple_(change.at, change.id) < _moment_and_id(after))
    return [LimitChange(*row) for row in db.session.execute(query)]


def credit_totals() -> list[CreditTotals]:
    """Used credit by currency: the tenant's currencies, the main one first, then any other with used credit.

    Reads all wallets that use credit.
    """
    used = credit_in_use.c
    sums = [sa.func.sum(used[name]).label(name) for name in _AMOUNTS]
    query = sa.select(
        used.currency, sa.func.count().label("wallets"), sa.func.min(used.since).label("since"), *sums
    ).group_by(used.currency)
    found = {row["currency"]: _totals(**row) for row in db.session.execute(query).mappings()}
    shown = dict.fromkeys((*allowed_currencies(), *sorted(found)))
    nothing = dict.fromkeys(_AMOUNTS, 0)
    return [found.get(currency) or _totals(currency=currency, wallets=0, since=None, **nothing) for currency in shown]


def list_credit_in_use(*, after: list[Any] | None, limit: int) -> list[WalletCredit]:
    """The wallets that use credit, by id; `after` is (wallet_id,)."""
    who = all_members
    used = credit_in_use.c
    query = (
        sa.select(credit_in_use, who.c.email, who.c.name, who.c.removed_at)
        .join_from(credit_in_use, who, who.c.user_id == used.user_id, isouter=True)
        .order_by(used.wallet_id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(used.wallet_id > UUID(after[0]))
    return [WalletCredit(**row) for row in db.session.execute(query).mappings()]


def _totals(**row: Any) -> CreditTotals:
    return CreditTotals(**row | {name: int(row[name]) for name in _AMOUNTS})


def _moment_and_id(after: list[Any]) -> sa.Tuple:
    return sa.tuple_(sa.literal(datetime.fromisoformat(after[0])), sa.literal(UUID(after[1])))
