"""The names of actors, for the staff of the bound tenant: members, API keys, and operators without their addresses."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from app.auth.actors import ActorKind
from app.users.directory import people
from tenant_schemas.context import current_tenant
from tenant_schemas.flask import connections

# An operator is no member, so a tenant learns neither name nor address.
OPERATOR_NAME: Final = "operator"
_OF_SHARED_SIDE: Final = """
    SELECT k.id, 'api_key', k.name FROM shared.api_keys k WHERE k.tenant_id = %s AND k.id = ANY(%s)
    UNION ALL SELECT u.id, 'operator', NULL FROM shared.users u WHERE u.is_operator AND u.id = ANY(%s)"""


@dataclass(frozen=True, slots=True)
class NamedActor:
    """An actor with the name that staff may see; `id` is None for the system."""

    kind: ActorKind
    id: UUID | None
    name: str | None = None
    email: str | None = None


SYSTEM_ACTOR: Final = NamedActor(ActorKind.SYSTEM, None, "system")


@dataclass(frozen=True, slots=True)
class Acted:
    """An object that has an `actor_id`, with its actor."""

    item: Any
    actor: NamedActor

    def __getattr__(self, attribute: str) -> Any:
        """All attributes of the object."""
        return getattr(self.item, attribute)


def acted(items: Sequence[Any]) -> list[Acted]:
    """Objects that have an `actor_id`, each with its actor; without an id, the system acted. Costs as `named_actors`.

    An object's own `actor_kind` has the last word on operators, who may have become members since.
    """
    found = named_actors({item.actor_id for item in items if item.actor_id is not None})
    return [Acted(item, _actor_of(item, found)) for item in items]


def _actor_of(item: Any, found: dict[UUID, NamedActor]) -> NamedActor:
    if getattr(item, "actor_kind", None) == ActorKind.OPERATOR:
        return operator(item.actor_id)
    return SYSTEM_ACTOR if item.actor_id is None else found[item.actor_id]


def operator(actor_id: UUID | None) -> NamedActor:
    return NamedActor(ActorKind.OPERATOR, actor_id, OPERATOR_NAME)


def named_actors(actor_ids: Collection[UUID]) -> dict[UUID, NamedActor]:
    """All these actors, by id: one query on the shared side, and one for the tenant's members if there are users."""
    if not actor_ids:
        return {}
    ids = list(actor_ids)
    rows = connections().shared.one_statement(_OF_SHARED_SIDE, (current_tenant().id, ids, ids), retry=True)
    found = {id_: _of_shared_side(id_, kind, name) for id_, kind, name in rows}
    users = [id_ for id_ in ids if id_ not in found]
    known = people(users)
    for id_ in users:
        found[id_] = NamedActor(ActorKind.USER, id_, known[id_].name, known[id_].email)
    return found


def _of_shared_side(actor_id: UUID, kind: str, name: str | None) -> NamedActor:
    return operator(actor_id) if kind == ActorKind.OPERATOR else NamedActor(ActorKind.API_KEY, actor_id, name)
