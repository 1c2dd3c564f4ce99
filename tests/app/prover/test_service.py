"""A pass finds each change that a superuser makes, and reads only what came since the pass before."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from flask import Flask

from app.prover import service
from app.prover.service import Finding, StepState, proof_figures, prove_step
from tenant_schemas.flask import EXTENSION
from tenant_schemas.search_path import BindingEngine
from tenant_schemas.testing.plugin import Database
from tests.factories.proofs import (
    Superuser,
    posted,
    proof_of,
    prove,
    rehash,
    superuser_of,
    wallet_with_history,
)


@pytest.fixture
def wallet_id(fresh_app: Flask) -> UUID:
    return wallet_with_history(fresh_app, "eur")[1]


@pytest.fixture
def engine(fresh_app: Flask, fresh_database: Database) -> BindingEngine:
    return fresh_app.extensions[EXTENSION].engine(fresh_database.tenant("eur"))


@pytest.fixture
def superuser(fresh_database: Database, wallet_id: UUID) -> Superuser:
    return superuser_of(fresh_database, "eur")


def texts(findings: list[Finding]) -> str:
    return "; ".join(finding.finding for finding in findings)


def test_a_pass_proves_all_and_the_next_one_only_what_is_new(
    fresh_app: Flask, engine: BindingEngine, wallet_id: UUID
) -> None:
    assert prove(engine) == []
    first = proof_of(fresh_app.extensions[EXTENSION], "eur")
    assert (first.wallets, first.movements, first.findings) == (1, 4, 0)
    posted(fresh_app, "eur", wallet_id, "d")
    assert prove(engine) == []
    second = proof_of(fresh_app.extensions[EXTENSION], "eur")
    assert (second.wallets, second.movements) == (1, 1)
    assert first.proven_at is not None
    assert second.proven_at is not None
    assert first.proven_at < second.proven_at
    assert second.full_proven_at == first.full_proven_at
    assert prove(engine, is_full=True) == []
    assert proof_of(fresh_app.extensions[EXTENSION], "eur").movements == 5


SEEN_AT_ONCE = {
    "a new movement": (  # It comes first, as the other passes prove it.
        "UPDATE wallet_transactions SET amount_minor = -2, balance_after_minor = balance_after_minor - 1 WHERE seq = 5",
        "hash does not match",
    ),
    "a balance": ("UPDATE wallets SET balance_minor = balance_minor + 1", "balance is not that of its last"),
    "what is held": ("UPDATE wallets SET held_minor = 5", "what is held is not what its holds say"),
    "the limit": ("UPDATE wallets SET credit_limit_minor = 5000", "limit or status"),
    "the end of the audit log": ("UPDATE audit_chain SET last_seq = last_seq + 1", "its chain says"),
    "an entry of the audit log": (
        "DELETE FROM audit_log WHERE seq = (SELECT max(seq) FROM audit_log)",
        "was removed or rewritten",
    ),
    "the wallet": ("DELETE FROM wallets", "the wallet is missing"),
}
SEEN_WEEKLY = {
    "an old amount": (
        "UPDATE wallet_transactions SET amount_minor = amount_minor - 1, balance_after_minor = balance_after_minor - 1"
        " WHERE seq = 2",
        "hash does not match",
    ),
    "an entry too many": (
        "INSERT INTO ledger_entries SELECT id, 2, 'sales', 'cash', 5 FROM wallet_transactions WHERE seq = 3",
        "it has an entry besides its own",
    ),
    "an entry of nothing": (
        "INSERT INTO ledger_entries VALUES (gen_random_uuid(), 1, 'cash', 'sales', 5)",
        "belongs to no transaction",
    ),
    "an old audit entry": ("UPDATE audit_log SET action = 'wallet.close' WHERE seq = 1", "audit log entry 1: hash"),
}


def tampered(
    superuser: Superuser,
    statement: str,
    prove_again: Callable[[], list[Finding]],
    want: str,
    repair: Callable[[], None],
) -> None:
    """The finding is there after the statement, and after the repair it is gone."""
    superuser.execute(statement.encode())
    found = texts(prove_again())
    assert want in found, (statement, found)
    repair()
    assert prove_again() == [], statement


@pytest.fixture
def kept(superuser: Superuser) -> Callable[[], None]:
    """Puts everything back as it was when it was last called."""
    tables = ("ledger_entries", "wallet_transactions", "wallets", "audit_log", "audit_chain", "holds")
    copied: list[bool] = []

    def put_back() -> None:
        for table in tables:
            if copied:
                superuser.execute(f"DELETE FROM {table}".encode())
                superuser.execute(f"INSERT INTO {table} TABLE pg_temp.kept_{table}".encode())
            else:
                superuser.execute(f"CREATE TEMP TABLE kept_{table} AS TABLE {table}".encode())
        copied.append(True)

    return put_back


def test_a_pass_over_what_is_new_finds_what_was_changed_at_the_ends(
    fresh_app: Flask, engine: BindingEngine, superuser: Superuser, wallet_id: UUID, kept: Callable[[], None]
) -> None:
    prove(engine)
    posted(fresh_app, "eur", wallet_id, "d")
    kept()
    for statement, want in SEEN_AT_ONCE.values():
        tampered(superuser, statement, lambda: prove(engine), want, kept)
    superuser.execute("DELETE FROM wallet_transactions WHERE seq = 5")
    assert "last transactions are missing" in texts(prove(engine))
    assert "what was proven until seq 5 was removed or rewritten" in texts(prove(engine))


def test_a_full_pass_finds_what_was_changed_in_old_rows(
    engine: BindingEngine, superuser: Superuser, kept: Callable[[], None]
) -> None:
    prove(engine)
    kept()
    for statement, want in SEEN_WEEKLY.values():
        tampered(superuser, statement, lambda: prove(engine, is_full=True), want, kept)


def test_an_old_row_that_was_found_wrong_is_found_by_the_next_small_pass_too(
    engine: BindingEngine, superuser: Superuser, wallet_id: UUID
) -> None:
    prove(engine)
    superuser.execute("UPDATE wallet_transactions SET description = 'forged' WHERE seq = 1")
    assert [(each.wallet_id, each.seq) for each in prove(engine, is_full=True)] == [(wallet_id, 1)]
    assert [(each.wallet_id, each.seq) for each in prove(engine)] == [(wallet_id, 1)]


def test_an_amount_with_all_hashes_made_again_differs_from_what_was_proven(
    engine: BindingEngine, superuser: Superuser, wallet_id: UUID
) -> None:
    prove(engine)
    superuser.execute(
        "UPDATE wallet_transactions SET balance_after_minor = balance_after_minor + 5,"
        " amount_minor = amount_minor + CASE seq WHEN 1 THEN 5 ELSE 0 END"
    )
    superuser.execute("UPDATE wallets SET balance_minor = balance_minor + 5")
    rehash(superuser, wallet_id)
    assert superuser.execute("SELECT * FROM ledger_audit_v5()").fetchall() == [], "the ledger alone does not show it"
    want = "what was proven until seq 4 was removed or rewritten"
    assert texts(prove(engine)) == want
    assert texts(prove(engine, is_full=True)) == want, "it stays until an operator has seen to it"
    superuser.execute("DELETE FROM wallet_proofs")
    assert prove(engine) == []


def test_steps_are_bounded_and_a_large_wallet_takes_several(
    fresh_app: Flask, engine: BindingEngine, superuser: Superuser, wallet_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    wallet_with_history(fresh_app, "eur")
    monkeypatch.setattr(service, "STEP_ROWS", 2)
    for number in range(3):
        posted(fresh_app, "eur", wallet_id, f"more {number}")
    steps = 1
    while prove_step(engine) is StepState.WORKING:
        steps += 1
    proof = proof_of(fresh_app.extensions[EXTENSION], "eur")
    assert (proof.wallets, proof.movements, proof.findings) == (2, 11, 0)
    assert steps > 6
    superuser.execute("UPDATE wallet_transactions SET description = 'x' WHERE wallet_id = %s AND seq = 3", (wallet_id,))
    assert [(each.wallet_id, each.seq) for each in prove(engine, is_full=True)] == [(wallet_id, 3)]


def test_a_pass_that_was_killed_goes_on_where_it_stopped(
    fresh_app: Flask, engine: BindingEngine, superuser: Superuser, monkeypatch: pytest.MonkeyPatch, wallet_id: UUID
) -> None:
    for _ in range(3):
        wallet_with_history(fresh_app, "eur")
    monkeypatch.setattr(service, "STEP_ROWS", 5)
    prove_step(engine)
    prove_step(engine)
    place = "SELECT phase, wallets, movements FROM proof_progress"
    assert superuser.execute(place).fetchall() == [("wallets", 2, 8)]
    with superuser.transaction(force_rollback=True):  # A step that dies with its connection leaves no trace.
        superuser.execute("SELECT proof_step_v1(5, interval '7 days')")
    assert superuser.execute(place).fetchall() == [("wallets", 2, 8)]
    assert prove(engine) == []
    assert proof_of(fresh_app.extensions[EXTENSION], "eur").movements == 16


def test_two_provers_do_not_wait_for_each_other(engine: BindingEngine, superuser: Superuser) -> None:
    assert prove_step(engine) is StepState.WORKING
    with superuser.transaction():
        superuser.execute("SELECT FROM proof_progress FOR UPDATE")
        assert prove_step(engine) is StepState.BUSY
    assert prove_step(engine) is not StepState.BUSY


def test_a_posting_does_not_wait_for_a_step(fresh_app: Flask, superuser: Superuser, wallet_id: UUID) -> None:
    with superuser.transaction():
        superuser.execute("SELECT proof_step_v1(500, interval '7 days')")
        posted(fresh_app, "eur", wallet_id, "meanwhile")


def test_no_login_can_forge_a_proof(fresh_app: Flask, fresh_database: Database, engine: BindingEngine) -> None:
    prove(engine)
    tenant = fresh_database.as_tenant("eur")
    for statement in (
        "UPDATE wallet_proofs SET seq = 99",
        "DELETE FROM proof_findings",
        "UPDATE proof_progress SET proven_at = now()",
        "UPDATE shared.tenant_proofs SET findings = 0",
        "SELECT * FROM shared.tenant_proofs",
        "SELECT proof_find_v1('wallet', 'x', NULL, NULL, 'x')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            tenant.execute(statement.encode())
    shared = fresh_app.extensions[EXTENSION].shared
    for statement in (
        "UPDATE shared.tenant_proofs SET proven_at = now()",
        "UPDATE shared.tenant_proofs SET findings = 0, first_finding = NULL",
        "DELETE FROM shared.tenant_proofs",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            shared.one_statement(statement, ())


def test_the_figures_name_the_oldest_proof_and_count_all_findings(
    fresh_app: Flask, engine: BindingEngine, superuser: Superuser
) -> None:
    superuser.execute("UPDATE wallets SET balance_minor = balance_minor + 1")
    prove(engine)
    superuser.execute("UPDATE shared.tenants SET created_at = now() - interval '3 days' WHERE slug = 'km'")
    with fresh_app.extensions[EXTENSION].shared.begin() as connection:
        figures = proof_figures(connection)
    assert (figures.findings, figures.failed_tenants) == (1, 0)
    assert timedelta(days=3).total_seconds() <= figures.oldest_age_seconds < timedelta(days=4).total_seconds()
