"""How long tenants have been waiting, from sweep to sweep."""

from uuid import uuid4

from app.relay.waits import Waits
from tests.app.relay.test_broker_sink import Clock

ONE, OTHER = uuid4(), uuid4()


def test_the_longest_wait_is_that_of_the_tenant_that_has_waited_in_every_sweep() -> None:
    clock = Clock()
    waits = Waits(clock)
    assert (waits.count, waits.longest_seconds) == (0, 0.0)
    waits.see([ONE])
    clock.seconds += 2
    waits.see([ONE, OTHER])
    clock.seconds += 3
    assert (waits.count, waits.longest_seconds) == (2, 5.0)
    waits.see([OTHER])
    assert (waits.count, waits.longest_seconds) == (1, 3.0)


def test_a_tenant_that_was_served_meanwhile_waits_anew() -> None:
    clock = Clock()
    waits = Waits(clock)
    waits.see([ONE])
    clock.seconds += 2
    waits.see([])
    assert (waits.count, waits.longest_seconds) == (0, 0.0)
    waits.see([ONE])
    clock.seconds += 1
    assert waits.longest_seconds == 1.0
