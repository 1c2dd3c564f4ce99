"""The people whom a bundle refers to, where it is restored: they may be missing there, or have other ids.

A person is the same one where the id is the same, whatever else has changed since. Nobody who is there is ever changed.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, Final

import psycopg
from psycopg import sql

from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.backup.introspection import shared_columns
from tenant_schemas.backup.policy import BackupPolicy
from tenant_schemas.errors import UsersDiffer
from tenant_schemas.restore.loader import copy_in, file_named
from tenant_schemas.tenant import SHARED_SCHEMA, Tenant

Ids = Mapping[str, str]

# For as long as the db transaction lasts; no table of a tenant may be called so.
_SCRATCH: Final = "people_of_the_bundle"
_NAMED_AT_MOST: Final = 20


class Users(StrEnum):
    """What to do about people who are missing or have other ids: nothing, and fail; make them anew, with the id of the
    bundle and unable to act; or take those who are there under the same name for them, and make the others anew.
    """

    FAIL = "fail"
    RECREATE_DISABLED = "recreate-disabled"
    REMAP = "remap"


def settle_people(
    connection: psycopg.Connection[Any], backup_policy: BackupPolicy, bundle: Bundle, schema_name: str, users: Users
) -> Ids:
    """Make everybody be there, within the open db transaction, and return which ids are to be replaced by which.
    `schema_name` is where something may lie meanwhile. Raises UsersDiffer.
    """
    names = _names(backup_policy, schema_name)
    connection.execute(_in(_LAY_OUT, names))
    people = file_named(bundle.manifest.shared, backup_policy.people)
    copy_in(connection, schema_name, _SCRATCH, people.columns, bundle.lines(people))
    differing = connection.execute(_in(_DIFFERING, names)).fetchall()
    if differing and users is Users.FAIL:
        raise UsersDiffer(_told(differing))
    ids = {old: here for old, _, here in differing if here is not None and users is Users.REMAP}
    _refuse_mergers(connection, names, ids)
    _make_anew(connection, backup_policy, names, [old for old, _, _ in differing if old not in ids])
    connection.execute(_in("DROP TABLE {scratch}", names))
    return ids


def copy_members(
    connection: psycopg.Connection[Any],
    backup_policy: BackupPolicy,
    source: Tenant,
    tenant: Tenant,
    value: Callable[[str], sql.Composable] = sql.Identifier,
) -> None:
    """Make whoever is a member of one tenant a member of the other, within the open db transaction; `value` of a column
    is what it is there.
    """
    own = {"tenant_id": sql.Literal(tenant.id), "tenant_role": sql.Literal(tenant.role_name)}
    columns = shared_columns(connection, backup_policy.members)
    statement = sql.SQL("INSERT INTO {members} ({columns}) SELECT {values} FROM {members} t WHERE tenant_id = {source}")
    connection.execute(
        statement.format(
            members=sql.Identifier(SHARED_SCHEMA, backup_policy.members),
            columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
            values=sql.SQL(", ").join(own.get(column) or value(column) for column in columns),
            source=sql.Literal(source.id),
        )
    )


_LAY_OUT: Final = "CREATE TABLE {scratch} AS SELECT {columns} FROM {people} WITH NO DATA"
# Who is not there by id; and whose id somebody has who is there by what a person is known by.
_DIFFERING: Final = """
    SELECT b.{key}::text, b.{known}::text, known.{key}::text
    FROM {scratch} b LEFT JOIN {people} known ON known.{known} = b.{known}
    WHERE NOT EXISTS (SELECT FROM {people} same WHERE same.{key} = b.{key}) ORDER BY 2"""


def _names(backup_policy: BackupPolicy, schema_name: str) -> dict[str, sql.Composable]:
    key, known, *others = (sql.Identifier(column) for column in backup_policy.people_columns)
    return {
        "scratch": sql.Identifier(schema_name, _SCRATCH),
        "people": sql.Identifier(SHARED_SCHEMA, backup_policy.people),
        "columns": sql.SQL(", ").join((key, known, *others)),
        "key": key,
        "known": known,
    }


def _in(text: Any, names: Mapping[str, sql.Composable]) -> sql.Composed:
    return sql.SQL(text).format(**names)


def _told(differing: list[tuple[str, str, str | None]]) -> str:
    lines = [
        f"{known} ({old}) " + (f"has the id {here} here" if here else "is missing here")
        for old, known, here in differing[:_NAMED_AT_MOST]
    ]
    more = f"\nand {len(differing) - len(lines)} more" if len(differing) > len(lines) else ""
    return f"{len(differing)} people of the bundle are not here as they were there:\n" + "\n".join(lines) + more


def _refuse_mergers(connection: psycopg.Connection[Any], names: Mapping[str, sql.Composable], ids: Ids) -> None:
    """Where somebody took over another's name since, two people of the bundle would become one."""
    query = _in("SELECT {known} FROM {scratch} WHERE {key}::text = ANY(%s) ORDER BY 1", names)
    merged: Iterable[tuple[str]] = connection.execute(query, (list(ids.values()),))
    found = ", ".join(known for (known,) in merged)
    if found:
        raise UsersDiffer(f"Others of the bundle would become these people, who are in it themselves: {found}.")


def _make_anew(
    connection: psycopg.Connection[Any],
    backup_policy: BackupPolicy,
    names: Mapping[str, sql.Composable],
    ids: list[str],
) -> None:
    """Who is known here by a name already keeps it, and the one who is made is known by the id (RFC 2606: `.invalid` is
    nobody's).
    """
    _, _, *others = backup_policy.people_columns
    made: dict[str, sql.Composable] = {column: sql.SQL("b.{}").format(sql.Identifier(column)) for column in others}
    made |= {column: sql.SQL(expression) for column, expression in backup_policy.recreated.items()}
    statement = sql.SQL(
        "INSERT INTO {people} ({key}, {known}, {made}) SELECT b.{key}, CASE"
        " WHEN EXISTS (SELECT FROM {people} u WHERE u.{known} = b.{known}) THEN b.{key}::text || '@recreated.invalid'"
        " ELSE b.{known} END, {values} FROM {scratch} b WHERE b.{key}::text = ANY(%s)"
    )
    connection.execute(
        statement.format(
            made=sql.SQL(", ").join(map(sql.Identifier, made)), values=sql.SQL(", ").join(made.values()), **names
        ),
        (ids,),
    )
