"""Post many movements by one call of the tenant's function: one statement, its own db transaction, all wallets locked
in one order. It is committed when it returns, and with any error nothing is.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

import orjson

from app.audit.service import entry_of
from app.auth.actors import Actor
from app.ledger.bulk.models import Item, Outcome
from app.ledger.errors import OrderAlreadyPaid
from app.ledger.service import POSTED_COLUMNS, posted_transaction
from app.refusals import named_refusals, refusal
from tenant_schemas.context import current_tenant
from tenant_schemas.flask import connections

MAX_KEY_LENGTH: Final = 190  # An item's key is this one, a slash and a number, in 200 characters.
# The entry is written when all is posted: a materialised part of a query that reads another runs after it.
_POST_MANY: Final = f"""
    WITH outcome AS MATERIALIZED (
        SELECT * FROM wallet_post_many_v1(%s::jsonb, %s, %s, %s)
    ), noted AS MATERIALIZED (
        SELECT audit_note_v1(%s::jsonb || jsonb_build_object('after', jsonb_build_object(
            'items', count(*), 'refused', count(o.refused_by), 'replayed', count(*) FILTER (WHERE o.replayed))))
        FROM outcome o
    )
    SELECT replayed, refused_by, detail, {POSTED_COLUMNS} FROM outcome CROSS JOIN noted ORDER BY item_no"""  # noqa: S608
_TRIES: Final = 3


def post_many(items: Sequence[Item], *, actor: Actor, idempotency_key: str, is_atomic: bool) -> list[Outcome]:
    """Post to wallets of the bound tenant; returns what became of each item, in their order. Noted in the audit log.

    Atomic: all or nothing, and whatever `app.ledger.service.post` raises names the item's place in its member `item`.
    Else an item that is refused has that error as its outcome, and the others stand. Either way the whole is refused
    with IdempotencyKeyReused if one of the wallets has seen the key with another request.
    """
    keyed = _keyed(items, idempotency_key)
    batch = sha256(orjson.dumps([is_atomic, keyed])).hexdigest()
    entry = entry_of(actor, action="transactions.bulk", subject=idempotency_key)
    parameters = (orjson.dumps(keyed).decode(), actor.id, batch, is_atomic, entry)
    for _ in range(_TRIES - 1):
        try:
            return _post_many(parameters)
        except OrderAlreadyPaid as error:
            if "item" in error.members:
                raise
            # Somebody else paid an order in that very moment; asked again, the function sees which.
    return _post_many(parameters)


def _keyed(items: Sequence[Item], idempotency_key: str) -> list[dict[str, Any]]:
    """As `wallet_post_many_v1` wants them. A wallet's first item has the request's own key, so that no single request
    can have it too; the others have their place among those of the wallet behind it, and not among all, so another
    list under the same key is noticed also if it has the wallets in another order.
    """
    places: Counter[UUID] = Counter()
    keyed = []
    for item in items:
        place = places[item.wallet_id]
        key = f"{idempotency_key}/{place}" if place else idempotency_key
        keyed.append({**asdict(item), "idempotency_key": key})
        places[item.wallet_id] += 1
    return keyed


def _post_many(parameters: tuple[Any, ...]) -> list[Outcome]:
    engine = connections().engine(current_tenant())
    with named_refusals():
        # If the connection breaks on the way, the same keys make the second try safe.
        rows = engine.one_statement(_POST_MANY, parameters, retry=True)
    return [
        Outcome(
            transaction=None if refused_by else posted_transaction(columns),
            is_replayed=replayed,
            refusal=refusal(refused_by, detail) if refused_by else None,
        )
        for replayed, refused_by, detail, *columns in rows
    ]
