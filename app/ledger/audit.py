"""Recomputes every chain, balance and trial balance of a tenant and names the first row that does not hold.

The work is the tenant's SQL function ledger_audit_v3: one statement, one snapshot, so money may move meanwhile.
"""

from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa

from app.db import db


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not hold: at one transaction of one wallet, or for the whole tenant without them."""

    wallet_id: UUID | None
    seq: int | None
    text: str


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What was looked at in one tenant, and what was found."""

    wallets: int
    transactions: int
    findings: tuple[Finding, ...]


def audit_ledger() -> AuditReport:
    """Audit the bound tenant. Writes nothing, locks nothing; takes as long as the ledger is large."""
    db.session.execute(sa.text("SET LOCAL statement_timeout TO 0"))
    counts = sa.text("SELECT (SELECT count(*) FROM wallets), (SELECT count(*) FROM wallet_transactions)")
    wallets, transactions = db.session.execute(counts).one()
    query = sa.text("SELECT wallet_id, seq, finding FROM ledger_audit_v3() ORDER BY wallet_id, seq")
    findings = tuple(Finding(*row) for row in db.session.execute(query))
    db.session.commit()
    return AuditReport(wallets, transactions, findings)
