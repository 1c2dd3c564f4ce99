"""The prover's loop: rounds over all tenants, in turns of some steps, within a budget of time. Any number of provers
may run: a tenant that another one works on is left to it.
"""

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Final

import psycopg
import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.metrics.definitions import PROOF_AGE, PROOF_FINDINGS
from app.prover.budget import Budget
from app.prover.heads import newest_file, path_of_today, write_heads
from app.prover.heads_check import check_heads
from app.prover.service import (
    StepState,
    new_findings,
    note_failure,
    note_heads,
    proof_figures,
    prove_step,
    read_proofs,
)
from app.signing_keys import KeySource
from tenant_schemas.connections import Connections
from tenant_schemas.errors import TenancyError
from tenant_schemas.registry import all_tenants
from tenant_schemas.tenant import Tenant

log = structlog.get_logger(__name__)

TURN_STEPS: Final = 50  # of one tenant before the next has its turn, so that a large one delays no other for long
# A tenant's connection may be gone, its schema behind or locked, its file's folder full.
FAILURES: Final = (psycopg.Error, SQLAlchemyError, TenancyError, OSError)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a tenant in a round: `done`, `busy` (another prover has it), `stopped` or `failed`."""

    slug: str
    state: str
    failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prover:
    """Proves the tenants of an installation. It reads each under the tenant's own login."""

    connections: Connections
    keys: KeySource
    budget: Budget
    stop: Event
    heads_dir: Path | None
    every: timedelta
    is_full: bool = False

    def run_round(self, slugs: tuple[str, ...] = ()) -> list[Outcome]:
        """Prove each tenant whose last pass began longer ago than `every`, or these tenants, once; sign the heads that
        are due. One tenant's failure is its outcome, and stops no other. Raises the shared side's errors.
        """
        waiting = deque(self._due(slugs))
        outcomes = []
        self.budget.start()
        while waiting and not self.stop.is_set():
            tenant = waiting.popleft()
            outcome = self._turn(tenant)
            if outcome is None:
                waiting.append(tenant)
            else:
                outcomes.append(outcome)
        return [*outcomes, *(Outcome(tenant.slug, "stopped") for tenant in waiting)]

    def measure(self) -> None:
        """Set the metrics to what the proofs of all tenants say now. Raises the shared side's errors."""
        with self.connections.shared.begin() as connection:
            figures = proof_figures(connection)
        PROOF_AGE.set(figures.oldest_age_seconds)
        PROOF_FINDINGS.set(figures.findings)

    def _due(self, slugs: tuple[str, ...]) -> list[Tenant]:
        with self.connections.shared.begin() as connection:
            known = {tenant.id: tenant for tenant in all_tenants(connection)}
            proofs = read_proofs(connection)
        self.connections.refresh(self.connections.known_tenants(), known.values())
        before = datetime.now(UTC) - self.every
        return [
            known[proof.tenant_id]
            for proof in proofs
            if proof.tenant_id in known
            and (proof.slug in slugs if slugs else proof.proven_at is None or proof.proven_at < before)
        ]

    def _turn(self, tenant: Tenant) -> Outcome | None:
        """Some steps of a tenant; None if its pass goes on in a later turn."""
        try:
            engine = self.connections.engine(tenant)
            for _ in range(TURN_STEPS):
                state = prove_step(engine, is_full=self.is_full)
                goes_on = self.budget.spend()
                if state is StepState.DONE:
                    self._tell(tenant)
                    self._sign(tenant)
                if state is not StepState.WORKING:
                    return Outcome(tenant.slug, state.value)
                if not goes_on:
                    return Outcome(tenant.slug, "stopped")
        except FAILURES as error:
            return self._fail(tenant, error)
        return None

    def _tell(self, tenant: Tenant) -> None:
        for finding in new_findings(self.connections.engine(tenant)):
            about = {"wallet": str(finding.wallet_id), "seq": finding.seq}
            log.error("proof_finding", tenant=tenant.slug, finding=finding.finding, **about)

    def _sign(self, tenant: Tenant) -> None:
        """Once a day: compare the chains with the newest signed heads, and sign those of today. While the chains differ
        from a file, no new one is signed, so that the evidence stays the newest.
        """
        if self.heads_dir is None or path_of_today(self.heads_dir, tenant).exists():
            return
        engine, ring = self.connections.engine(tenant), self.keys()
        newest = newest_file(self.heads_dir, tenant)
        finding = check_heads(engine, tenant, newest, ring, self.budget.spend) if newest else None
        if self.stop.is_set():
            return
        with self.connections.shared.begin() as connection:
            note_heads(connection, tenant, finding)
        if finding:
            log.error("heads_differ", tenant=tenant.slug, finding=finding)
        else:
            write_heads(engine, tenant, self.heads_dir, ring.signer(), self.budget.spend)

    def _fail(self, tenant: Tenant, error: Exception) -> Outcome:
        failure = " ".join(str(getattr(error, "orig", None) or error).split())
        if isinstance(error, psycopg.errors.UndefinedFunction):
            failure = f"its schema is at revision {tenant.revision}, without proofs: run `python -m scripts.migrate`"
        log.error("proof_failed", tenant=tenant.slug, failure=failure)
        with self.connections.shared.begin() as connection:
            note_failure(connection, tenant, failure)
        return Outcome(tenant.slug, "failed", failure)
