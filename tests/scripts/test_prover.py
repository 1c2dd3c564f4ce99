"""`python -m scripts.prover` proves all tenants once or until it is stopped, and shows their proofs."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from uuid import UUID

import httpx
import pytest
from flask import Flask

from tenant_schemas.testing.plugin import Database
from tests.factories.ports import free_port
from tests.factories.proofs import superuser_of, wallet_with_history
from tests.factories.script_runner import Run, environment


@pytest.fixture
def wallet_id(fresh_app: Flask) -> UUID:
    return wallet_with_history(fresh_app, "eur")[1]


@pytest.fixture
def heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PROVER_HEADS_DIR", str(tmp_path))
    monkeypatch.setenv("PROVER_BUDGET", "100")
    return tmp_path


@pytest.mark.parametrize("tenant_logins", ["own", "shared"])
def test_it_proves_every_tenant_signs_heads_and_exits_0(run: Run, wallet_id: UUID, heads: Path) -> None:
    done = run("prover", "--once", "--json")
    assert done.exit_code == 0, done.output
    assert [(row["slug"], row["wallets"], row["findings"]) for row in json.loads(done.output)] == [
        ("eur", 1, 0),
        ("km", 0, 0),
    ]
    assert len(list(heads.glob("*/heads-*.jsonl"))) == 2
    assert run("prover", "--status").exit_code == 0
    assert run("prover", "--findings", "eur").exit_code == 0


def test_a_finding_is_shown_with_its_place_and_exits_1(
    run: Run, wallet_id: UUID, heads: Path, fresh_database: Database
) -> None:
    superuser_of(fresh_database, "eur").execute("UPDATE wallets SET balance_minor = balance_minor + 1")
    done = run("prover", "--once", "--full", "--tenant", "eur", "--json")
    assert done.exit_code == 1
    (row,) = json.loads(done.output)
    assert (row["findings"], f"wallet {wallet_id} seq 4" in row["firstFinding"]) == (1, True)
    (finding,) = json.loads(run("prover", "--findings", "eur", "--json").output)
    assert (finding["walletId"], finding["seq"]) == (str(wallet_id), 4)
    assert "balance is not that of its last" in run("prover", "--findings", "eur").output
    shown = run("prover", "--status")
    assert (shown.exit_code, "2 tenants, 1 with faults" in shown.output) == (1, True)


def test_a_fault_of_the_feed_is_the_doctors_finding_too(
    run: Run, wallet_id: UUID, heads: Path, fresh_database: Database
) -> None:
    superuser_of(fresh_database, "eur").execute("DELETE FROM events WHERE type = 'wallet.deposit.posted.v1'")
    assert run("prover", "--once").exit_code == 1
    examined = run("doctor", "--json")
    assert examined.exit_code == 1
    assert f"wallet {wallet_id} seq 1: movement without its event" in examined.output


def test_an_old_proof_is_a_fault(run: Run, heads: Path, fresh_database: Database) -> None:
    assert run("prover", "--once").exit_code == 0
    fresh_database.as_superuser().execute("UPDATE shared.tenant_proofs SET proven_at = now() - interval '3 days'")
    assert run("prover", "--status").exit_code == 1
    assert "PROOF_MAX_AGE_SECONDS" in run("prover", "--status").output


def test_wrong_arguments_exit_2(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("prover", "--full").exit_code == 2
    assert run("prover", "--once", "--tenant", "unknown").exit_code == 2
    assert run("prover", "--findings", "unknown").exit_code == 2
    assert run("prover", "--once", "--metrics-port", "9103").exit_code == 2
    monkeypatch.setenv("PROVER_HEADS_DIR", "/nowhere/heads")
    assert run("prover", "--once").exit_code == 2


def test_it_runs_until_sigterm(fresh_database: Database, wallet_id: UUID, tmp_path: Path) -> None:
    variables = os.environ | environment(fresh_database) | {"PROVER_HEADS_DIR": str(tmp_path), "PROVER_BUDGET": "100"}
    superuser_of(fresh_database, "eur").execute("UPDATE wallets SET balance_minor = balance_minor + 1")
    port = free_port()
    command = [sys.executable, "-m", "scripts.prover", "--metrics-port", str(port)]
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE) as process:
        try:
            _wait(lambda: len(list(tmp_path.glob("*/heads-*.jsonl"))) == 2)
            _wait(lambda: "wallet_proof_findings 1.0" in httpx.get(f"http://127.0.0.1:{port}/metrics").text)
            process.send_signal(signal.SIGTERM)
            printed, _ = process.communicate(timeout=10)
        finally:
            process.kill()
    assert process.returncode == 0
    lines = [json.loads(line) for line in printed.splitlines()]
    assert [(line["event"], line["tenant"], line["wallet"]) for line in lines] == [
        ("proof_finding", "eur", str(wallet_id))
    ]


def _wait(holds: Callable[[], bool]) -> None:
    end = monotonic() + 20
    while not holds():
        assert monotonic() < end
        sleep(0.05)
