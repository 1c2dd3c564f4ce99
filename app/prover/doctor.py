"""What the prover found, as findings of the doctor."""

from collections.abc import Iterator
from typing import Final

import sqlalchemy as sa

from app.prover.policy import faults_of, is_grave
from app.prover.service import read_proofs
from tenant_schemas.doctor import Finding, Severity

CHECK: Final = "proofs"
_REMEDY: Final = (
    "Run `python -m scripts.prover --findings {slug}` and `flask wallets audit --tenant {slug}`, and see to what they"
    " name; `python -m scripts.prover` keeps proofs young."
)


def proof_findings(connection: sa.Connection, max_age_seconds: float) -> Iterator[Finding]:
    """An error for books that are not as they were, a warning for a proof that failed or is old. Nothing if `shared`
    has no proofs yet: then the check of revisions says so.
    """
    if not connection.exec_driver_sql("SELECT to_regclass('shared.tenant_proofs') IS NOT NULL").scalar_one():
        return
    for proof in read_proofs(connection):
        severity = Severity.ERROR if is_grave(proof) else Severity.WARNING
        for fault in faults_of(proof, max_age_seconds):
            yield Finding(severity, CHECK, f"tenant {proof.slug}", fault, _REMEDY.format(slug=proof.slug))
