"""The actor of a change: a user, an operator, an API key or the system, as the audit log records it."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class ActorKind(StrEnum):
    USER = "user"
    OPERATOR = "operator"  # an operator of the installation, in a tenant
    API_KEY = "api_key"
    SYSTEM = "system"  # a command or a background worker


@dataclass(frozen=True, slots=True)
class Actor:
    """The author of a change, with the client's address and the request. `id` is a user's or an API key's."""

    kind: ActorKind
    id: UUID | None = None
    address: str | None = None
    request_id: str | None = None


SYSTEM = Actor(ActorKind.SYSTEM)
