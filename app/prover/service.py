"""Steps of a tenant's proof, and what the proofs of all tenants say."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import sqlalchemy as sa

from app.db import tenants
from app.prover.models import TenantProof
from tenant_schemas.search_path import BindingEngine
from tenant_schemas.tenant import Tenant

FULL_PASS_AFTER: Final = timedelta(days=7)
STEP_ROWS: Final = 500  # wallets and movements, audit entries, orders or holds: about 50 ms
_STEP: Final = "SELECT proof_step_v1(%s, %s)"
_FAILURE_CHARACTERS: Final = 1000
_FINDINGS: Final = """
    SELECT kind, subject, wallet_id, seq, finding, found_at FROM proof_findings WHERE (kind, subject) > (%s, %s)
    ORDER BY kind, subject LIMIT 1000"""

_NEW_FINDINGS: Final = """
    SELECT f.wallet_id, f.seq, f.finding, f.found_at FROM proof_findings f, proof_progress p
    WHERE f.found_at >= p.proven_at ORDER BY f.found_at LIMIT 20"""


class StepState(StrEnum):
    """`busy`: another prover works on the tenant. `done`: the step ended a pass."""

    WORKING = "working"
    DONE = "done"
    BUSY = "busy"


@dataclass(frozen=True, slots=True)
class Proof:
    """A tenant's proof. Times are None if that never happened."""

    slug: str
    tenant_id: UUID
    made_at: datetime
    proven_at: datetime | None
    full_proven_at: datetime | None
    wallets: int
    movements: int
    findings: int
    first_finding: str | None
    failed_at: datetime | None
    failure: str | None
    heads_checked_at: datetime | None
    heads_finding: str | None


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of all tenants together. `oldest_age_seconds` is that of the tenant whose proof is oldest; a tenant
    that was never proven counts from its making. `findings` includes those of the signed heads.
    """

    oldest_age_seconds: float
    findings: int
    failed_tenants: int


def prove_step(engine: BindingEngine, *, is_full: bool = False) -> StepState:
    """Prove some more rows of a tenant, in a db transaction that is committed when this returns. `is_full` says that a
    pass which begins now reads all rows.

    Locks the row of the tenant's progress, and none that a posting needs. Raises psycopg.Error.
    """
    full_after = timedelta(0) if is_full else FULL_PASS_AFTER
    ((state,),) = engine.one_statement(_STEP, (STEP_ROWS, full_after))
    return StepState(state)


def note_failure(connection: sa.Connection, tenant: Tenant, failure: str) -> None:
    """Write why a tenant's pass could not go on; the next pass that ends takes it away. Commits nothing."""
    _note(connection, tenant, "failed_at", "failure", failure[:_FAILURE_CHARACTERS])


def note_heads(connection: sa.Connection, tenant: Tenant, finding: str | None) -> None:
    """Write what the check of the tenant's signed heads found; None if the chains are as they say. Commits nothing."""
    _note(connection, tenant, "heads_checked_at", "heads_finding", finding)


def _note(connection: sa.Connection, tenant: Tenant, moment: str, column: str, text: str | None) -> None:
    """The tenant may have been dropped meanwhile: then there is nothing to write."""
    connection.exec_driver_sql(
        f"INSERT INTO shared.tenant_proofs AS p (tenant_id, {moment}, {column})"  # noqa: S608
        " SELECT t.id, clock_timestamp(), %s FROM shared.tenants t WHERE t.id = %s"
        f" ON CONFLICT (tenant_id) DO UPDATE SET {moment} = excluded.{moment}, {column} = excluded.{column}",
        (text, tenant.id),
    )


def read_proofs(connection: sa.Connection) -> list[Proof]:
    """The proofs of all tenants, the oldest first; those that were never proven come before."""
    proof = TenantProof
    columns = (
        *(tenants.c.slug, tenants.c.id, tenants.c.created_at, proof.proven_at, proof.full_proven_at),
        *(sa.func.coalesce(count, 0) for count in (proof.wallets, proof.movements, proof.findings)),
        *(proof.first_finding, proof.failed_at, proof.failure, proof.heads_checked_at, proof.heads_finding),
    )
    query = (
        sa.select(*columns)
        .select_from(tenants.outerjoin(proof.__table__))
        .order_by(proof.proven_at.nulls_first(), tenants.c.slug)
    )
    return [Proof(*row) for row in connection.execute(query)]


def proof_figures(connection: sa.Connection) -> Figures:
    """The figures for metrics, from one query without a tenant's connection."""
    proof = TenantProof
    age = sa.extract("epoch", sa.func.clock_timestamp() - sa.func.coalesce(proof.proven_at, tenants.c.created_at))
    found = sa.func.coalesce(proof.findings, 0) + sa.case((proof.heads_finding.is_not(None), 1), else_=0)
    query = sa.select(
        sa.func.coalesce(sa.func.max(age), 0), sa.func.coalesce(sa.func.sum(found), 0), sa.func.count(proof.failed_at)
    ).select_from(tenants.outerjoin(proof.__table__))
    oldest, findings, failed = connection.execute(query).one()
    return Figures(float(oldest), int(findings), int(failed))


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault: at one movement of one wallet, or of the whole tenant if both are None."""

    wallet_id: UUID | None
    seq: int | None
    finding: str
    found_at: datetime


def read_findings(engine: BindingEngine) -> Iterator[Finding]:
    """The findings of one tenant, read in batches. Raises psycopg.Error."""
    kind = subject = ""
    while True:
        rows = engine.one_statement(_FINDINGS, (kind, subject))
        for row in rows:
            yield Finding(*row[2:])
        if not rows:
            return
        kind, subject = rows[-1][:2]


def new_findings(engine: BindingEngine) -> list[Finding]:
    """The first findings that are new since the pass that ended last began. Raises psycopg.Error."""
    return [Finding(*row) for row in engine.one_statement(_NEW_FINDINGS, ())]
