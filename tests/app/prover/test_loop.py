"""The loop proves all tenants within its budget; one tenant's failure is one outcome, and stops no other."""

from datetime import timedelta
from time import monotonic

import pytest
from flask import Flask

from app.prover import loop, service
from app.prover.budget import Budget
from app.prover.loop import Prover
from app.prover.service import StepState, prove_step
from tenant_schemas.flask import EXTENSION
from tenant_schemas.testing.plugin import Database
from tests.factories.proofs import proof_of, prover_of, states, superuser_of, wallet_with_history
from tests.factories.telemetry import sample
from tests.factories.tenants import archive_tenant, mark, mark_template  # noqa: F401


@pytest.fixture
def prover(fresh_app: Flask) -> Prover:
    return prover_of(fresh_app.extensions[EXTENSION])


def test_a_broken_tenant_is_one_outcome_and_its_next_proof_takes_the_failure_away(
    prover: Prover, fresh_database: Database
) -> None:
    superuser = superuser_of(fresh_database, "eur")
    superuser.execute("ALTER TABLE wallet_proofs RENAME TO away")
    assert states(prover.run_round()) == {"eur": "failed", "km": "done"}
    assert "wallet_proofs" in str(proof_of(prover.connections, "eur").failure)
    superuser.execute("ALTER TABLE away RENAME TO wallet_proofs")
    assert states(prover.run_round()) == {"eur": "done", "km": "done"}
    assert proof_of(prover.connections, "eur").failure is None


def test_a_schema_that_is_behind_is_told_to_be_migrated(prover: Prover, fresh_database: Database) -> None:
    superuser_of(fresh_database, "eur").execute("DROP FUNCTION proof_step_v1")
    assert states(prover.run_round()) == {"eur": "failed", "km": "done"}
    assert "scripts.migrate" in str(proof_of(prover.connections, "eur").failure)


def test_a_locked_tenant_stops_no_other(
    fresh_app: Flask, fresh_database: Database, monkeypatch: pytest.MonkeyPatch, prover: Prover
) -> None:
    with fresh_database.as_superuser() as superuser, superuser.transaction():
        superuser.execute("UPDATE shared.tenants SET settings = settings || '{\"statement_timeout_ms\": 200}'")
    with superuser_of(fresh_database, "eur") as superuser, superuser.transaction():
        superuser.execute("LOCK TABLE wallets IN ACCESS EXCLUSIVE MODE")
        assert states(prover.run_round()) == {"eur": "failed", "km": "done"}
    assert "statement timeout" in str(proof_of(prover.connections, "eur").failure)


@pytest.mark.usefixtures("mark")
def test_an_archived_tenant_is_proven_and_a_dropped_one_is_left_out(prover: Prover, fresh_database: Database) -> None:
    assert states(prover.run_round())["mark"] == "done"
    archive_tenant(fresh_database)
    assert states(prover.run_round())["mark"] == "done"
    due = prover._due(())
    superuser = fresh_database.as_superuser()
    superuser.execute("DELETE FROM shared.tenants WHERE slug = 'mark'")
    superuser.execute("DROP SCHEMA mark_schema CASCADE")
    (dropped,) = [tenant for tenant in due if tenant.slug == "mark"]
    outcome = prover._turn(dropped)
    assert outcome is not None
    assert outcome.state == "failed", "it was dropped between its choice and its turn"
    assert set(states(prover.run_round())) == {"eur", "km"}


def test_two_provers_share_the_tenants(
    prover: Prover, fresh_app: Flask, fresh_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    superuser = superuser_of(fresh_database, "eur")
    prove_step(prover.connections.engine(fresh_database.tenant("eur")))
    with superuser.transaction():
        superuser.execute("SELECT FROM proof_progress FOR UPDATE")
        assert states(prover.run_round()) == {"eur": "busy", "km": "done"}
    assert states(prover.run_round()) == {"eur": "done", "km": "done"}
    idle = prover_of(prover.connections, every=timedelta(hours=1))
    assert idle.run_round() == [], "both were proven within the hour"


def test_a_large_tenant_gives_way_after_its_turn_and_a_stop_ends_the_round_between_steps(
    prover: Prover, fresh_app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        wallet_with_history(fresh_app, "eur")
    monkeypatch.setattr(service, "STEP_ROWS", 2)
    monkeypatch.setattr(loop, "TURN_STEPS", 2)
    assert [outcome.slug for outcome in prover.run_round()] == ["km", "eur"]

    def stopping(*_: object, **__: object) -> StepState:
        prover.stop.set()
        return StepState.WORKING

    monkeypatch.setattr(loop, "prove_step", stopping)
    assert states(prover.run_round()) == {"eur": "stopped", "km": "stopped"}


def test_the_budget_rests_for_the_share_of_a_step(prover: Prover) -> None:
    budget = Budget(25, prover.stop)
    budget.start()
    began = monotonic()
    while monotonic() - began < 0.02:
        pass
    assert budget.spend()
    assert 0.08 <= monotonic() - began < 0.4
    prover.stop.set()
    assert not budget.spend()


def test_the_metrics_are_those_of_all_tenants(prover: Prover, fresh_database: Database) -> None:
    superuser = superuser_of(fresh_database, "eur")
    superuser.execute("DELETE FROM events_head")
    prover.run_round()
    superuser.execute("UPDATE shared.tenant_proofs SET proven_at = proven_at - interval '1 hour'")
    prover.measure()
    assert sample("wallet_proof_findings") == 1
    assert 3600 <= sample("wallet_proof_age_seconds") < 3700
