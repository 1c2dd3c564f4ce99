"""A wallet with many transactions, and the ways to read it: through the service layer, and in plain SQL."""

from datetime import datetime, timedelta
from random import random
from typing import Any, Final

import psycopg
from flask import Flask

from app.api.pagination import DEFAULT_LIMIT
from app.config import DATABASE_NAME
from app.db import db
from app.ledger.service import balance_at, list_transactions
from app.statements import csv, json
from app.statements.models import LINE_COLUMNS
from app.statements.service import list_tenant_transactions, stream_statement
from app.wallets.service import get_wallet
from scripts.benchmarks.clients import member_id
from scripts.benchmarks.installation import Installation
from scripts.benchmarks.measurement import BenchmarkFailed
from tenant_schemas.flask import tenant_context
from tenant_schemas.tenant import Tenant

OWNER: Final = member_id(0)
CHUNK: Final = 5_000
DEEP_PAGE: Final = 1_000
_MAKE: Final = """
    SELECT count(*) FROM wallet_post_many_v3((
        SELECT jsonb_agg(jsonb_build_object(
            'wallet_id', w.id, 'type', CASE n %% 2 WHEN 0 THEN 'deposit' ELSE 'payment' END,
            'amount_minor', n %% 97 + 1,
            'idempotency_key', 'history-' || n, 'description', 'Movement ' || n) ORDER BY n)
        FROM wallets w, generate_series(%s::bigint, %s) n WHERE w.user_id = %s), NULL, NULL, true)"""
_ROWS: Final = (
    f"COPY (SELECT {', '.join(column.name for column in LINE_COLUMNS)} FROM wallet_transactions"  # noqa: S608
    " WHERE wallet_id = '{}' ORDER BY created_at, seq) TO STDOUT"
)
_BALANCE: Final = (
    "SELECT balance_after_minor FROM wallet_transactions WHERE wallet_id = %s AND created_at <= %s"
    " ORDER BY created_at DESC, seq DESC LIMIT 1"
)


def fill_wallet(installation: Installation, transactions: int) -> None:
    """Post to the first member's wallet in the first tenant, in bulk, until it has this number of transactions. It has
    one from the start.
    """
    tenant = installation.tenants[0]
    with psycopg.connect(installation.tenant_url(tenant), autocommit=True) as login:
        for first in range(2, transactions + 1, CHUNK):
            login.execute(_MAKE, (first, min(first + CHUNK - 1, transactions), OWNER))
    with psycopg.connect(installation.server.superuser_url(DATABASE_NAME), autocommit=True) as superuser:
        superuser.execute("VACUUM ANALYZE")
        superuser.execute("CHECKPOINT")


class WalletReads:
    """Reads all transactions of the wallet, one page of them, or its balance at a moment."""

    def __init__(self, app: Flask, tenant: Tenant, login: psycopg.Connection[Any]) -> None:
        self._app, self._tenant, self._login = app, tenant, login
        found = login.execute(
            "SELECT w.id, w.last_seq, min(t.created_at), max(t.created_at) FROM wallets w"
            " JOIN wallet_transactions t ON t.wallet_id = w.id WHERE w.user_id = %s GROUP BY w.id",
            (OWNER,),
        ).fetchone()
        if found is None:
            raise BenchmarkFailed("The first member has no wallet with transactions.")
        self._id, self.count, self._first, self._last = found
        with app.app_context(), tenant_context(tenant):
            self._wallet = get_wallet(self._id)
            db.session.expunge(self._wallet)
        self.deep_page = max(1, min(DEEP_PAGE, self.count // DEFAULT_LIMIT))
        self._deep_seq = self.count - (self.deep_page - 1) * DEFAULT_LIMIT + 1
        row = login.execute(
            "SELECT created_at FROM wallet_transactions WHERE wallet_id = %s AND seq = least(%s, %s)",
            (self._id, self._deep_seq, self.count),
        ).fetchone()
        self._deep_at: str = row[0].isoformat() if row else ""

    def statement_json(self) -> None:
        self._statement(json.statement_pieces)

    def statement_csv(self) -> None:
        self._statement(csv.statement_pieces)

    def _statement(self, render: Any) -> None:
        with self._app.app_context(), tenant_context(self._tenant):
            stream = stream_statement(self._wallet, self._first, self._last + timedelta(seconds=1), render)
            for _ in stream:
                pass

    def statement_sql(self) -> None:
        statement = _ROWS.format(self._id).encode()
        with self._login.cursor() as cursor, cursor.copy(statement) as rows:
            for _ in rows:
                pass

    def balance_at(self) -> None:
        with self._app.app_context(), tenant_context(self._tenant):
            balance_at(self._wallet, self._moment())
            db.session.commit()

    def balance_at_sql(self) -> None:
        self._login.execute(_BALANCE, (self._id, self._moment())).fetchone()

    def _moment(self) -> datetime:
        moment: datetime = self._first + random() * (self._last - self._first)  # noqa: S311
        return moment

    def first_page_of_wallet(self) -> None:
        self._page(None)

    def deep_page_of_wallet(self) -> None:
        self._page([self._deep_at, self._deep_seq])

    def _page(self, after: list[Any] | None) -> None:
        with self._app.app_context(), tenant_context(self._tenant):
            _check_page(list_transactions(self._id, after=after, limit=DEFAULT_LIMIT + 1))
            db.session.commit()

    def first_page_of_tenant(self) -> None:
        self._page_of_tenant(None)

    def deep_page_of_tenant(self) -> None:
        self._page_of_tenant([self._deep_at, str(self._id), self._deep_seq])

    def _page_of_tenant(self, after: list[Any] | None) -> None:
        with self._app.app_context(), tenant_context(self._tenant):
            _check_page(list_tenant_transactions(after=after, limit=DEFAULT_LIMIT + 1))
            db.session.commit()


def _check_page(page: Any) -> None:
    """Raises BenchmarkFailed for a page that is not full: only pages of one length can be compared."""
    if len(page) < DEFAULT_LIMIT:
        raise BenchmarkFailed(f"A page has {len(page)} transactions, not {DEFAULT_LIMIT}: raise --transactions.")
