"""Open streams are counted by audience, whatever becomes of them."""

from uuid import uuid4

import pytest

from app.streams.places import StreamPlaces, TooManyStreams
from tests.factories.telemetry import sample


def open_streams() -> tuple[float, float]:
    staff, member = (sample("wallet_event_streams", audience=audience) for audience in ("staff", "member"))
    return staff, member


def test_open_streams_are_counted_by_audience() -> None:
    places, tenant_id, caller_id = StreamPlaces(2), uuid4(), uuid4()
    staff, member = open_streams()
    places.take(tenant_id, caller_id, "staff")
    assert open_streams() == (staff + 1, member)
    with pytest.raises(TooManyStreams):
        places.take(tenant_id, uuid4(), "member")
    assert open_streams() == (staff + 1, member), "a refused stream is none"
    places.take(uuid4(), uuid4(), "member")
    assert open_streams() == (staff + 1, member + 1)
    places.give_back(tenant_id, caller_id, "staff")
    assert open_streams() == (staff, member + 1)
