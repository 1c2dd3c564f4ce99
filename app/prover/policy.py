"""What is wrong with a tenant's proof."""

from datetime import UTC, datetime

from app.prover.service import Proof


def faults_of(proof: Proof, max_age_seconds: float) -> list[str]:
    """In words, the gravest first. A tenant that was never proven counts from its making."""
    faults = []
    if proof.findings:
        faults.append(f"{proof.findings} findings, the first: {proof.first_finding}")
    if proof.heads_finding:
        faults.append(f"the signed heads disagree: {proof.heads_finding}")
    if proof.failure:
        faults.append(f"the proof failed: {proof.failure}")
    age = (datetime.now(UTC) - (proof.proven_at or proof.made_at)).total_seconds()
    if age > max_age_seconds:
        when = f"proven {age:.0f} seconds ago" if proof.proven_at else "never proven"
        faults.append(f"{when}, and the limit is {max_age_seconds:.0f} (PROOF_MAX_AGE_SECONDS)")
    return faults


def is_grave(proof: Proof) -> bool:
    """Whether the tenant's books are not as they were: a finding, and no mere delay."""
    return bool(proof.findings or proof.heads_finding)
