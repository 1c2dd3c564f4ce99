"""Many confirmations are under way at once, but never two of one partition, and nothing is sent after a failure."""

import asyncio
from collections import Counter
from random import Random

from app.brokers.lanes import IN_FLIGHT, send_in_lanes
from app.brokers.publisher import Message


def messages(count: int, partitions: int) -> list[Message]:
    return [Message(str(number), "type", "tenant.type", str(number % partitions), b"") for number in range(count)]


class Broker:
    """Confirms after a moment, and refuses some messages."""

    def __init__(self, refuses: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        self.refuses = refuses
        self.got: list[str] = []
        self.under_way: Counter[str] = Counter()
        self.most = 0
        self.most_of_a_partition = 0

    async def send(self, message: Message) -> None:
        self.got.append(message.id)
        self.under_way[message.partition_key] += 1
        self.most = max(self.most, self.under_way.total())
        self.most_of_a_partition = max(self.most_of_a_partition, *self.under_way.values())
        await asyncio.sleep(0.001)
        self.under_way[message.partition_key] -= 1
        if message.id in self.refuses:
            raise OSError(message.id)


def test_confirmations_are_under_way_together_and_a_partition_has_one() -> None:
    broker = Broker()
    assert asyncio.run(send_in_lanes(messages(1000, 500), broker.send)) == (1000, None)
    assert broker.got == [str(number) for number in range(1000)]
    assert broker.most == IN_FLIGHT
    assert broker.most_of_a_partition == 1


def test_a_refused_message_ends_the_confirmed_front_and_its_partition_goes_no_further() -> None:
    broker = Broker({"40"})
    count, fault = asyncio.run(send_in_lanes(messages(1000, 60), broker.send))
    assert count == 40
    assert str(fault) == "40"
    assert "41" in broker.got  # It was under way already, and comes again.
    assert "100" not in broker.got  # The next one of the partition of 40.
    assert len(broker.got) <= IN_FLIGHT


def test_nothing_to_send_is_all_confirmed() -> None:
    assert asyncio.run(send_in_lanes([], Broker().send)) == (0, None)


class Reader:
    """A connection whose answers come at any moment, also while the news of another answer is under way."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.waiting: list[tuple[Message, asyncio.Future[None]]] = []
        self.refused: set[str] = set()
        self.overtook: list[str] = []

    async def send(self, message: Message) -> None:
        if message.partition_key in self.refused:
            self.overtook.append(message.id)
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((message, answer))
        await answer

    async def answer(self) -> None:
        while True:
            await asyncio.sleep(0)
            bunch, self.waiting = self.waiting, []
            for message, answer in bunch:
                if self.random.random() < 0.7:
                    self.waiting.append((message, answer))
                    continue
                if self.random.random() < 0.05:
                    self.refused.add(message.partition_key)
                    answer.set_exception(OSError(message.id))
                else:
                    answer.set_result(None)


def test_no_message_overtakes_a_refused_one_of_its_partition_at_any_moment() -> None:
    async def run(seed: int) -> list[str]:
        reader = Reader(seed)
        answering = asyncio.ensure_future(reader.answer())
        await send_in_lanes(messages(300, 20), reader.send)
        answering.cancel()
        return reader.overtook

    assert [seed for seed in range(200) if asyncio.run(run(seed))] == []
