"""The audit of a tenant's ledger and of its feed: it recomputes every chain, balance and the trial balance, compares
the events with what they tell of, and names the first row that is wrong.

The tenant's SQL functions ledger_audit_v5 and events_audit_v1 do the work, each in one statement on one snapshot, so
postings may go on.
"""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

import sqlalchemy as sa

from app.db import db

_EVENTS: Final = """
    SELECT wallet_id, NULL, concat_ws(': ', 'event ' || event_id, finding)
    FROM events_audit_v1() ORDER BY wallet_id, event_id"""


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault: at one transaction of one wallet, of an event if `seq` is None, or of the tenant if both are None."""

    wallet_id: UUID | None
    seq: int | None
    text: str


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The size and the findings of one tenant's audit."""

    wallets: int
    transactions: int
    findings: tuple[Finding, ...]


def audit_ledger() -> AuditReport:
    """Audit the bound tenant. Writes and locks nothing; its time grows with the ledger."""
    db.session.execute(sa.text("SET LOCAL statement_timeout TO 0"))
    counts = sa.text("SELECT (SELECT count(*) FROM wallets), (SELECT count(*) FROM wallet_transactions)")
    wallets, transactions = db.session.execute(counts).one()
    query = sa.text("SELECT wallet_id, seq, finding FROM ledger_audit_v5() ORDER BY wallet_id, seq")
    findings = [Finding(*row) for row in db.session.execute(query)]
    findings += [Finding(*row) for row in db.session.execute(sa.text(_EVENTS))]
    db.session.commit()
    return AuditReport(wallets, transactions, tuple(findings))
