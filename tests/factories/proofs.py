"""A prover on a test's own database, and wallets with history for it."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any
from uuid import UUID

import psycopg
from flask import Flask

from app.ledger.models import Movement
from app.ledger.service import post
from app.prover.budget import Budget
from app.prover.loop import Outcome, Prover
from app.prover.service import Finding, Proof, StepState, prove_step, read_findings, read_proofs
from app.signing_keys import key_source
from tenant_schemas.connections import Connections
from tenant_schemas.flask import tenant_context
from tenant_schemas.search_path import BindingEngine
from tenant_schemas.testing.plugin import Database
from tests.conftest import SIGNING_KEYS
from tests.factories.people import People, Person

Superuser = psycopg.Connection[Any]


def prover_of(connections: Connections, heads_dir: Path | None = None, **changed: Any) -> Prover:
    """A prover without a rest, for which every tenant is due."""
    stop = Event()
    prover = Prover(
        connections=connections,
        keys=key_source("", SIGNING_KEYS),
        budget=Budget(100, stop),
        stop=stop,
        heads_dir=heads_dir,
        every=timedelta(0),
    )
    return replace(prover, **changed)


def prove(engine: BindingEngine, *, is_full: bool = False) -> list[Finding]:
    """A whole pass, and what it found."""
    while prove_step(engine, is_full=is_full) is StepState.WORKING:
        pass
    return list(read_findings(engine))


def proof_of(connections: Connections, slug: str) -> Proof:
    with connections.shared.begin() as connection:
        return {proof.slug: proof for proof in read_proofs(connection)}[slug]


def states(outcomes: list[Outcome]) -> dict[str, str]:
    return {outcome.slug: outcome.state for outcome in outcomes}


def superuser_of(database: Database, slug: str) -> Superuser:
    """A superuser in the tenant's schema with triggers disabled."""
    connection: Superuser = database.as_superuser()
    connection.execute(f"SET search_path TO {slug}_schema".encode())
    connection.execute("SET session_replication_role TO replica")
    return connection


def wallet_with_history(app: Flask, slug: str) -> tuple[Person, UUID]:
    """A member's wallet with a deposit of 10.00, payments of 3.00 and 7.50, and a refund of the first."""
    people = People(app)
    person = people.make(**{slug: "member"})
    wallet_id = people.wallet(person, slug, balance_minor=1000, credit_limit_minor=100)
    payment = posted(app, slug, wallet_id, "a", 300)
    posted(app, slug, wallet_id, "b", 750)
    with app.app_context(), tenant_context(slug):
        post(wallet_id, Movement(type="refund", amount_minor=None, refund_of=payment, idempotency_key="c"))
    return person, wallet_id


def posted(app: Flask, slug: str, wallet_id: UUID, key: str, amount_minor: int = 1) -> UUID:
    """A payment; returns its id."""
    with app.app_context(), tenant_context(slug):
        movement, _ = post(wallet_id, Movement(type="payment", amount_minor=amount_minor, idempotency_key=key))
        return movement.id


def rehash(superuser: Superuser, wallet_id: UUID) -> None:
    """Make all hashes of the wallet's chain again, as an owner who rewrites history would."""
    chain = superuser.execute(
        "SELECT id FROM wallet_transactions WHERE wallet_id = %s ORDER BY seq", (wallet_id,)
    ).fetchall()
    (head,) = superuser.execute(
        "SELECT wallet_genesis_hash_v1(id, user_id, currency) FROM wallets WHERE id = %s", (wallet_id,)
    ).fetchall()[0]
    for (movement_id,) in chain:
        (head,) = superuser.execute(
            "UPDATE wallet_transactions SET hash = wallet_transaction_hash_v2(%s, request_fingerprint, created_at, id,"
            " wallet_id, currency, seq, type, amount_minor, balance_after_minor, idempotency_key, admin_id, order_id,"
            " refund_of, hold_id, description, reference, reason, debit_account, credit_account)"
            " WHERE id = %s RETURNING hash",
            (head, movement_id),
        ).fetchall()[0]
    superuser.execute("UPDATE wallets SET last_hash = %s WHERE id = %s", (head, wallet_id))


def forget_newest(superuser: Superuser, wallet_id: UUID) -> None:
    """Delete the wallet's newest movement with all that the database knows of it, the proof included."""
    superuser.execute(
        "DELETE FROM wallet_transactions t USING wallets w"
        " WHERE w.id = %s AND t.wallet_id = w.id AND t.seq = w.last_seq",
        (wallet_id,),
    )
    superuser.execute(
        "UPDATE wallets w SET last_seq = t.seq, last_hash = t.hash, last_posted_at = t.created_at,"
        " balance_minor = t.balance_after_minor, uses_credit = t.balance_after_minor < 0"
        " FROM (SELECT * FROM wallet_transactions WHERE wallet_id = %s ORDER BY seq DESC LIMIT 1) t"
        " WHERE w.id = t.wallet_id",
        (wallet_id,),
    )
    superuser.execute("DELETE FROM wallet_proofs WHERE wallet_id = %s", (wallet_id,))


def until_whole(engine: BindingEngine) -> Iterator[StepState]:
    """The states of a pass's steps."""
    state = StepState.WORKING
    while state is StepState.WORKING:
        state = prove_step(engine)
        yield state
