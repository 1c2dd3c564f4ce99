"""Places are of the process, and nobody has more than a share."""

from contextlib import ExitStack
from uuid import UUID, uuid4

import pytest

from app.limits.places import NoPlace, Places


def test_places_are_of_the_process_and_of_each_holder() -> None:
    places, one, other, caller = Places(3), uuid4(), uuid4(), uuid4()

    def refused(*holders: UUID) -> UUID | None:
        with pytest.raises(NoPlace) as refusal:
            places.take(dict.fromkeys(holders, 2))
        return refusal.value.holder

    with ExitStack() as stack:
        for tenant_id in (one, one):
            stack.enter_context(places.taken({caller: 2, tenant_id: 2}))
        assert (refused(caller, one), refused(one), places.open) == (caller, one, 2)
        stack.enter_context(places.taken({other: 2}))
        assert refused(other) is None, "all are taken"
    assert places.open == 0
    with places.taken({one: 1}):
        assert places.open == 1
