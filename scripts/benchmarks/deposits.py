"""Deposits of one minor unit into many wallets: one by one and in bulk, through the service layer and in plain SQL."""

from itertools import count, cycle
from typing import Any, Final
from uuid import UUID, uuid4

import orjson
import psycopg
from flask import Flask

from app.auth.actors import Actor, ActorKind
from app.ledger.bulk.models import Item
from app.ledger.bulk.service import post_many
from app.ledger.models import Movement
from app.ledger.service import post
from scripts.benchmarks.clients import AMOUNT_MINOR, member_id
from tenant_schemas.flask import tenant_context
from tenant_schemas.tenant import Tenant

BULK: Final = 1_000
ADMIN: Final = member_id(0)
_SINGLE: Final = "SELECT id FROM wallet_post_v4(%s, NULL, NULL, 'deposit', %s, %s, %s, NULL, NULL, NULL, NULL, NULL)"
_BULK: Final = "SELECT count(*) FROM wallet_post_many_v3(%s, %s, NULL, true)"


class Deposits:
    """Each call uses new idempotency keys, so that none is answered as a repetition."""

    def __init__(self, app: Flask, tenant: Tenant, login: psycopg.Connection[Any]) -> None:
        self._app, self._tenant, self._login = app, tenant, login
        found = login.execute("SELECT id FROM wallets WHERE user_id <> %s ORDER BY user_id", (ADMIN,))
        self._wallets: list[UUID] = [row[0] for row in found.fetchmany(BULK)]
        self._next = cycle(self._wallets)
        name = uuid4().hex
        self._keys = (f"{name}-{number}" for number in count())

    def single(self) -> None:
        movement = Movement(
            type="deposit",
            amount_minor=AMOUNT_MINOR,
            idempotency_key=next(self._keys),
            admin_id=ADMIN,
        )
        with self._app.app_context(), tenant_context(self._tenant):
            post(next(self._next), movement)

    def single_sql(self) -> None:
        self._login.execute(_SINGLE, (next(self._next), AMOUNT_MINOR, next(self._keys), ADMIN))

    def bulk(self) -> None:
        items = [Item(wallet_id=wallet, type="deposit", amount_minor=AMOUNT_MINOR) for wallet in self._wallets]
        with self._app.app_context(), tenant_context(self._tenant):
            post_many(items, actor=Actor(ActorKind.USER, ADMIN), idempotency_key=next(self._keys), is_atomic=True)

    def bulk_sql(self) -> None:
        key = next(self._keys)
        items = [
            {
                "wallet_id": wallet,
                "type": "deposit",
                "amount_minor": AMOUNT_MINOR,
                "idempotency_key": f"{key}/0",
            }
            for wallet in self._wallets
        ]
        self._login.execute(_BULK, (orjson.dumps(items).decode(), ADMIN))
