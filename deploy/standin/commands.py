"""Commands that the stand-in sends to the wallet by queue: one effect each, however often they are delivered."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import aio_pika

SOURCE = "/standin"
SECONDS = 10


@dataclass(frozen=True, slots=True)
class Commands:
    """Of a tenant, named by its id. The login in `url` is named after an API key of the tenant, `wk_` and the key's id,
    and may write to this tenant's exchange only. The broker vouches for it as the `user-id` of each message: the body
    says nothing about who commands.
    """

    url: str
    tenant_id: str

    def send_payment(self, wallet_id: str, amount: str, *, times: int = 1) -> str:
        """Command a payment and return the command's id. Returns once the broker has stored the command. One that is
        sent again (`times`) has the same id, and the wallet takes it for the same.
        """
        command = {
            "specversion": "1.0",
            "id": str(uuid4()),
            "source": SOURCE,
            "type": "wallet.payment.requested.v1",
            "data": {"walletId": wallet_id, "amount": amount},
        }
        asyncio.run(asyncio.wait_for(self._send(command, times), SECONDS))
        return str(command["id"])

    async def _send(self, command: dict[str, Any], times: int) -> None:
        message = aio_pika.Message(
            json.dumps(command).encode(),
            content_type="application/cloudevents+json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            message_id=command["id"],
            user_id=urlsplit(self.url).username,
        )
        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel(on_return_raises=True)
            exchange = await channel.get_exchange(f"wallet.commands.{self.tenant_id}", ensure=False)
            for _ in range(times):
                await exchange.publish(message, "", mandatory=True)
