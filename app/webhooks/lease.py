"""The lease of an endpoint: claim one that is due, note what came of its deliveries, return it. Each verb is one
statement on the bound tenant, committed when it returns, so that no db transaction is open while an endpoint is asked.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

import orjson

from app.events.replay import ReplayPlace
from tenant_schemas.context import current_tenant
from tenant_schemas.flask import connections

# Longer than a round takes: 5 seconds for the name, 10 in which it begins messages, and some 30 for the last one.
LEASE_SECONDS: Final = 90

_CLAIM: Final = """
    SELECT id, url, types, payload, delivery_order, secret_epoch, replaced_at, feed_id, position, failures, notice_owed,
        disabled_reason, lease_by
    FROM webhook_claim_v2(%s, %s, %s)"""
_DUE: Final = "SELECT id FROM webhooks_due ORDER BY lease_until, id"
_SETTLE: Final = "SELECT webhook_settle_v2(%s, %s, %s, %s::jsonb)"
_NOTICED: Final = "SELECT webhook_noticed_v1(%s, %s)"
# A time that lies further ahead than any delay was written before the clock was set back: the view `webhooks_due`
# tells. The moment is one for the whole statement, so that the index finds the due lanes among a million.
_LANES: Final = """
    (SELECT key, is_ordered, position, attempts FROM webhook_lanes
    WHERE endpoint_id = %(endpoint_id)s AND next_at <= statement_timestamp() ORDER BY next_at LIMIT %(limit)s)
    UNION ALL
    (SELECT key, is_ordered, position, attempts FROM webhook_lanes
    WHERE endpoint_id = %(endpoint_id)s AND next_at > statement_timestamp() + interval '2 days' LIMIT %(limit)s)
    LIMIT %(limit)s"""
_OPEN: Final = "SELECT key FROM webhook_lanes WHERE endpoint_id = %s AND is_ordered AND key = ANY (%s)"
_REPLAYS: Final = """
    SELECT id, types, position, until_position, attempts, ledger_at, ledger_wallet_id, ledger_seq, ledger_until
    FROM webhook_replays
    WHERE endpoint_id = %s AND finished_at IS NULL
        AND (next_at <= statement_timestamp() OR next_at > statement_timestamp() + interval '2 days')
    ORDER BY next_at LIMIT 1"""


class LeaseLost(Exception):
    """Another process has claimed the endpoint, or it was deleted, or its tenant was restored. What was sent is sent
    again, with the same ids.
    """


@dataclass(frozen=True, slots=True)
class Claimed:
    """An endpoint that this process delivers to."""

    id: UUID
    url: str
    types: list[str]
    payload: str
    delivery_order: str
    secret_epoch: int
    replaced_at: list[datetime]
    feed_id: UUID
    position: int
    failures: int
    notice_owed: bool
    disabled_reason: str | None
    lease_by: UUID

    @property
    def is_ordered(self) -> bool:
        return self.delivery_order == "wallet"


@dataclass(frozen=True, slots=True)
class Lane:
    """A due lane: `position` is that of its first waiting event, which was tried `attempts` times."""

    key: UUID
    is_ordered: bool
    position: int
    attempts: int


@dataclass(frozen=True, slots=True)
class LedgerPart:
    """Movements after a place and before a moment, of which the feed has no event."""

    place: ReplayPlace
    until: datetime


@dataclass(frozen=True, slots=True)
class Replay:
    """A due replay: `position` is the last one that it has passed. `ledger` is what comes before that."""

    id: UUID
    types: list[str]
    position: int
    until_position: int
    attempts: int
    ledger: LedgerPart | None


@dataclass(frozen=True, slots=True)
class LaneChange:
    """A lane as it is to be; closed without a position."""

    key: UUID
    is_ordered: bool
    position: int | None = None
    attempts: int = 0
    delay_seconds: float = 0.0


@dataclass(slots=True)
class ReplayChange:
    """A replay as it is to be: at a place in the ledger, or, when that `ends_ledger`, at a position."""

    id: UUID
    position: int
    attempts: int
    delivered: int
    delay_seconds: float
    ends_ledger: bool = False
    ledger_at: datetime | None = None
    ledger_wallet_id: UUID | None = None
    ledger_seq: int | None = None


@dataclass(frozen=True, slots=True)
class LoggedAttempt:
    event_id: UUID
    type: str
    source: str
    attempt: int
    at: datetime
    outcome: str
    status: int | None
    failure: str | None
    duration_ms: int
    answer: str


@dataclass(frozen=True, slots=True)
class Parked:
    event_id: UUID
    type: str
    position: int


@dataclass(slots=True)
class Done:
    """What came of a round. `failures` counts the failures since the last success; `unparked` are ids of events."""

    feed_id: UUID
    failures: int
    position: int | None = None
    delivered: int = 0
    mean_seconds: float = 0.0  # of a message
    is_failing: bool = False
    pause_seconds: float = 0.0
    disabled_reason: str | None = None
    lanes: list[LaneChange] = field(default_factory=list)
    replays: list[ReplayChange] = field(default_factory=list)
    parked: list[Parked] = field(default_factory=list)
    unparked: list[UUID] = field(default_factory=list)
    attempts: list[LoggedAttempt] = field(default_factory=list)


def due_endpoints() -> list[UUID]:
    """The ids of the bound tenant's endpoints that are due, those first that have waited longest."""
    return [endpoint_id for (endpoint_id,) in _run(_DUE, (), retry=True)]


def claim(endpoint_id: UUID | None = None) -> Claimed | None:
    """The endpoint, or that which has waited longest, leased to the caller; None if it is not due."""
    rows = _run(_CLAIM, (uuid4(), LEASE_SECONDS, endpoint_id))
    return Claimed(*rows[0]) if rows else None


def due_lanes(endpoint: Claimed, limit: int) -> list[Lane]:
    return [Lane(*row) for row in _run(_LANES, {"endpoint_id": endpoint.id, "limit": limit}, retry=True)]


def open_lanes(endpoint: Claimed, wallet_ids: Sequence[UUID]) -> set[UUID]:
    """The wallets among these whose events wait in a lane."""
    return {key for (key,) in _run(_OPEN, (endpoint.id, list(wallet_ids)), retry=True)}


def due_replay(endpoint: Claimed) -> Replay | None:
    rows = _run(_REPLAYS, (endpoint.id,), retry=True)
    if not rows:
        return None
    *known, at, wallet_id, seq, until = rows[0]
    return Replay(*(*known, LedgerPart(ReplayPlace(at, wallet_id, seq), until) if until else None))


def settle(endpoint: Claimed, done: Done, *, keeps_lease: bool) -> None:
    """Note what came of a round. Locks the endpoint's row; an admin may have disabled it meanwhile, which stays. Raises
    LeaseLost, and then nothing is noted.
    """
    seconds = LEASE_SECONDS if keeps_lease else 0
    told = orjson.dumps(asdict(done)).decode()
    if not _run(_SETTLE, (endpoint.id, endpoint.lease_by, seconds, told))[0][0]:
        raise LeaseLost


def end_notice(endpoint: Claimed) -> None:
    """Note that the admins were told, and return the lease."""
    _run(_NOTICED, (endpoint.id, endpoint.lease_by))


def _run(statement: str, parameters: tuple[Any, ...] | dict[str, Any], *, retry: bool = False) -> list[Any]:
    return connections().engine(current_tenant()).one_statement(statement, parameters, retry=retry)
