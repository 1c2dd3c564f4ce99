"""Posts many movements by one call of the tenant's SQL function: one statement, its own db transaction, all wallets
locked in one order. It is committed when it returns; after an error nothing is posted.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

import orjson

from app.audit.service import entry_json, mark_written
from app.auth.actors import Actor
from app.ledger.bulk.models import Item, Outcome
from app.ledger.errors import OrderAlreadyPaid
from app.ledger.service import POSTED_COLUMNS, posted_transaction
from app.metrics.definitions import MOVED_MINOR, POSTINGS
from app.metrics.observations import FAILED, POSTED, REPLAYED, count
from app.sql_refusals import named_refusals, refusal
from tenant_schemas.context import current_tenant
from tenant_schemas.flask import connections

_MOST_TRIES: Final = 20
# The audit entry is written after all postings: a materialised CTE that reads another one runs after it.
_POST_MANY: Final = f"""
    WITH outcome AS MATERIALIZED (
        SELECT * FROM wallet_post_many_v3(%s::jsonb, %s, %s, %s, %s)
    ), noted AS MATERIALIZED (
        SELECT audit_note_v2(%s::jsonb || jsonb_build_object('after', jsonb_build_object(
            'items', count(*), 'refused', count(o.refused_by), 'replayed', count(*) FILTER (WHERE o.replayed))))
        FROM outcome o
    )
    SELECT replayed, refused_by, detail, {POSTED_COLUMNS} FROM outcome CROSS JOIN noted ORDER BY item_no"""  # noqa: S608


def post_many(items: Sequence[Item], *, actor: Actor, idempotency_key: str, is_atomic: bool) -> list[Outcome]:
    """Post to wallets of the bound tenant and write one entry into the audit log. Returns the outcomes in the order of
    the items.

    Atomic: all or nothing; an error of `app.ledger.service.post` has the index of its item in its member `item`.
    Otherwise a refused item has its error as outcome, and the other items are posted. Raises IdempotencyKeyReused if
    the actor sent the key with another bulk, or with another request on the wallet of an item: then the members
    `item` and `walletId` name it. Of two simultaneous calls with one key, the second waits for the first.
    """
    keyed = _keyed(items, idempotency_key)
    batch = sha256(orjson.dumps([is_atomic, keyed])).hexdigest()
    entry = entry_json(actor, action="transactions.bulk", subject=idempotency_key)
    parameters = (orjson.dumps(keyed).decode(), actor.id, batch, is_atomic, idempotency_key, entry)
    types = [item.type for item in items]
    for _ in range(min(len(items), _MOST_TRIES)):
        try:
            return _post_many(parameters, types)
        except OrderAlreadyPaid as error:
            if "item" in error.members:
                raise
            # Another request paid an order at the same moment. The next call sees which order, so each call has one
            # order less to lose.
    return _post_many(parameters, types)


def _keyed(items: Sequence[Item], idempotency_key: str) -> list[dict[str, Any]]:
    """The items as `wallet_post_many_v3` expects them. A wallet's first item has the request's own key, so that no
    single request of the same caller can use it again. Each further item of the wallet has its index within the wallet
    appended, not its index in the list, so another list under the same key is detected even with the wallets in
    another order.
    """
    places: Counter[UUID] = Counter()
    keyed = []
    for item in items:
        place = places[item.wallet_id]
        key = f"{idempotency_key}/{place}" if place else idempotency_key
        keyed.append({**asdict(item), "idempotency_key": key})
        places[item.wallet_id] += 1
    return keyed


def _post_many(parameters: tuple[Any, ...], types: Sequence[str]) -> list[Outcome]:
    engine = connections().engine(current_tenant())
    with named_refusals():
        # After a broken connection, the same idempotency keys make the second try safe.
        rows = engine.one_statement(_POST_MANY, parameters, retry=True)
    mark_written()
    outcomes = [
        Outcome(
            transaction=None if refused_by else posted_transaction(columns),
            is_replayed=replayed,
            refusal=refusal(refused_by, detail) if refused_by else None,
        )
        for replayed, refused_by, detail, *columns in rows
    ]
    _note(types, outcomes)
    return outcomes


def _note(types: Sequence[str], outcomes: Sequence[Outcome]) -> None:
    """Note the outcomes for the metrics."""
    for type_, outcome in zip(types, outcomes, strict=True):
        if outcome.transaction is None:
            count(POSTINGS, type_, outcome.refusal.code if outcome.refusal else FAILED)
        else:
            count(POSTINGS, type_, REPLAYED if outcome.is_replayed else POSTED)
        if outcome.transaction and not outcome.is_replayed:
            count(MOVED_MINOR, type_, outcome.transaction.currency, number=abs(outcome.transaction.amount_minor))
