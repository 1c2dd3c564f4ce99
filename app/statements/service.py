"""Reads statements of a wallet and the transactions of all wallets of the bound tenant.

Nothing here writes or locks. Streams and documents are read from one snapshot, on a connection of their own.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from app.db import db
from app.ledger.history import Filters, newest_until
from app.ledger.models import WalletTransaction
from app.statements.errors import StatementBroken, StatementTooLong
from app.statements.models import LINE_COLUMNS, PROVEN_COLUMNS, Line, Statement
from app.statements.streams import BoundStream, batches, snapshot
from app.wallets.models import Wallet
from tenant_schemas.context import current_tenant
from tenant_schemas.flask import connections
from tenant_schemas.search_path import BindingEngine

Batches = Iterable[Sequence[Line]]
Columns = tuple[sa.ColumnElement[Any], ...]
_PREVIOUS_HASH: Final = sa.text("""
    SELECT coalesce(t.hash, wallet_genesis_hash_v1(w.id, w.user_id, w.currency))
    FROM wallets w LEFT JOIN wallet_transactions t ON t.wallet_id = w.id AND t.seq = :seq WHERE w.id = :wallet_id""")
_IN_TIME: Final = (WalletTransaction.created_at, WalletTransaction.wallet_id, WalletTransaction.seq)


def stream_statement(
    wallet: Wallet,
    start: datetime,
    end: datetime,
    render: Callable[[Statement, Batches], Iterator[bytes]],
    *,
    with_proof: bool = False,
) -> BoundStream:
    """A wallet's statement in the format of `render`, read while it is sent. `start` is inclusive, `end` is exclusive.
    With proof, it has what the hashes of its movements are made of.

    Ends the session's db transaction, so that no request holds two connections. Raises StatementBroken, possibly during
    the stream, if the movements do not lead from the opening to the closing balance.
    """
    wallet_id, currency = wallet.id, wallet.currency

    def pieces(engine: BindingEngine) -> Iterator[bytes]:
        with snapshot(engine) as connection:
            statement = _statement(connection, wallet_id, currency, start, end)
            columns = PROVEN_COLUMNS if with_proof else LINE_COLUMNS
            if with_proof:
                statement = replace(statement, previous_hash=_previous_hash(connection, statement))
            with batches(connection, _movements(statement, columns)) as found:
                yield from render(statement, _checked(statement, found))

    return _stream(pieces)


def read_short_statement(
    wallet: Wallet, start: datetime, end: datetime, *, limit: int
) -> tuple[Statement, list[Line] | None]:
    """A wallet's statement, and its movements unless they are more than `limit`. Raises StatementBroken.

    Ends the session's db transaction, so that no request holds two connections.
    """
    wallet_id, currency = wallet.id, wallet.currency
    db.session.commit()
    return read_statement(connections().engine(current_tenant()), wallet_id, currency, start, end, limit=limit)


def read_statement(
    engine: BindingEngine, wallet_id: UUID, currency: str, start: datetime, end: datetime, *, limit: int
) -> tuple[Statement, list[Line] | None]:
    """`read_short_statement` without a session. The snapshot ends when it returns."""
    with snapshot(engine) as connection:
        statement = _statement(connection, wallet_id, currency, start, end)
        if statement.count > limit:
            return statement, None
        with batches(connection, _movements(statement)) as found:
            return statement, [line for batch in _checked(statement, found) for line in batch]


def check_length(statement: Statement, limit: int) -> None:
    """Raises StatementTooLong."""
    if statement.count > limit:
        raise StatementTooLong(
            f"The period has {statement.count} movements; this format allows {limit}. Use the CSV, or a shorter"
            " period.",
            {"movements": statement.count, "limit": limit},
        )


def stream_transactions(render: Callable[[Batches], Iterator[bytes]], filters: Filters) -> BoundStream:
    """The tenant's transactions that pass the filters, oldest first, read while they are sent.

    Ends the session's db transaction.
    """
    query = sa.select(*LINE_COLUMNS).where(*filters.indexed(), *filters.others()).order_by(*_IN_TIME)

    def pieces(engine: BindingEngine) -> Iterator[bytes]:
        with snapshot(engine) as connection, batches(connection, query) as found:
            yield from render(found)

    return _stream(pieces)


def _stream(pieces: Callable[[BindingEngine], Iterator[bytes]]) -> BoundStream:
    db.session.commit()
    tenant = current_tenant()
    return BoundStream(tenant, pieces(connections().engine(tenant)))


def _statement(connection: sa.Connection, wallet_id: UUID, currency: str, start: datetime, end: datetime) -> Statement:
    """Two look-ups in the index (wallet_id, created_at, seq). `seq` has no gaps, so it counts the movements too."""
    opening_seq, opening_minor = _before(connection, wallet_id, start)
    closing_seq, closing_minor = _before(connection, wallet_id, end)
    return Statement(wallet_id, currency, start, end, opening_minor, closing_minor, closing_seq - opening_seq)


def _before(connection: sa.Connection, wallet_id: UUID, moment: datetime) -> tuple[int, int]:
    found = connection.execute(newest_until(wallet_id, sa.literal(moment), inclusive=False)).one_or_none()
    return (0, 0) if found is None else (found.seq, found.balance_after_minor)


def _previous_hash(connection: sa.Connection, statement: Statement) -> bytes | None:
    """None if the wallet is not opened yet."""
    seq, _ = _before(connection, statement.wallet_id, statement.start)
    found: bytes | None = connection.execute(_PREVIOUS_HASH, {"wallet_id": statement.wallet_id, "seq": seq}).scalar()
    return found


def _movements(statement: Statement, columns: Columns = LINE_COLUMNS) -> sa.Select[Any]:
    return (
        sa.select(*columns)
        .where(WalletTransaction.wallet_id == statement.wallet_id)
        .where(*Filters(start=statement.start, end=statement.end).indexed())
        .order_by(WalletTransaction.created_at, WalletTransaction.seq)
    )


def _checked(statement: Statement, found: Batches) -> Iterator[Sequence[Line]]:
    """The movements, added up while they are read. Raises StatementBroken before a wrong one is shown."""
    running, count = statement.opening_minor, 0
    for batch in found:
        for line in batch:
            running += line.amount_minor
            if running != line.balance_after_minor:
                raise StatementBroken(
                    f"Wallet {line.wallet_id}, transaction {line.seq}: the movements add up to {running}."
                )
        count += len(batch)
        yield batch
    if (running, count) != (statement.closing_minor, statement.count):
        raise StatementBroken(f"Wallet {statement.wallet_id}: {count} movements lead to {running}.")
