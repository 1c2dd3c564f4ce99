"""The verbs of holds, on the wallets of the bound tenant.

Authorise and capture are one statement each, committed when it returns, as every posting. Void runs in the session's db
transaction and commits nothing.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from app.api.bounded_scan import scan
from app.api.pagination import Found, PageRequest
from app.db import db
from app.holds.errors import HoldNotFound
from app.holds.models import AuthorisedHold, Hold
from app.ledger.models import PostedTransaction
from app.ledger.rehearsal import rehearsed_row
from app.ledger.service import POSTED_COLUMNS, posted_transaction
from app.metrics.observations import observed_posting
from app.sql_refusals import named_refusals
from app.wallets.models import Wallet
from app.wallets.service import with_own_wallet
from tenant_schemas.context import current_tenant
from tenant_schemas.flask import connections

_LASTS: Final = Hold.expires_at > sa.func.statement_timestamp()
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
    is_dry_run: bool = False,
) -> tuple[AuthorisedHold, bool]:
    """Reserve an amount of the member's wallet in this currency, for seven days unless `expires_at` is given. A missing
    wallet is opened before. Returns the hold as it was created, and whether an earlier request created it. A dry run
    writes nothing.

    Locks the wallet's row. Raises WalletNotFound, WalletFrozen, WalletClosed, InsufficientFunds, ExpiryInThePast,
    IdempotencyKeyReused.
    """
    parameters = (user_id, currency, amount_minor, idempotency_key, expires_at, order_id, description)
    if is_dry_run:
        *columns, replayed = rehearsed_row(_AUTHORISE, parameters, opens=(user_id, currency))
    else:
        *columns, replayed = with_own_wallet(user_id, currency, lambda: _row(_AUTHORISE, parameters))
    return AuthorisedHold(*columns), replayed


def capture(
    user_id: UUID, hold_id: UUID, *, amount_minor: int | None, idempotency_key: str, is_dry_run: bool = False
) -> tuple[PostedTransaction, bool]:
    """Post a payment of the remaining amount of the member's hold, or of a part of it. A dry run writes nothing.

    Locks the wallet's row. Raises HoldNotFound, also for another member's hold, WalletFrozen, AlreadyCaptured,
    HoldVoided, HoldExpired, CaptureExceedsHold, IdempotencyKeyReused, OrderAlreadyPaid.
    """
    parameters = (hold_id, user_id, hold_id, amount_minor, idempotency_key)
    if is_dry_run:
        return _captured(rehearsed_row(_CAPTURE, parameters))
    return observed_posting("payment", lambda: _captured(_row(_CAPTURE, parameters)))


def _captured(row: Sequence[Any]) -> tuple[PostedTransaction, bool]:
    *columns, replayed = row
    return posted_transaction(columns), replayed


def _row(statement: str, parameters: tuple[Any, ...]) -> Sequence[Any]:
    engine = connections().engine(current_tenant())
    with named_refusals():
        # After a broken connection, the same idempotency key makes the second try safe.
        return engine.one_statement(statement, parameters, retry=True)[0]


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


def list_holds(
    page: PageRequest,
    *,
    wallet_id: UUID | None = None,
    status: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
) -> Found[Hold]:
    """The tenant's holds, or those of a wallet, newest first; a position is (created_at, id). `start` is inclusive,
    `end` is exclusive. An active hold that has expired counts as expired, whether or not its row says so.
    """
    query = sa.select(Hold)
    if wallet_id is not None:
        query = query.where(Hold.wallet_id == wallet_id)
    filters: list[sa.ColumnElement[bool]] = []
    if status == "expired":
        filters.append((Hold.status == "expired") | (Hold.status == "active") & ~_LASTS)
    elif status is not None:
        query = query.where(Hold.status == status)
        filters += [_LASTS] if status == "active" else []
    return scan(page, query, (Hold.created_at, Hold.id), filters, start=start, end=end)


def get_hold(hold_id: UUID, *, user_id: UUID | None = None) -> Hold:
    """One hold of the tenant, or of the member's wallets. Raises HoldNotFound."""
    query = sa.select(Hold).where(Hold.id == hold_id)
    if user_id is not None:
        query = query.join(Wallet, Wallet.id == Hold.wallet_id).where(Wallet.user_id == user_id)
    found = db.session.scalar(query)
    if found is None:
        raise HoldNotFound(HoldNotFound.text if user_id is None else "There is no such hold in your wallets.")
    return found
