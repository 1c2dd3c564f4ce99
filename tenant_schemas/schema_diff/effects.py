"""The effect of a difference on backups and restores: the one place that says what a hand-made change costs.

A bundle has rows, and a restore makes the schema from the migrations. So a difference may keep the rows from being
loaded, or a restore undoes it, and it may be one on which no row, rule or right depends.
"""

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tenant_schemas.schema_diff.catalog import PART_END, Objects


class Effect(StrEnum):
    """`BREAKS`: the schema that a restore makes may refuse the rows. `LOST`: the rows can be loaded, and the object is
    afterwards gone, or as the migrations make it. `HARMLESS`: that too, but no row, rule or right depends on it.
    """

    BREAKS = "breaks a restore"
    LOST = "lost by a restore"
    HARMLESS = "harmless"


@dataclass(frozen=True, slots=True)
class DriftedObject:
    """An object that differs from the reference, by its kind and name, such as `index wallets_user_id_idx`."""

    name: str
    effect: Effect

    def __str__(self) -> str:
        return self.name


def told(objects: Iterable[DriftedObject], at_most: int) -> str:
    """The objects by effect, the worst first, for a message: `column wallets.nickname (breaks a restore)`."""
    listed = list(objects)
    by_effect = {effect: [each.name for each in listed if each.effect is effect] for effect in Effect}
    return "; ".join(
        ", ".join(names[:at_most]) + (f" and {len(names) - at_most} more" if names[at_most:] else "") + f" ({effect})"
        for effect, names in by_effect.items()
        if names
    )


def effect_of(key: tuple[str, str], here: Objects, reference: Objects, roles: Set[str]) -> Effect:
    """The effect of one object that differs. `roles` are the roles of the service; rights of others can be harmless."""
    kind, name = key
    if kind.startswith("rights on "):
        return _of_rights(here.get(key), reference.get(key), roles)
    relation = reference.get(("relation", name.partition(".")[0]), "")
    if kind == "column" and relation[:1] not in _TABLES:
        return Effect.LOST
    return _RULES.get(kind, _of_rule)(_Pair(name, here.get(key), reference.get(key)))


@dataclass(frozen=True, slots=True)
class _Pair:
    """The descriptions of an object of one name: in the schema and in the reference. None where it does not exist."""

    name: str
    here: str | None
    reference: str | None

    def differs_in(self, part: int) -> bool:
        here, reference = ((text or "").split(PART_END) for text in (self.here, self.reference))
        return here[part : part + 1] != reference[part : part + 1]


# Tables and partitioned tables, by pg_class.relkind.
_TABLES: Final = frozenset({"r", "p"})
# Granted to a role that only reads, they give no way to change anything.
_READING: Final = frozenset({"SELECT", "USAGE"})
_OTHER_TENANT: Final = ("the tenant ", "tenant_", "PUBLIC ")


def _of_relation(pair: _Pair) -> Effect:
    """A bundle has the rows of an extra table; a restore leaves them out."""
    if pair.reference is not None and pair.reference[:1] in _TABLES and (pair.here or "")[:1] not in _TABLES:
        return Effect.BREAKS
    return Effect.LOST if pair.here is None or pair.reference is None or pair.differs_in(0) else Effect.HARMLESS


def _of_column(pair: _Pair) -> Effect:
    """Of a table that the migrations make. Its rows are loaded by the names of their columns, in any order."""
    if pair.here is None or pair.reference is None or pair.differs_in(0):
        return Effect.BREAKS
    return Effect.LOST if pair.differs_in(1) else Effect.HARMLESS


def _of_constraint(pair: _Pair) -> Effect:
    """Where one of the migrations' constraints is missing or another, there may be rows that it refuses."""
    if pair.reference is None:
        return Effect.LOST
    return Effect.BREAKS if pair.differs_in(0) else Effect.HARMLESS


def _of_index(pair: _Pair) -> Effect:
    """Unique ones are rules. The migrations' other ones are missed by queries, and a restore makes them again."""
    is_unique = "t " in {(pair.here or "")[:2], (pair.reference or "")[:2]}
    if pair.reference is None:
        return Effect.LOST if is_unique else Effect.HARMLESS
    if pair.differs_in(0):
        return Effect.BREAKS if is_unique else Effect.LOST
    return Effect.HARMLESS


def _of_trigger(pair: _Pair) -> Effect:
    """Without the triggers of a foreign key there may be rows that it refuses. Only they have no definition."""
    is_foreign_key = pair.reference is not None and "CREATE " not in pair.reference
    return Effect.BREAKS if is_foreign_key else Effect.LOST


def _of_type(pair: _Pair) -> Effect:
    return Effect.BREAKS if pair.reference is not None and pair.differs_in(0) else Effect.LOST


def _of_rule(pair: _Pair) -> Effect:
    """A function, policy, sequence, rewrite rule or extension: a restore makes it as the migrations do. Comments are
    harmless.
    """
    return Effect.LOST if pair.here is None or pair.reference is None or pair.differs_in(0) else Effect.HARMLESS


def _of_statistics(_: _Pair) -> Effect:
    return Effect.HARMLESS


def _of_other(pair: _Pair) -> Effect:
    return Effect.HARMLESS if pair.name.startswith("publication ") else Effect.LOST


def _of_rights(here: str | None, reference: str | None, roles: Set[str]) -> Effect:
    """Harmless if nothing differs but what a role outside of the service may read."""
    found, expected = (set(text.split(", ")) if text else set() for text in (here, reference))
    return Effect.HARMLESS if all(_is_reading(grant, roles) for grant in found ^ expected) else Effect.LOST


def _is_reading(grant: str, roles: Set[str]) -> bool:
    """Whether `grant` (grantee, right, whether grantable) lets a role read that is neither the service's nor a
    tenant's.
    """
    if grant.startswith(_OTHER_TENANT) or grant.count(" ") < 2:  # noqa: PLR2004
        return False
    grantee, right, is_grantable = grant.rsplit(" ", 2)
    return grantee not in roles and right in _READING and is_grantable == "f"


_RULES: Final[Mapping[str, Callable[[_Pair], Effect]]] = {
    "relation": _of_relation,
    "column": _of_column,
    "constraint": _of_constraint,
    "index": _of_index,
    "trigger": _of_trigger,
    "type": _of_type,
    "statistics": _of_statistics,
    "other object": _of_other,
}
