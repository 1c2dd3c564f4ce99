"""Posts payments of one tenant that arrive together in one call of its SQL function: one statement, one commit.

In a process, one such call is under way for a tenant at a time. A payment that finds none is sent at once, alone, by
its own statement; payments that arrive meanwhile wait and then go together. A payment that the call did not post (a
repeated key, low funds, a locked wallet) is sent alone afterwards, and gets its own answer or refusal.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Final, LiteralString, cast
from uuid import UUID

import psycopg
from flask import Flask

from app.config import Settings
from app.current import current_app
from app.ledger.models import Movement, PostedTransaction
from app.users.standing import StandingProof
from tenant_schemas.context import current_tenant
from tenant_schemas.errors import TenancyError
from tenant_schemas.flask import connections
from tenant_schemas.tenant import Tenant
from tenant_schemas.tracing import TRACING

EXTENSION: Final = "group_posting"
MAX_PAYMENTS: Final = 32
# A call that takes longer, for instance one that waits for a locked wallet, no longer keeps the others waiting.
HANDOVER_SECONDS: Final = 0.02
Answer = tuple[PostedTransaction, bool]
_PAY_MANY: Final[LiteralString] = """
    SELECT item_no, id, wallet_id, seq, balance_after_minor, created_at
    FROM wallet_pay_many_v1(%s::uuid[], %s::uuid[], %s, %s, %s::bigint[], %s::text[], %s::text[])"""


@dataclass(frozen=True, slots=True)
class Payment:
    """A member's payment from the member's own wallet."""

    proof: StandingProof
    currency: str
    movement: Movement


@dataclass(eq=False, slots=True)
class _Turn:
    """A payment in its tenant's queue. It leads if it has a group; otherwise another turn answers it."""

    payment: Payment
    group: Sequence["_Turn"] = ()
    answer: PostedTransaction | None = None
    is_awake: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self.is_awake.acquire()


@dataclass(slots=True)
class _Queue:
    """The payments of one tenant and currency: the turn that leads, and those that wait."""

    leader: _Turn
    waiting: list[_Turn] = field(default_factory=list)


class GroupPosting:
    """The queues of this process."""

    def __init__(self, *, is_on: bool) -> None:
        self._is_on = is_on
        self._lock = Lock()
        self._queues: dict[tuple[UUID, str, str, int], _Queue] = {}

    def pay(self, payment: Payment, alone: Callable[[], Answer]) -> Answer:
        """Post the payment, together with others or by `alone`. Returns the transaction, and whether an earlier request
        posted it. Raises what `alone` raises.
        """
        is_alone = not self._is_on or payment.movement.order_id is not None
        # One statement has one trace, so a payment that is traced shares its statement with no other.
        if is_alone or (TRACING.tracer is not None and TRACING.is_on_for_this_thread()):
            return alone()
        tenant = current_tenant()
        key = (tenant.id, tenant.schema_name, payment.currency, payment.proof.tenant_version)
        turn = _Turn(payment)
        self._enter(key, turn)
        if turn.group:
            try:
                if len(turn.group) == 1:
                    return alone()
                _post_together(tenant, turn.group)
            finally:
                self._leave(key, turn)
        return (turn.answer, False) if turn.answer else alone()

    def _enter(self, key: tuple[UUID, str, str, int], turn: _Turn) -> None:
        """Return when the turn leads, or was answered."""
        with self._lock:
            queue = self._queues.get(key)
            if queue is None:
                turn.group = (turn,)
                self._queues[key] = _Queue(turn)
                return
            queue.waiting.append(turn)
        if turn.is_awake.acquire(timeout=HANDOVER_SECONDS):
            return
        with self._lock:
            if turn in queue.waiting:
                _lead(queue, turn)
                return
        turn.is_awake.acquire()  # Another turn has just taken it along.

    def _leave(self, key: tuple[UUID, str, str, int], turn: _Turn) -> None:
        """Wake the turns that this one answered, and let the next one lead."""
        awake = list(turn.group[1:])
        with self._lock:
            queue = self._queues.get(key)
            if queue is not None and queue.leader is turn:
                if queue.waiting:
                    awake.append(_lead(queue, queue.waiting[0]))
                else:
                    del self._queues[key]
        for each in awake:
            each.is_awake.release()


def _lead(queue: _Queue, turn: _Turn) -> _Turn:
    """Let a waiting turn lead, with those that wait too."""
    queue.waiting.remove(turn)
    turn.group = (turn, *queue.waiting[: MAX_PAYMENTS - 1])
    del queue.waiting[: MAX_PAYMENTS - 1]
    queue.leader = turn
    return turn


def _post_together(tenant: Tenant, group: Sequence[_Turn]) -> None:
    """One call for the group; sets the answers of the payments that it posted. An error answers none: the same keys
    make it safe to send each payment again.
    """
    payments = [turn.payment for turn in group]
    try:
        rows = connections().engine(tenant).one_statement(_PAY_MANY, _arrays(payments))
    except (psycopg.Error, TenancyError):
        return
    for item_no, *columns in rows:
        turn = group[item_no - 1]
        turn.answer = PostedTransaction.of_payment(turn.payment.movement, turn.payment.currency, columns)


def _arrays(payments: Sequence[Payment]) -> tuple[Any, ...]:
    def each(value: Callable[[Payment], Any]) -> list[Any]:
        return [value(payment) for payment in payments]

    return (
        each(lambda payment: payment.proof.user_id),
        each(lambda payment: payment.proof.session_id),
        payments[0].proof.tenant_version,
        payments[0].currency,
        each(lambda payment: payment.movement.amount_minor),
        each(lambda payment: payment.movement.idempotency_key),
        each(lambda payment: payment.movement.description),
    )


def init_app(app: Flask, settings: Settings) -> None:
    app.extensions[EXTENSION] = GroupPosting(is_on=settings.group_posting)


def group_posting() -> GroupPosting:
    """The queues of the current application's process."""
    return cast(GroupPosting, current_app.extensions[EXTENSION])
