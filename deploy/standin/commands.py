"""Commands that the stand-in sends to the wallet by queue: one effect each, however often they are delivered."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import aio_pika

SOURCE = "/standin"
COMMANDS = "wallet.commands"
SECONDS = 10


def send_payment(url: str, email: str, amount: str, *, times: int = 1) -> str:
    """Command a payment and return the command's id: the wallet takes a second one with this id for the same. Returns
    once the broker has stored the command.
    """
    command = {
        "specversion": "1.0",
        "id": str(uuid4()),
        "source": SOURCE,
        "type": "wallet.payment.requested.v1",
        "datacontenttype": "application/json",
        "data": {"email": email, "amount": amount},
    }
    asyncio.run(asyncio.wait_for(_send(url, command, times), SECONDS))
    return str(command["id"])


async def _send(url: str, command: dict[str, Any], times: int) -> None:
    message = aio_pika.Message(
        json.dumps(command).encode(),
        content_type="application/cloudevents+json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=command["id"],
    )
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange(COMMANDS)
        for _ in range(times):
            await exchange.publish(message, command["type"])
