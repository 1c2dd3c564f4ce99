"""What arrives is stored once, in order, with its proof."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from deploy.standin.inbox import Inbox
from deploy.standin.proof import Incomplete

WALLET = "7f0c5f7e-0000-4000-8000-000000000001"


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path)


def movement(seq: int, **more: Any) -> dict[str, Any]:
    data = {"walletId": WALLET, "seq": seq, "hash": f"{seq:064x}", "previousHash": f"{seq - 1:064x}"}
    named = {"specversion": "1.0", "source": "/tenants/a", "id": f"m{seq}", "type": "x", "feedid": "one"}
    return named | {"data": data} | more


def ids(inbox: Inbox, via: str = "rabbitmq") -> list[str]:
    return [event["id"] for event in inbox.arrived(via, WALLET)]


def test_an_event_counts_once_for_each_way(inbox: Inbox) -> None:
    assert [inbox.take("rabbitmq", movement(seq)) for seq in (1, 2, 1, 2, 3)] == [True, True, False, False, True]
    assert inbox.take("webhook", movement(3))
    assert ids(inbox) == ["m3", "m2", "m1"]
    assert ids(inbox, "webhook") == ["m3"]


def test_an_event_after_a_gap_is_not_stored_until_the_gap_is_filled(inbox: Inbox) -> None:
    inbox.take("rabbitmq", movement(1))
    with pytest.raises(Incomplete):
        inbox.take("rabbitmq", movement(3))
    assert ids(inbox) == ["m1"]
    assert [inbox.take("rabbitmq", movement(seq)) for seq in (2, 3)] == [True, True]


def test_a_replay_brings_what_a_new_consumer_has_missed_and_nothing_twice(inbox: Inbox) -> None:
    """Live events come first, because the relay goes on during a replay."""
    assert inbox.take("rabbitmq", movement(4))
    assert [inbox.take("rabbitmq", movement(seq)) for seq in (1, 2, 3, 4, 2)] == [True, True, True, False, False]
    assert inbox.take("rabbitmq", movement(5)), "the head is still that of the newest"
    with pytest.raises(Incomplete):
        inbox.take("rabbitmq", movement(7))


def test_a_restored_tenants_feed_begins_anew(inbox: Inbox) -> None:
    inbox.take("rabbitmq", movement(9))
    assert inbox.take("rabbitmq", movement(4, id="again", feedid="two"))


def test_an_event_without_a_proof_is_stored_once(inbox: Inbox) -> None:
    event = movement(1, id="h1", data={"walletId": WALLET, "holdId": "h1"})
    assert [inbox.take("webhook", event), inbox.take("webhook", event)] == [True, False]


def test_a_delivery_in_several_threads_is_stored_once(inbox: Inbox) -> None:
    with ThreadPoolExecutor(8) as threads:
        taken = list(threads.map(lambda _: inbox.take("webhook", movement(1)), range(16)))
    assert sum(taken) == 1
    assert ids(inbox, "webhook") == ["m1"]


def test_it_goes_on_after_a_restart(inbox: Inbox, tmp_path: Path) -> None:
    inbox.take("rabbitmq", movement(1))
    with pytest.raises(Incomplete):
        Inbox(tmp_path).take("rabbitmq", movement(3))
