"""A subscriber of RabbitMQ: `python -m tests.faults.subscriber URL QUEUE FILE`. It appends each event to the file and
then acknowledges it, and connects again if the broker is away.

It is a separate program so that it can be killed.
"""

import asyncio
import sys
from pathlib import Path
from typing import IO

import aio_pika
from aio_pika.exceptions import CONNECTION_EXCEPTIONS

IDLE_SECONDS = 0.5


async def subscribe(url: str, queue_name: str, kept: IO[bytes]) -> None:
    while True:
        try:
            async with await aio_pika.connect(url) as connection:
                channel = await connection.channel()
                await channel.set_qos(prefetch_count=20)
                queue = await channel.get_queue(queue_name)
                async with queue.iterator(timeout=IDLE_SECONDS) as messages:
                    async for message in messages:
                        kept.write(message.body + b"\n")
                        kept.flush()
                        await message.ack()
        except (*CONNECTION_EXCEPTIONS, TimeoutError):
            await asyncio.sleep(0.05)


if __name__ == "__main__":
    with Path(sys.argv[3]).open("ab") as opened:
        opened.write(b"\n")  # One that was killed leaves perhaps half a line.
        asyncio.run(subscribe(sys.argv[1], sys.argv[2], opened))
