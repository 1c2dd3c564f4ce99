"""The verbs of a wallet: open, find, list, configure. Writes go through the tenant's SQL functions only.

They work on the bound tenant, in the session's db transaction, and commit nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import undefer

from app.api.bounded_scan import count_rows
from app.audit.service import mark_written, set_actor
from app.auth.actors import SYSTEM, Actor, ActorKind
from app.db import db
from app.sql_refusals import named_refusals
from app.users.directory import people
from app.users.models import all_members
from app.wallets.currencies import allowed_currencies
from app.wallets.errors import WalletNotFound
from app.wallets.models import MemberWallet, Wallet
from tenant_schemas.context import current_tenant
from tenant_schemas.flask import connections

MAX_INTEGER: Final = 2**31 - 1  # No wallet comes to this version, and a greater one is no integer of PostgreSQL.
Result = TypeVar("Result")
_WALLET_COLUMNS = tuple(Wallet.__table__.columns)
_OPEN = sa.text(
    f"SELECT {', '.join(f'(wallet).{column.name}' for column in _WALLET_COLUMNS)}, opened"  # noqa: S608
    " FROM wallet_open_v3(:user_id, :currency, :actor_id, :request_id)"
).columns(*_WALLET_COLUMNS, sa.column("opened", sa.Boolean))
_UNOPENED = sa.text("SELECT id, credit_limit_minor, last_hash FROM wallet_unopened_v1(:user_id, :currency)")
_CONFIGURE = sa.text(
    f"SELECT {', '.join(f'wallet.{column.name}' for column in _WALLET_COLUMNS)}"  # noqa: S608
    " FROM wallet_configure_v3(:wallet_id, :version, :actor_id, :credit_limit, :status, :request_id) AS wallet"
).columns(*_WALLET_COLUMNS)


def own_wallet(user_id: UUID, currency: str) -> Wallet:
    """The member's wallet in one of the tenant's currencies. One that is not opened yet is as it would be opened now,
    with `opened_at` None, and has the id that it will have. Writes nothing.
    """
    query = sa.select(Wallet).where(Wallet.user_id == user_id, Wallet.currency == currency)
    return db.session.scalar(query) or _unopened_wallet(user_id, currency)


def _unopened_wallet(user_id: UUID, currency: str) -> Wallet:
    row = db.session.execute(_UNOPENED, {"user_id": user_id, "currency": currency}).mappings().one()
    nothing = {"balance_minor": 0, "held_minor": 0, "last_seq": 0, "version": 1, "uses_credit": False}
    return Wallet(user_id=user_id, currency=currency, status="active", **nothing, **row)


def list_own_wallets(user_id: UUID) -> Sequence[Wallet]:
    """The member's opened wallets, by currency."""
    query = sa.select(Wallet).where(Wallet.user_id == user_id).order_by(Wallet.currency)
    return db.session.scalars(query.options(undefer(Wallet.over_minor))).all()


def own_wallet_ids(user_id: UUID) -> set[UUID]:
    """The ids of the member's wallets in all of the tenant's currencies, also of those that are not opened yet."""
    opened = {wallet.currency: wallet.id for wallet in list_own_wallets(user_id)}
    return {opened.get(code) or _unopened_wallet(user_id, code).id for code in (*allowed_currencies(), *opened)}


def with_own_wallet(user_id: UUID, currency: str, act: Callable[[], Result]) -> Result:
    """The result of `act`. If the member has no wallet in this currency, it is opened and committed, and `act` is
    called once more. Raises MemberNotFound, and what `act` raises.
    """
    try:
        return act()
    except WalletNotFound:
        open_wallet(user_id, currency, actor=Actor(ActorKind.USER, user_id))
        db.session.commit()
    return act()


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


def get_member_wallet(wallet_id: UUID) -> MemberWallet:
    """The wallet with this id, for staff. Raises WalletNotFound."""
    (found,) = _with_owners([get_wallet(wallet_id)])
    return found


def list_wallets(
    *, after: list[Any] | None, limit: int, is_newest_first: bool = False, **filters: Any
) -> list[MemberWallet]:
    """Wallets in the order of opening, with their members; `after` is (opened_at, id). The filters are `q`, `status`,
    `currency` and `user_id`.
    """
    order = (Wallet.opened_at, Wallet.id)
    query = sa.select(Wallet).options(undefer(Wallet.over_minor)).where(*_conditions(**filters)).limit(limit)
    query = query.order_by(*((column.desc() if is_newest_first else column) for column in order))
    if after is not None:
        position = sa.tuple_(sa.literal(datetime.fromisoformat(after[0])), sa.literal(UUID(after[1])))
        place = sa.tuple_(*order)
        query = query.where(place < position if is_newest_first else place > position)
    return _with_owners(db.session.scalars(query).all())


def count_wallets(most: int, **filters: Any) -> int:
    """The number of wallets that `list_wallets` lists on all its pages, counted up to `most`."""
    return count_rows(sa.select(Wallet.id).where(*_conditions(**filters)), most)


def _with_owners(wallets: Sequence[Wallet]) -> list[MemberWallet]:
    slug, known = current_tenant().slug, people({wallet.user_id for wallet in wallets})
    return [MemberWallet(slug, wallet, known[wallet.user_id]) for wallet in wallets]


def _conditions(
    *, q: str | None = None, status: str | None = None, currency: str | None = None, user_id: UUID | None = None
) -> list[sa.ColumnElement[bool]]:
    told = ((Wallet.status, status), (Wallet.currency, currency), (Wallet.user_id, user_id))
    found: list[sa.ColumnElement[bool]] = [column == value for column, value in told if value is not None]
    if q is not None:
        who = all_members.c
        is_named = who.email.icontains(q, autoescape=True) | who.name.icontains(q, autoescape=True)
        found.append(Wallet.user_id.in_(sa.select(who.user_id).where(is_named)))
    return found


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
        "version": min(version, MAX_INTEGER),
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
