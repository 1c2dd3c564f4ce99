"""Slots for work at once in one process, given to groups and to the callers of a group in turns.

A group is a tenant, or the log-ins of all. A request that gets no slot waits for a short time in a bounded queue, and
is refused after that. The calls cost one lock and no condition while slots are free; a freed slot is handed to one
waiting request and wakes no other.
"""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

# A queue's share of one caller is never less than what one browser page asks for at once.
PAGE_REQUESTS: Final = 12
SPARE_PART: Final = 4  # One slot in so many stays free for a group that has none.


class QueueFull(Exception):
    """There is no slot, and no place to wait. `limit` says whose slots are used up: caller, group or process."""

    def __init__(self, limit: str) -> None:
        super().__init__(limit)
        self.limit = limit


class WaitedTooLong(QueueFull):
    """The time to wait has passed."""


@dataclass(slots=True)
class _Ticket:
    """A waiting request. Its lock is released when it gets its slot."""

    granted: Lock
    is_granted: bool = False


@dataclass(slots=True)
class _Caller:
    running: int = 0
    tickets: deque[_Ticket] = field(default_factory=deque)


@dataclass(slots=True)
class _Group:
    running: int = 0
    waiting: int = 0
    share: int = 1  # slots while other groups want some
    most: int = 1  # slots in any case
    callers: dict[Hashable, _Caller] = field(default_factory=dict)


class FairQueue:
    """`running` slots and `waiting` places.

    A group alone may use all slots but the spare ones, and while other groups run or wait, its part of them. The same
    holds for the callers of a group: one caller never takes the last slot of a group that has more than one.
    """

    def __init__(self, running: int, waiting: int) -> None:
        self._slots = running
        self._places = waiting
        self._spare = max(1, running // SPARE_PART) if running > 1 else 0
        self._lock = Lock()
        self._running = 0
        self._waiting = 0
        self._groups: dict[Hashable, _Group] = {}

    def running(self, group_key: Hashable) -> int:
        group = self._groups.get(group_key)
        return group.running if group else 0

    def waiting(self, group_key: Hashable) -> int:
        group = self._groups.get(group_key)
        return group.waiting if group else 0

    def take(self, group_key: Hashable, caller_key: Hashable, *, share: int, most: int, wait_seconds: float) -> None:
        """Reserve a slot, and wait for it if need be. `share` is the group's number of slots while others want some,
        `most` its number in any case. Raises QueueFull at once or WaitedTooLong after the wait.
        """
        with self._lock:
            group = self._groups.get(group_key)
            if group is None:
                group = self._groups[group_key] = _Group()
            group.share, group.most = share, most
            caller = group.callers.get(caller_key)
            if caller is None:
                caller = group.callers[caller_key] = _Caller()
            missing = self._missing(group, caller)
            if missing is None:
                self._start(group, caller)
                return
            if not self._has_place(group, caller):
                self._forget(group_key, group, caller_key, caller)
                raise QueueFull(missing)
            ticket = self._queue(group, caller)
        # The waiting request holds its ticket's lock; who grants the slot releases it.
        if wait_seconds > 0 and ticket.granted.acquire(timeout=wait_seconds):
            return
        with self._lock:
            if not ticket.is_granted:
                missing = self._missing(group, caller) or "process"
                self._leave(group_key, caller_key, ticket)
                raise WaitedTooLong(missing)

    def release(self, group_key: Hashable, caller_key: Hashable) -> None:
        """Return a slot that `take` reserved."""
        with self._lock:
            group = self._groups[group_key]
            caller = group.callers[caller_key]
            caller.running -= 1
            group.running -= 1
            self._running -= 1
            self._forget(group_key, group, caller_key, caller)
            self._grant()

    def _missing(self, group: _Group, caller: _Caller) -> str | None:
        """None if one more request may run. Otherwise whose slots are used up."""
        if self._running >= self._slots:
            return "process"
        if not self._may_run(group):
            return "group"
        return None if caller.running < self._slots_of_callers(group) else "caller"

    def _may_run(self, group: _Group) -> bool:
        groups = len(self._groups)
        most = min(group.most, group.share) if groups > 1 else group.most
        return group.running < min(most, _allowed(self._slots, self._spare, self._running, groups))

    def _slots_of_callers(self, group: _Group) -> int:
        """How many slots one caller of the group may have now."""
        groups = len(self._groups)
        slots = min(group.most, _part(self._slots, self._spare, groups))
        if groups > 1:
            slots = min(slots, group.share)
        return _allowed(slots, min(1, slots - 1), group.running, len(group.callers))

    def _start(self, group: _Group, caller: _Caller) -> None:
        self._running += 1
        group.running += 1
        caller.running += 1

    def _has_place(self, group: _Group, caller: _Caller) -> bool:
        places = _part(self._places, self._places // SPARE_PART, len(self._groups))
        own = max(PAGE_REQUESTS, _part(places, places // SPARE_PART, len(group.callers)))
        return self._waiting < self._places and group.waiting < places and len(caller.tickets) < own

    def _queue(self, group: _Group, caller: _Caller) -> _Ticket:
        ticket = _Ticket(Lock())
        ticket.granted.acquire()
        caller.tickets.append(ticket)
        group.waiting += 1
        self._waiting += 1
        return ticket

    def _leave(self, group_key: Hashable, caller_key: Hashable, ticket: _Ticket) -> None:
        group = self._groups[group_key]
        caller = group.callers[caller_key]
        caller.tickets.remove(ticket)
        group.waiting -= 1
        self._waiting -= 1
        self._forget(group_key, group, caller_key, caller)
        self._grant()

    def _grant(self) -> None:
        """Give free slots to waiting requests: to the group with the fewest running ones, and in it to the caller with
        the fewest. Among equals, the one that was served last comes last.
        """
        while self._waiting and self._running < self._slots and self._grant_one():
            pass

    def _grant_one(self) -> bool:
        waiting = [item for item in self._groups.items() if item[1].waiting and self._may_run(item[1])]
        for group_key, group in sorted(waiting, key=lambda item: item[1].running):
            most = self._slots_of_callers(group)
            callers = [item for item in group.callers.items() if item[1].tickets and item[1].running < most]
            if callers:
                caller_key, caller = min(callers, key=lambda item: item[1].running)
                ticket = caller.tickets.popleft()
                group.waiting -= 1
                self._waiting -= 1
                self._start(group, caller)
                self._groups[group_key] = self._groups.pop(group_key)
                group.callers[caller_key] = group.callers.pop(caller_key)
                ticket.is_granted = True
                ticket.granted.release()
                return True
        return False

    def _forget(self, group_key: Hashable, group: _Group, caller_key: Hashable, caller: _Caller) -> None:
        if not caller.running and not caller.tickets:
            del group.callers[caller_key]
        if not group.callers:
            del self._groups[group_key]


def _allowed(slots: int, spare: int, running: int, claimants: int) -> int:
    """How many of the slots each claimant may have while `running` of them are taken: its part. When only spare ones
    are left, they are for claimants with few: half of the spare ones each, one at least.
    """
    if running >= slots:
        return 0
    few = max(1, spare // 2)
    return few if running >= slots - spare else max(few, _part(slots, spare, claimants))


def _part(whole: int, spare: int, claimants: int) -> int:
    """The part of each claimant, rounded up, when `spare` is kept for the next one."""
    return max(1, -((spare - whole) // claimants))
