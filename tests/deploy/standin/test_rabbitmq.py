"""The stand-in's queue leaves out what is no event. `tests/scripts/test_demo.py` shows it with RabbitMQ."""

import json
from typing import Any

import pytest

from deploy.standin.rabbitmq import event_of
from tests.deploy.standin.test_inbox import movement


def test_an_event_is_taken() -> None:
    assert event_of(json.dumps(movement(1)).encode()) == movement(1)


@pytest.mark.parametrize("body", ["", "{", "[]", "5", "null", "{}", '{"id": "1"}', b"\xff"])
def test_what_is_no_event_is_left_out(body: Any) -> None:
    assert event_of(body if isinstance(body, bytes) else body.encode()) is None


@pytest.mark.parametrize("data", [None, [], "text"])
def test_an_event_without_members_is_left_out(data: Any) -> None:
    assert event_of(json.dumps(movement(1) | {"data": data}).encode()) is None
