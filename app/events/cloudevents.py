"""Writes a row of the feed as a CloudEvent (CloudEvents 1.0.2, structured mode), with names and amounts as in the API.

`sequence` has 20 digits, because consumers compare it as text; it has no `sequencetype`, since that of numbers ends at
2**31. An event that was made again from the ledger has `replay` instead, and no place in the feed. The data of a
movement has its hash and the hash before, so a consumer can prove that it missed none.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from app.api.fields import moment_text
from app.money import format_minor
from app.sql_refusals import shown_members

Members = dict[str, Any]


class EventRow(NamedTuple):
    """An event with what its data is made of: its movement, hold, order and wallet, as far as it has them."""

    position: int | None  # None: made again from the ledger
    id: UUID
    type: str
    wallet_id: UUID | None
    subject_id: UUID | None
    data: Members | None
    traceparent: str | None
    at: datetime
    user_id: UUID
    currency: str
    seq: int
    amount_minor: int
    balance_after_minor: int
    order_id: str | None
    refund_of: UUID | None
    hold_id: UUID | None
    admin_id: UUID | None
    description: str | None
    reference: str | None
    reason: str | None
    posted_at: datetime | None
    hash: bytes
    previous_hash: bytes
    held_minor: int
    held_for: str | None
    held_description: str | None
    expires_at: datetime
    total_minor: int
    payment_id: UUID
    refund_id: UUID | None


def cloud_event(row: EventRow, *, tenant_id: UUID, feed_id: UUID) -> Members:
    """The whole event, of JSON's own types. `source` names the tenant by its id, since a slug can change."""
    subject, data = _WRITERS[_kind(row.type)](row)
    body = {
        "specversion": "1.0",
        "id": str(row.id),
        "source": f"/tenants/{tenant_id}",
        "type": row.type,
        "subject": subject,
        "time": moment_text(_happened_at(row)),
        "datacontenttype": "application/json",
        "sequence": None if row.position is None else f"{row.position:020}",
        "replay": True if row.position is None else None,
        "partitionkey": _text(row.wallet_id),
        "feedid": str(feed_id),
        "traceparent": row.traceparent,
        "data": {"walletId": _text(row.wallet_id), **data},
    }
    return {name: value for name, value in body.items() if value is not None}


def thin(body: Members) -> Members:
    """The event without amounts and free text: what it is about, and what proves that none is missing."""
    data = {name: value for name, value in body["data"].items() if name.endswith("Id") or name in _THIN}
    return {**body, "data": data}


# A command's id says something only beside its source.
_THIN: Final = frozenset({"seq", "hash", "previousHash", "commandSource"})


# By the last word of their types. The kind of any other type is its first word.
_KINDS: Final = {"posted": "movement", "completed": "command", "refused": "command"}


def _kind(type_: str) -> str:
    word = type_.split(".")[-2]
    return _KINDS.get(word) or type_.partition(".")[0]


def _happened_at(row: EventRow) -> datetime:
    """An expired hold ended when its time was over, which may be long before its row said so."""
    return row.expires_at if row.type == "hold.expired.v1" else row.posted_at or row.at


def _movement(row: EventRow) -> tuple[str, Members]:
    return f"wallets/{row.wallet_id}", {
        "transactionId": str(row.id),
        "seq": row.seq,
        "amount": format_minor(row.amount_minor, row.currency),
        "currency": row.currency,
        "balanceAfter": format_minor(row.balance_after_minor, row.currency),
        "orderId": row.order_id,
        "paymentId": _text(row.refund_of),
        "holdId": _text(row.hold_id),
        "adminId": _text(row.admin_id),
        "description": row.description,
        "reference": row.reference,
        "reason": row.reason,
        "hash": row.hash.hex(),
        "previousHash": row.previous_hash.hex(),
    }


def _hold(row: EventRow) -> tuple[str, Members]:
    data = row.data or {}
    return f"holds/{row.subject_id}", {
        "holdId": str(row.subject_id),
        "status": data["status"],
        "amount": format_minor(row.held_minor, row.currency),
        "captured": format_minor(data["capturedMinor"], row.currency),
        "currency": row.currency,
        "orderId": row.held_for,
        "description": row.held_description,
        "expiresAt": moment_text(row.expires_at),
    }


def _order(row: EventRow) -> tuple[str, Members]:
    is_cancelled = row.type == "order.cancelled.v1"
    return f"orders/{row.subject_id}", {
        "orderId": str(row.subject_id),
        "userId": str(row.user_id),
        "status": "cancelled" if is_cancelled else "paid",
        "total": format_minor(row.total_minor, row.currency),
        "currency": row.currency,
        "paymentId": str(row.payment_id),
        "refundId": _text(row.refund_id) if is_cancelled else None,
    }


def _wallet(row: EventRow) -> tuple[str, Members]:
    data = row.data or {}
    before = data.get("creditLimitBeforeMinor")
    return f"wallets/{row.wallet_id}", {
        "userId": str(row.user_id),
        "status": data["status"],
        "currency": row.currency,
        "creditLimit": format_minor(data["creditLimitMinor"], row.currency),
        "creditLimitBefore": None if before is None else format_minor(before, row.currency),
    }


def _command(row: EventRow) -> tuple[str, Members]:
    """The answer to a command from a queue, which `commandSource` and `commandId` name."""
    data = row.data or {}
    is_posted = row.type.split(".")[1] not in {"hold", "void"}
    subject = {("transactionId" if is_posted else "holdId"): _text(row.subject_id)} if row.subject_id else {}
    told = {
        "commandSource": data["source"],
        "commandId": data["commandId"],
        "holdId": data.get("holdId"),
        **subject,
        "code": data.get("code"),
        **shown_members(data.get("detail") or {}),
    }
    return f"commands/{data['commandId']}", {"walletId": data.get("walletId"), **told}


def _text(id_: UUID | None) -> str | None:
    return str(id_) if id_ else None


_WRITERS: Final[dict[str, Callable[[EventRow], tuple[str, Members]]]] = {
    "movement": _movement,
    "hold": _hold,
    "order": _order,
    "wallet": _wallet,
    "command": _command,
}
