"""`scripts/prove_statement.py` proves a statement in a bare directory, without any of the service's modules."""

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask

from app.config import ROOT
from app.ledger.models import Movement
from app.ledger.service import post
from app.prover.heads import write_heads
from app.signing_keys import KeyRing, make_key, parse_keys
from tenant_schemas.flask import EXTENSION, tenant_context
from tenant_schemas.testing.plugin import Database
from tests.conftest import SIGNING_KEYS
from tests.factories.api import Api
from tests.factories.proofs import (
    Superuser,
    forget_newest,
    posted,
    prove,
    rehash,
    superuser_of,
    wallet_with_history,
)

RING = parse_keys(SIGNING_KEYS)
# Every character that PostgreSQL quotes in a row or escapes in jsonb.
AWKWARD = ' "quoted" (x), back\\slash, ćš € and\ttabs,\nlines: "" '
Statement = Callable[..., dict[str, Any]]
Judge = Callable[..., tuple[int, str]]


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A directory with the script and the published keys, and nothing else."""
    shutil.copy(ROOT / "scripts" / "prove_statement.py", tmp_path)
    (tmp_path / "jwks.json").write_text(json.dumps(RING.published))
    return tmp_path


@pytest.fixture
def judge(bare: Path) -> Judge:
    def run(statement: dict[str, Any], heads: Path, keys: str = "jwks.json") -> tuple[int, str]:
        (bare / "statement.json").write_text(json.dumps(statement))
        command = [sys.executable, "-I", "prove_statement.py", "--statement", "statement.json"]
        done = subprocess.run(
            [*command, "--heads", str(heads), "--keys", keys], cwd=bare, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.fixture
def owner(fresh_app: Flask) -> tuple[Any, UUID]:
    person, wallet_id = wallet_with_history(fresh_app, "eur")
    with fresh_app.app_context(), tenant_context("eur"):
        post(
            wallet_id,
            Movement(
                type="payment", amount_minor=5, idempotency_key=AWKWARD, order_id=uuid4().hex, description=AWKWARD
            ),
        )
    return person, wallet_id


@pytest.fixture
def statement(fresh_app: Flask, owner: tuple[Any, UUID]) -> Statement:
    def take(start: str = "2020-01-01T00:00:00Z", **changed: Any) -> dict[str, Any]:
        query = {"from": start, "to": "2099-01-01T00:00:00Z", "proof": "true"} | changed
        answer = Api(fresh_app).get("/api/wallet/statement", owner[0], "eur", query_string=query)
        assert answer.status_code == 200
        shown: dict[str, Any] = json.loads(answer.get_data())
        return shown

    return take


@pytest.fixture
def superuser(fresh_database: Database, owner: tuple[Any, UUID]) -> Superuser:
    return superuser_of(fresh_database, "eur")


@pytest.fixture
def sign(fresh_app: Flask, fresh_database: Database, owner: tuple[Any, UUID], bare: Path) -> Callable[[], Path]:
    def signed() -> Path:
        tenant = fresh_database.tenant("eur")
        engine = fresh_app.extensions[EXTENSION].engine(tenant)
        assert prove(engine) == []
        path = write_heads(engine, tenant, bare / uuid4().hex, RING.signer(), lambda: True)
        assert path is not None
        return path

    return signed


def test_it_imports_nothing_of_ours() -> None:
    tree = ast.parse((ROOT / "scripts" / "prove_statement.py").read_text())
    names = {
        alias.name.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    names |= {(node.module or ".").partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names - sys.stdlib_module_names == {"cryptography"}


def test_it_explains_itself(bare: Path) -> None:
    command = [sys.executable, "-I", "prove_statement.py", "--help"]
    said = subprocess.run(command, cwd=bare, capture_output=True, text=True, check=True).stdout
    assert "usage" in said
    assert "Exit codes: " in said


def test_a_statement_is_proven_until_the_signed_head(
    fresh_app: Flask, judge: Judge, sign: Callable[[], Path], statement: Statement, owner: tuple[Any, UUID]
) -> None:
    heads = sign()
    whole = statement()
    assert judge(whole, heads)[0] == 0
    part = statement(start=whole["movements"][2]["createdAt"])
    assert [line["seq"] for line in part["movements"]] == [3, 4, 5]
    code, said = judge(part, heads)
    assert (code, "until seq 5" in said, "not signed" in said) == (0, True, False)
    posted(fresh_app, "eur", owner[1], "later")
    code, said = judge(statement(), heads)
    assert (code, "until seq 6, continue the chain and are not signed yet" in said) == (0, True)


def test_without_proof_a_statement_is_as_ever(statement: Statement, judge: Judge, sign: Callable[[], Path]) -> None:
    plain = statement(proof="false")
    assert "previousHash" not in plain
    assert all("proof" not in line for line in plain["movements"])
    assert "without proof" in judge(plain, sign())[1]


def test_each_change_of_a_statement_is_found(judge: Judge, sign: Callable[[], Path], statement: Statement) -> None:
    heads, whole = sign(), statement()
    changed: list[Callable[[dict[str, Any]], object]] = [
        lambda shown: shown["movements"].pop(2),
        lambda shown: shown["movements"].pop(),
        lambda shown: shown["movements"][1].update(description="other"),
        lambda shown: shown["movements"][1].update(amount="-3.01", balanceAfter="6.99"),
        lambda shown: shown["movements"][1].update(createdAt="2026-01-01T00:00:00.000000Z"),
        lambda shown: shown.update(openingBalance="1.00"),
        lambda shown: shown.update(closingBalance="1.00"),
        lambda shown: shown.update(previousHash="00" * 32),
        lambda shown: shown.update(currency="USD"),
        lambda shown: shown.update(closingBalance=respelt(shown["closingBalance"])),
        lambda shown: shown["movements"][0].update(amount=respelt(shown["movements"][0]["amount"])),
    ]
    for number, change in enumerate(changed):
        copy = json.loads(json.dumps(whole))
        change(copy)
        code, said = judge(copy, heads)
        assert (code, "NOT PROVEN" in said) == (1, True), (number, said)


def test_a_history_that_the_owner_rewrote_with_all_hashes_is_found(
    judge: Judge, sign: Callable[[], Path], statement: Statement, superuser: Superuser, owner: tuple[Any, UUID]
) -> None:
    heads = sign()
    superuser.execute("UPDATE wallet_transactions SET description = 'forged' WHERE seq = 2")
    rehash(superuser, owner[1])
    assert superuser.execute("SELECT * FROM ledger_audit_v5()").fetchall() == []
    code, said = judge(statement(), heads)
    assert (code, "the history was rewritten" in said) == (1, True)


def test_a_newest_movement_that_is_gone_is_found(
    judge: Judge, sign: Callable[[], Path], statement: Statement, superuser: Superuser, owner: tuple[Any, UUID]
) -> None:
    heads = sign()
    forget_newest(superuser, owner[1])
    code, said = judge(statement(), heads)
    assert (code, "the signed head is seq 5" in said) == (1, True)


def test_movements_of_before_release_0_2_are_proven_too(
    judge: Judge, sign: Callable[[], Path], statement: Statement, superuser: Superuser, owner: tuple[Any, UUID]
) -> None:
    superuser.execute(
        "INSERT INTO ledger_entries SELECT id, 1, debit_account, credit_account, abs(amount_minor)"
        " FROM wallet_transactions WHERE seq < 6"
    )
    superuser.execute("UPDATE wallet_transactions SET debit_account = NULL, credit_account = NULL")
    superuser.execute(
        """DO $$
        DECLARE head bytea; t wallet_transactions;
        BEGIN
            SELECT wallet_genesis_hash_v1(id, user_id, currency) INTO head FROM wallets;
            FOR t IN SELECT * FROM wallet_transactions ORDER BY seq LOOP
                head := wallet_transaction_hash_v1(head, t, (
                    SELECT jsonb_agg(jsonb_build_array(e.entry_no, e.debit_account, e.credit_account, e.amount_minor))
                    FROM ledger_entries e WHERE e.transaction_id = t.id));
                UPDATE wallet_transactions SET hash = head WHERE id = t.id;
            END LOOP;
            UPDATE wallets SET last_hash = head;
        END $$"""
    )
    code, said = judge(statement(), sign())
    assert code == 0, said


def respelt(amount: str) -> str:
    """The same digits with the point elsewhere: a hundred times as much."""
    return amount.replace(".", "") + "."


def test_nothing_in_the_line_of_the_signature_is_a_head(
    judge: Judge, sign: Callable[[], Path], statement: Statement
) -> None:
    """The signature covers the lines before it only."""
    heads, whole = sign(), statement()
    *lines, last = heads.read_text().splitlines()
    first = whole["movements"][0]
    invented = json.loads(last) | {"walletId": whole["walletId"], "seq": 1, "hash": first["proof"]["hash"]}
    heads.write_text("\n".join([*lines, json.dumps(invented)]) + "\n")
    code, said = judge(whole, heads)
    assert (code, "until seq 5" in said) == (0, True), "the signed head counts"
    cut = whole | {"movements": [first], "closingBalance": first["balanceAfter"]}
    code, said = judge(cut, heads)
    assert (code, "NOT PROVEN" in said) == (1, True), said


def test_heads_that_were_changed_or_that_another_key_signed_prove_nothing(
    judge: Judge, sign: Callable[[], Path], statement: Statement, bare: Path
) -> None:
    heads, whole = sign(), statement()
    text = heads.read_text()
    heads.write_text(text.replace('"seq":5', '"seq":4'))
    assert "signature does not cover" in judge(whole, heads)[1]
    heads.write_text(text)
    (bare / "other.json").write_text(json.dumps(KeyRing([make_key(0)]).published))
    code, said = judge(whole, heads, "other.json")
    assert (code, "which is not in other.json" in said) == (1, True)
    assert judge(whole, bare / "nowhere")[0] == 2
