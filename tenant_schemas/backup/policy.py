"""What the application tells the engine of its tenants, so that one can be backed up, proved, restored and cloned."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupPolicy:
    """What the engine can't know of an application's tenants.

    `members` is the table of `shared` that says who belongs to a tenant, by tenant_id, tenant_role and user_id;
    `users` the table of `shared` that members and tenants' tables refer to. A bundle keeps `user_columns` of each
    person: the first is the primary key, the second finds the person on another server. `user_id_columns` are the columns
    by table, of ids or of texts that may be ids, that name people, with a foreign key or without: a bundle keeps whom
    they name, and a remap and a clone replace the ids there and nowhere else. A text among them must have a mask, and
    what a revision lacks is passed over.

    `prove` tells totals and heads of chains, as JSON; `find_faults` what does not hold after loading; both run bound to
    the tenant. `rechain` runs bound and as the owner after ids or texts were replaced on purpose. `masks` are SQL
    expressions by table and column, and `not_cloned` tables, both for clones.

    `recreated` are SQL expressions by column for a person who is missing where a bundle is restored and is made there
    to be named and not to act; `note` runs bound, at the head, and writes into the tenant's own records what was done.
    """

    members: str
    users: str
    user_columns: tuple[str, ...]
    user_id_columns: Mapping[str, frozenset[str]]
    prove: Callable[[psycopg.Connection[Any]], dict[str, Any]]
    find_faults: Callable[[psycopg.Connection[Any]], list[str]]
    rechain: Callable[[psycopg.Connection[Any]], None]
    masks: Mapping[str, Mapping[str, str]]
    not_cloned: frozenset[str]
    recreated: Mapping[str, str] = field(default_factory=dict)
    note: Callable[[psycopg.Connection[Any], str, Mapping[str, Any]], None] | None = None
