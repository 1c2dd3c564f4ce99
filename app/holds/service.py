"""The verbs of holds, on the wallets of the bound tenant.

Authorise and capture are one statement each, committed when it returns, as every posting. Void runs in the session's db
transaction and commits nothing.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from app.db import db
from app.holds.errors import HoldNotFound
from app.holds.models import AuthorisedHold, Hold
from app.ledger.models import PostedTransaction
from app.ledger.service import POSTED_COLUMNS, posted_transaction
from app.sql_refusals import named_refusals
from app.wallets.models import Wallet
from tenant_schemas.context import current_tenant
from tenant_schemas.flask import connections

_HOLD_COLUMNS: Final = tuple(Hold.__table__.columns)
_AUTHORISED: Final = (
    "id",
    "wallet_id",
    "currency",
    "amount_minor",
    "order_id",
    "description",
    "created_at",
    "expires_at",
)
_AUTHORISE: Final = (
    f"SELECT {', '.join(f'(hold).{name}' for name in _AUTHORISED)}, replayed FROM hold_authorise_v2("  # noqa: S608
    "(SELECT w.id FROM wallets w WHERE w.user_id = %s AND w.currency = %s), %s, %s, %s, %s, %s)"
)
_VOID: Final = sa.text(
    f"SELECT {', '.join(f'hold.{column.name}' for column in _HOLD_COLUMNS)}"  # noqa: S608
    " FROM hold_void_v1(:wallet_id, :hold_id) AS hold"
).columns(*_HOLD_COLUMNS)
_OWN_WALLET: Final = "FROM holds h JOIN wallets w ON w.id = h.wallet_id WHERE h.id = %s AND w.user_id = %s"
_CAPTURE: Final = (
    f"SELECT {POSTED_COLUMNS}, replayed FROM hold_capture_v2((SELECT h.wallet_id {_OWN_WALLET}), %s, %s, %s)"  # noqa: S608
)


def authorise(
    user_id: UUID,
    currency: str,
    *,
    amount_minor: int,
    idempotency_key: str,
    expires_at: datetime | None,
    order_id: str | None,
    description: str | None,
) -> tuple[AuthorisedHold, bool]:
    """Reserve an amount of the member's wallet in this currency, for seven days unless `expires_at` is given. Returns
    the hold as it was created, and whether an earlier request created it.

    Locks the wallet's row. Raises WalletNotFound, WalletFrozen, WalletClosed, InsufficientFunds, ExpiryInThePast,
    IdempotencyKeyReused.
    """
    parameters = (user_id, currency, amount_minor, idempotency_key, expires_at, order_id, description)
    with named_refusals():
        *columns, replayed = connections().engine(current_tenant()).one_statement(_AUTHORISE, parameters, retry=True)[0]
    return AuthorisedHold(*columns), replayed


def capture(
    user_id: UUID, hold_id: UUID, *, amount_minor: int | None, idempotency_key: str
) -> tuple[PostedTransaction, bool]:
    """Post a payment of the remaining amount of the member's hold, or of a part of it.

    Locks the wallet's row. Raises HoldNotFound, also for another member's hold, WalletFrozen, AlreadyCaptured,
    HoldVoided, HoldExpired, CaptureExceedsHold, IdempotencyKeyReused, OrderAlreadyPaid.
    """
    engine = connections().engine(current_tenant())
    parameters = (hold_id, user_id, hold_id, amount_minor, idempotency_key)
    with named_refusals():
        *columns, replayed = engine.one_statement(_CAPTURE, parameters, retry=True)[0]
    return posted_transaction(columns), replayed


def currency_of(user_id: UUID, hold_id: UUID) -> str:
    """The currency of the member's hold. Raises HoldNotFound, also for another member's hold."""
    engine = connections().engine(current_tenant())
    found = engine.one_statement(f"SELECT h.currency {_OWN_WALLET}", (hold_id, user_id), retry=True)
    if not found:
        raise HoldNotFound(HoldNotFound.text)
    return str(found[0][0])


def void_own(user_id: UUID, hold_id: UUID) -> Hold:
    """`void` for a hold in any wallet of the member."""
    query = sa.select(Hold.wallet_id).join(Wallet, Wallet.id == Hold.wallet_id)
    wallet_id = db.session.scalar(query.where(Hold.id == hold_id, Wallet.user_id == user_id))
    if wallet_id is None:
        raise HoldNotFound(HoldNotFound.text)
    return void(wallet_id, hold_id)


def void(wallet_id: UUID, hold_id: UUID) -> Hold:
    """Release the remaining amount of the wallet's hold. A second call has no effect.

    Locks the wallet's row. Raises HoldNotFound, also for another wallet's hold, AlreadyCaptured.
    """
    statement = sa.select(Hold).from_statement(_VOID)
    with named_refusals():
        hold: Hold = db.session.scalars(statement, {"wallet_id": wallet_id, "hold_id": hold_id}).one()
    return hold


def expire_holds(limit: int = 1000) -> int:
    """Mark the bound tenant's holds that are past their `expires_at`. Returns the number of wallets concerned.

    Locks up to `limit` wallets at once and commits after each batch. Skips wallets that are locked.
    """
    total, count = 0, 1
    while count:
        count = int(db.session.scalar(sa.text("SELECT holds_expire_v1(:limit)"), {"limit": limit}) or 0)
        db.session.commit()
        total += count
    return total


def list_holds(wallet_id: UUID, *, after: list[Any] | None, limit: int) -> Sequence[Hold]:
    """The wallet's holds, newest first; `after` is (created_at, id)."""
    order = (Hold.created_at, Hold.id)
    query = (
        sa.select(Hold).where(Hold.wallet_id == wallet_id).order_by(*(column.desc() for column in order)).limit(limit)
    )
    if after is not None:
        position = sa.tuple_(sa.literal(datetime.fromisoformat(after[0])), sa.literal(UUID(after[1])))
        query = query.where(sa.tuple_(*order) < position)
    return db.session.scalars(query).all()
