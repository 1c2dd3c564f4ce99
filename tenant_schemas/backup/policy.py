"""The application's part of a backup: its shared tables, its proof of a tenant's data, and its masks for a clone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import psycopg


class Resumption(Protocol):
    """A function that is called at the end of a restore in place."""

    def __call__(self, connection: psycopg.Connection[Any], replaced: str, /, *, is_own: bool) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupPolicy:
    """The tables, columns and checks of the application that backup, restore and clone need.

    `members` and `users` name tables of `shared`. `members` has the columns tenant_id, tenant_role and user_id, and so
    has `former_members`, if there is such a table: its rows follow those of `members`, except into clones. A
    bundle keeps `user_columns` of each user: the first is the primary key, the second identifies the user on another
    server. `user_id_columns` lists, by table, the columns with user ids (uuids, or texts that may be uuids), with or
    without a foreign key. A bundle includes the users with these ids; a remap and a clone replace ids in these columns
    only. A text column among them needs a mask. A column that an older revision lacks is ignored.

    `prove` returns totals and heads of hash chains, as JSON; `find_faults` returns what its audit finds after loading.
    Both run bound to the tenant. `rechain` recomputes the hash chains after ids or texts were replaced; it runs bound,
    as the owner. So does `after_load`, when the rows of a restore or a clone are proved: it changes what must not be
    the same as in the source. `resume` runs at the end of a restore that replaces its tenant, bound, at the head, with
    the name of the replaced schema, in which nobody writes any more, and with `is_own` if this installation signed the
    bundle: it may let go on what `after_load` has stopped, and keep what the tenant has chosen since the backup.
    `beside` runs there for a restore as a new tenant: what the bundle's tenant has told others is not told again in
    another name. `masks` are SQL expressions by table and column, and `not_cloned` are tables, both for clones.

    `check_settings` returns the settings of a bundle as a new tenant may have them, and raises RestoreRefused for
    invalid ones. `recreated` are SQL expressions by column for a user that a restore creates without a way to log in.
    `note` writes an entry into the tenant's own audit log; it runs bound, at the head. `last_change` returns the time
    of the last change of the tenant's data, None if there was none; it runs bound.
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
    after_load: Callable[[psycopg.Connection[Any]], None] | None = None
    resume: Resumption | None = None
    beside: Callable[[psycopg.Connection[Any]], None] | None = None
    check_settings: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
    recreated: Mapping[str, str] = field(default_factory=dict)
    former_members: str | None = None
    note: Callable[[psycopg.Connection[Any], str, Mapping[str, Any]], None] | None = None
    last_change: Callable[[psycopg.Connection[Any]], datetime | None] | None = None
