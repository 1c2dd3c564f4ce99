"""The members whose wallets a list names, for staff."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.auth.named_actors import NamedActor
from app.users.directory import Person, wallet_owners


@dataclass(frozen=True, slots=True)
class Owned:
    """An object of a wallet, with the wallet's member, and its actor if another than the member acted."""

    item: Any
    owner: Person
    actor: NamedActor | None = None

    def __getattr__(self, attribute: str) -> Any:
        """All attributes of the object."""
        return getattr(self.item, attribute)


def owned(items: Sequence[Any]) -> list[Owned]:
    """Objects that have a `wallet_id`, each with its wallet's member. One query for all."""
    found = wallet_owners({item.wallet_id for item in items})
    return [Owned(item, found[item.wallet_id][0]) for item in items]
