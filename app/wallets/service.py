"""The verbs of a wallet: open, find, list, configure. Writes go through the tenant's SQL functions only.

They work on the bound tenant, in the session's db transaction, and commit nothing.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import undefer

from app.audit.service import mark_written, set_actor
from app.auth.actors import SYSTEM, Actor, ActorKind
from app.db import db
from app.sql_refusals import named_refusals
from app.users.models import all_members
from app.wallets.errors import WalletNotFound
from app.wallets.models import MemberWallet, Wallet
from tenant_schemas.context import current_tenant
from tenant_schemas.flask import connections

_WALLET_COLUMNS = tuple(Wallet.__table__.columns)
_OPEN = sa.text(
    f"SELECT {', '.join(f'(wallet).{column.name}' for column in _WALLET_COLUMNS)}, opened"  # noqa: S608
    " FROM wallet_open_v2(:user_id, :currency, :actor_id, :request_id)"
).columns(*_WALLET_COLUMNS, sa.column("opened", sa.Boolean))
_CONFIGURE = sa.text(
    f"SELECT {', '.join(f'wallet.{column.name}' for column in _WALLET_COLUMNS)}"  # noqa: S608
    " FROM wallet_configure_v3(:wallet_id, :version, :actor_id, :credit_limit, :status, :request_id) AS wallet"
).columns(*_WALLET_COLUMNS)


def own_wallet(user_id: UUID, currency: str) -> Wallet:
    """The member's wallet in one of the tenant's currencies, opened if it does not exist. Raises MemberNotFound."""
    query = sa.select(Wallet).where(Wallet.user_id == user_id, Wallet.currency == currency)
    return db.session.scalar(query) or open_wallet(user_id, currency, actor=Actor(ActorKind.USER, user_id))[0]


def open_wallet(user_id: UUID, currency: str, *, actor: Actor = SYSTEM) -> tuple[Wallet, bool]:
    """The member's wallet, and whether this call opened it, with the credit limit of the tenant's policy. Of two
    simultaneous calls, one opens it. Raises MemberNotFound.
    """
    parameters = {"user_id": user_id, "currency": currency, "actor_id": actor.id, "request_id": actor.request_id}
    set_actor(actor)
    statement = sa.select(Wallet, sa.column("opened", sa.Boolean)).from_statement(_OPEN)
    with named_refusals():
        wallet, opened = db.session.execute(statement, parameters).one()
    if opened and wallet.credit_limit_minor:
        mark_written()
    return wallet, opened


def currency_of(wallet_id: UUID) -> str:
    """The wallet's currency, which never changes. One statement without an open db transaction. Raises
    WalletNotFound.
    """
    engine = connections().engine(current_tenant())
    found = engine.one_statement("SELECT currency FROM wallets WHERE id = %s", (wallet_id,), retry=True)
    if not found:
        raise WalletNotFound(WalletNotFound.text)
    return str(found[0][0])


def currencies_of(wallet_ids: Iterable[UUID]) -> dict[UUID, str]:
    """The currencies of these wallets, in one statement as `currency_of`. Unknown wallets are missing in the result."""
    engine = connections().engine(current_tenant())
    query = "SELECT id, currency FROM wallets WHERE id = ANY(%s)"
    return dict(engine.one_statement(query, (list(set(wallet_ids)),), retry=True))


def get_wallet(wallet_id: UUID) -> Wallet:
    """The wallet with this id. Raises WalletNotFound."""
    wallet = db.session.get(Wallet, wallet_id)
    if wallet is None:
        raise WalletNotFound(WalletNotFound.text)
    return wallet


def list_wallets(
    *, after: list[Any] | None, limit: int, q: str | None = None, status: str | None = None
) -> list[MemberWallet]:
    """Wallets in the order of opening, with the address and name of their members, also of former ones; `after` is
    (opened_at, id).
    """
    who = all_members
    query = (
        sa.select(Wallet, who.c.email, who.c.name, who.c.removed_at)
        .options(undefer(Wallet.over_minor))
        .join_from(Wallet, who, who.c.user_id == Wallet.user_id, isouter=True)
        .order_by(Wallet.opened_at, Wallet.id)
        .limit(limit)
    )
    if after is not None:
        position = sa.tuple_(sa.literal(datetime.fromisoformat(after[0])), sa.literal(UUID(after[1])))
        query = query.where(sa.tuple_(Wallet.opened_at, Wallet.id) > position)
    if status is not None:
        query = query.where(Wallet.status == status)
    if q is not None:
        query = query.where(who.c.email.icontains(q, autoescape=True) | who.c.name.icontains(q, autoescape=True))
    slug = current_tenant().slug
    return [MemberWallet(slug, *row) for row in db.session.execute(query)]


def configure_wallet(
    wallet_id: UUID,
    *,
    version: int,
    actor: Actor,
    credit_limit_minor: int | None,
    status: str | None,
) -> Wallet:
    """Change limit, status or both of the given version. The audit log gets the state before and after.

    Locks the wallet's row. Raises WalletNotFound, WalletVersionMismatch, WalletClosed, CreditLimitBelowUsed,
    CreditLimitAbovePolicy, WalletNotEmpty.
    """
    parameters = {
        "wallet_id": wallet_id,
        "version": version,
        "actor_id": actor.id,
        "credit_limit": credit_limit_minor,
        "status": status,
        "request_id": actor.request_id,
    }
    set_actor(actor)
    statement = sa.select(Wallet).from_statement(_CONFIGURE).execution_options(populate_existing=True)
    with named_refusals():
        wallet: Wallet = db.session.scalars(statement, parameters).one()
    mark_written()
    return wallet
