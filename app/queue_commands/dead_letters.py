"""The dead letters of all tenants' commands at RabbitMQ, for an operator who looks at them and settles some."""

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from app.queue_commands.tenant_queue import COMMANDS, DEAD, declare_dead_letters

CONNECT_SECONDS: Final = 10.0
_QUEUE: Final = re.compile(rf"{re.escape(COMMANDS)}\.([0-9a-f-]{{36}})", re.ASCII)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message of the tenant's queue that was not run. The broker has vouched for `user_id` as its sender. `letter`
    names it by its contents: two of the same name are the same command.
    """

    letter: str
    reason: str
    detail: str
    tenant_id: UUID | None
    user_id: str | None
    body: bytes
    body_bytes: int

    @property
    def is_whole(self) -> bool:
        """False for a body that was too long to be a command: the dead letter has its beginning."""
        return len(self.body) == self.body_bytes

    @property
    def command(self) -> str:
        """Source, id and type of the command, as far as they can be read."""
        try:
            event = json.loads(self.body)
        except (ValueError, RecursionError):
            return ""
        names = ("source", "id", "type")
        return " ".join(str(event.get(name)) for name in names) if isinstance(event, dict) else ""


async def visit_dead_letters(url: str, limit: int, is_done: Callable[[DeadLetter], Awaitable[bool]]) -> int:
    """Ask `is_done` of each dead letter, the oldest first, of at most `limit`. Those that are done are deleted; all
    others are put back at the end, also if the process dies. Returns how many it has asked of.

    Raises CONNECTION_EXCEPTIONS of aio_pika, also for a message whose properties the library can't decode.
    """
    connection = await aio_pika.connect(url, timeout=CONNECT_SECONDS)
    async with connection:
        channel = await connection.channel()
        await declare_dead_letters(channel)
        queue = await channel.get_queue(DEAD, ensure=False)
        for count in range(limit):
            message = await queue.get(fail=False)
            if message is None:
                return count
            if await is_done(_read(message)):
                await message.ack()
    return limit


def _read(message: AbstractIncomingMessage) -> DeadLetter:
    """One that the broker itself made has `x-death` and the sender's property `user_id`. One that the consumer made has
    no header of its sender.
    """
    headers: dict[str, Any] = dict(message.headers)
    if headers.get("x-death"):
        death = headers["x-death"][0]  # The latest.
        told: tuple[Any, ...] = (death.get("reason"), "", death.get("queue"), message.user_id, len(message.body))
    else:
        told = tuple(headers.get(name) for name in ("x-reason", "x-detail", "x-queue", "x-user-id", "x-body-bytes"))
    reason, detail, queue, user_id, body_bytes = told
    found = _QUEUE.fullmatch(str(queue))
    named = sha256(f"{queue}\n{user_id}\n".encode() + message.body).hexdigest()[:12]
    return DeadLetter(
        letter=named,
        reason=str(reason),
        detail=str(detail or ""),
        tenant_id=UUID(found[1]) if found else None,
        user_id=user_id,
        body=message.body,
        body_bytes=body_bytes if isinstance(body_bytes, int) else len(message.body),
    )
