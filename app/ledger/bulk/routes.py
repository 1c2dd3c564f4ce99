"""Movements of many wallets in one request, for staff."""

from typing import Any

from app.api.blueprint import Blueprint
from app.api.headers import idempotency_key, needs_idempotency_key, takes_up_to
from app.api.problems import problem_body
from app.api.refusals import refuses
from app.auth.access import Access, access, actor, caller
from app.auth.errors import AdminRequired
from app.ledger.bulk import service
from app.ledger.bulk.models import Item, Outcome
from app.ledger.bulk.schemas import BulkSchema, OutcomesSchema
from app.ledger.errors import IdempotencyKeyReused, InsufficientFunds, OrderAlreadyPaid
from app.money import to_minor
from app.users.models import Role
from app.wallets.errors import AmountOutOfRange, WalletClosed, WalletFrozen, WalletNotFound
from app.wallets.service import currencies_of

blueprint = Blueprint("bulk", __name__, url_prefix="/api/admin/transactions", description="Many movements at once.")
MAX_BODY_BYTES = 4 * 1024 * 1024  # 1,000 items with texts of the maximum length in any script.


@blueprint.post("/bulk")
@access(Access.TELLER, "transactions.bulk")
@needs_idempotency_key
@takes_up_to(MAX_BODY_BYTES)
@blueprint.arguments(BulkSchema)
@blueprint.response(201, OutcomesSchema)
@blueprint.alt_response(200, schema=OutcomesSchema)
@refuses(
    WalletNotFound,
    InsufficientFunds,
    WalletFrozen,
    WalletClosed,
    OrderAlreadyPaid,
    IdempotencyKeyReused,
    AmountOutOfRange,
)
def post_transactions(body: dict[str, Any]) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Post up to 1,000 deposits, payments or adjustments: all or nothing (201), or each on its own (200)."""
    if caller().role is Role.SERVICE and any(item["type"] == "adjustment" for item in body["items"]):
        raise AdminRequired("An adjustment needs an admin.")
    outcomes = service.post_many(
        _items(body["items"]), actor=actor(), idempotency_key=idempotency_key(), is_atomic=body["atomic"]
    )
    headers = {"Idempotent-Replayed": "true"} if all(outcome.is_replayed for outcome in outcomes) else {}
    shown = [_shown(index, outcome) for index, outcome in enumerate(outcomes)]
    return {"items": shown}, 201 if body["atomic"] else 200, headers


def _items(items: list[dict[str, Any]]) -> list[Item]:
    """The items with their amounts in minor units of their wallets' currencies. The posting function refuses unknown
    wallets.
    """
    currencies = currencies_of(item["wallet_id"] for item in items)
    return [_item(item, index, currencies.get(item["wallet_id"])) for index, item in enumerate(items)]


def _item(item: dict[str, Any], index: int, currency: str | None) -> Item:
    amount = item.pop("amount")
    return Item(amount_minor=to_minor(amount, currency, f"items.{index}.amount") if currency else None, **item)


def _shown(index: int, outcome: Outcome) -> dict[str, Any]:
    if outcome.refusal is not None:
        problem = problem_body(outcome.refusal)
        return {"index": index, "status": problem["status"], "problem": problem}
    return {"index": index, "status": 201, "replayed": outcome.is_replayed, "transaction": outcome.transaction}
