"""Signed heads are written whole, once a day, and only they show a history that was cut off or rewritten with all that
the database knows of it.
"""

import json
from datetime import date
from pathlib import Path
from uuid import UUID

import pytest
from flask import Flask

from app.prover import heads
from app.prover.heads import newest_file, path_of_today, write_heads
from app.prover.heads_check import check_heads
from app.signing_keys import KeyRing, make_key, parse_keys
from tenant_schemas.flask import EXTENSION
from tenant_schemas.search_path import BindingEngine
from tenant_schemas.tenant import Tenant
from tenant_schemas.testing.plugin import Database
from tests.conftest import SIGNING_KEYS
from tests.factories.proofs import (
    Superuser,
    forget_newest,
    posted,
    proof_of,
    prove,
    prover_of,
    rehash,
    states,
    superuser_of,
    wallet_with_history,
)

RING = parse_keys(SIGNING_KEYS)


def going_on() -> bool:
    return True


@pytest.fixture
def wallet_id(fresh_app: Flask) -> UUID:
    return wallet_with_history(fresh_app, "eur")[1]


@pytest.fixture
def tenant(fresh_database: Database) -> Tenant:
    return fresh_database.tenant("eur")


@pytest.fixture
def engine(fresh_app: Flask, tenant: Tenant, wallet_id: UUID) -> BindingEngine:
    engine: BindingEngine = fresh_app.extensions[EXTENSION].engine(tenant)
    prove(engine)
    return engine


@pytest.fixture
def superuser(fresh_database: Database) -> Superuser:
    return superuser_of(fresh_database, "eur")


@pytest.fixture
def signed(engine: BindingEngine, tenant: Tenant, tmp_path: Path) -> Path:
    path = write_heads(engine, tenant, tmp_path, RING.signer(), going_on)
    assert path is not None
    return path


def check(engine: BindingEngine, tenant: Tenant, path: Path, ring: KeyRing = RING) -> str | None:
    return check_heads(engine, tenant, path, ring, going_on)


def test_a_file_has_each_wallets_head_and_the_audit_logs(
    engine: BindingEngine, tenant: Tenant, signed: Path, wallet_id: UUID
) -> None:
    about, wallet, log, signature = map(json.loads, signed.read_text().splitlines())
    assert (about["format"], about["tenantId"], about["previous"]) == ("wallet-chain-heads", str(tenant.id), None)
    assert (wallet["walletId"], wallet["seq"], len(wallet["hash"])) == (str(wallet_id), 4, 64)
    assert log["auditLog"]["seq"] > 0
    assert signature["kid"] == RING.signer().kid
    assert check(engine, tenant, signed) is None


def test_a_file_is_written_once_and_whole(
    engine: BindingEngine, tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert write_heads(engine, tenant, tmp_path, RING.signer(), lambda: False) is None
    assert newest_file(tmp_path, tenant) is None
    path_of_today(tmp_path, tenant).with_name("heads-2026-01-01.0a1b2c3d.tmp").write_text("a killed prover's")

    def taken(scratch: Path, path: Path) -> None:
        Path(path).write_text("another prover's")
        raise FileExistsError

    with monkeypatch.context() as other:
        other.setattr(heads.os, "link", taken)
        assert write_heads(engine, tenant, tmp_path, RING.signer(), going_on) is None
    assert path_of_today(tmp_path, tenant).read_text() == "another prover's"
    assert write_heads(engine, tenant, tmp_path, RING.signer(), going_on) is None
    assert [path.name for path in path_of_today(tmp_path, tenant).parent.iterdir()] == [
        path_of_today(tmp_path, tenant).name
    ]


def test_a_file_names_the_one_before(engine: BindingEngine, tenant: Tenant, signed: Path, tmp_path: Path) -> None:
    yesterday = signed.rename(signed.with_name("heads-2026-01-01.jsonl"))
    today = write_heads(engine, tenant, tmp_path, RING.signer(), going_on)
    assert today is not None
    assert json.loads(today.read_text().splitlines()[0])["previous"]["file"] == yesterday.name
    assert newest_file(tmp_path, tenant) == today
    assert date.fromisoformat(today.stem.removeprefix("heads-"))


def test_only_the_signed_heads_show_that_the_newest_movement_is_gone(
    engine: BindingEngine, tenant: Tenant, signed: Path, superuser: Superuser, wallet_id: UUID
) -> None:
    forget_newest(superuser, wallet_id)
    assert superuser.execute("SELECT * FROM ledger_audit_v5()").fetchall() == []
    assert prove(engine, is_full=True) == []
    assert check(engine, tenant, signed) == f"wallet {wallet_id} seq 4 was removed since {signed.name} was signed"


def test_only_the_signed_heads_show_a_history_that_was_rewritten(
    engine: BindingEngine, tenant: Tenant, signed: Path, superuser: Superuser, wallet_id: UUID
) -> None:
    superuser.execute("UPDATE wallet_transactions SET description = 'forged' WHERE seq = 2")
    rehash(superuser, wallet_id)
    superuser.execute("DELETE FROM wallet_proofs")
    assert prove(engine, is_full=True) == []
    assert check(engine, tenant, signed) == f"wallet {wallet_id} seq 4 was rewritten since {signed.name} was signed"


def test_an_audit_log_that_was_cut_off_is_found(
    engine: BindingEngine, tenant: Tenant, signed: Path, superuser: Superuser
) -> None:
    superuser.execute("DELETE FROM audit_log WHERE seq = (SELECT max(seq) FROM audit_log)")
    assert "audit log entry" in str(check(engine, tenant, signed))


def test_a_changed_file_is_found(
    engine: BindingEngine,
    tenant: Tenant,
    signed: Path,
    fresh_database: Database,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = signed.read_text()
    signed.write_text(text.replace('"seq":4', '"seq":3'))
    assert "signature does not cover" in str(check(engine, tenant, signed))
    signed.write_text(text[:-20])
    assert "damaged" in str(check(engine, tenant, signed))
    signed.write_text(text)
    assert "another tenant's" in str(check(engine, fresh_database.tenant("km"), signed))
    capsys.readouterr()
    assert check(engine, tenant, signed, KeyRing([make_key(0)])) is None, "the key was removed: the heads still count"
    assert json.loads(capsys.readouterr().out)["kid"] == RING.signer().kid


def test_the_loop_signs_no_new_heads_while_the_last_ones_disagree(
    fresh_app: Flask, superuser: Superuser, wallet_id: UUID, tenant: Tenant, tmp_path: Path
) -> None:
    prover = prover_of(fresh_app.extensions[EXTENSION], tmp_path)
    assert states(prover.run_round()) == {"eur": "done", "km": "done"}
    signed = path_of_today(tmp_path, tenant)
    yesterday = signed.rename(signed.with_name("heads-2026-01-01.jsonl"))
    forget_newest(superuser, wallet_id)
    prover.run_round()
    found = proof_of(prover.connections, "eur")
    assert "seq 4 was removed" in str(found.heads_finding)
    assert newest_file(tmp_path, tenant) == yesterday
    yesterday.unlink()
    prover.run_round()
    assert proof_of(prover.connections, "eur").heads_finding is None
    assert newest_file(tmp_path, tenant) == signed


def test_heads_are_proven_ones(
    fresh_app: Flask, engine: BindingEngine, tenant: Tenant, wallet_id: UUID, tmp_path: Path
) -> None:
    posted(fresh_app, "eur", wallet_id, "not proven yet")
    path = write_heads(engine, tenant, tmp_path, RING.signer(), going_on)
    assert path is not None
    assert json.loads(path.read_text().splitlines()[1])["seq"] == 4
