"""Maps the users of a bundle to the users of the installation: they may be missing there, or have other ids.

Users with the same id are the same user, whatever else has changed. An existing user is never changed.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, Final

import psycopg
from psycopg import sql

from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.backup.introspection import member_tables, shared_columns
from tenant_schemas.backup.policy import BackupPolicy
from tenant_schemas.errors import UsersDiffer
from tenant_schemas.printable import printable
from tenant_schemas.restore.loader import copy_in, find_file
from tenant_schemas.tenant import SHARED_SCHEMA, Tenant

Ids = Mapping[str, str]

# A table in the tenant's schema until the db transaction ends; no table of a tenant may have this name.
_LOADED_USERS: Final = "users_of_the_bundle"
_SHOWN_USERS: Final = 20


class MissingUsers(StrEnum):
    """What to do about users of the bundle that are missing or have another id here: fail; recreate them, with the
    bundle's id and without a way to log in; or remap them to the users with the same identifying column (such as the
    e-mail) and recreate the rest.
    """

    FAIL = "fail"
    RECREATE_DISABLED = "recreate-disabled"
    REMAP = "remap"


def map_users(
    connection: psycopg.Connection[Any],
    backup_policy: BackupPolicy,
    bundle: Bundle,
    schema_name: str,
    users: MissingUsers,
) -> Ids:
    """Make every user of the bundle exist, within the open db transaction, and return the user ids to replace (old id
    to new id). Uses a scratch table in `schema_name`. Raises UsersDiffer.
    """
    names = _names(backup_policy, schema_name)
    connection.execute(_format(_CREATE_TABLE, names))
    file = find_file(bundle.manifest.shared, backup_policy.users)
    copy_in(connection, schema_name, _LOADED_USERS, file.columns, bundle.lines(file))
    differing = connection.execute(_format(_DIFFERING, names)).fetchall()
    if differing and users is MissingUsers.FAIL:
        raise UsersDiffer(_describe(differing))
    ids = {
        old: current_id for old, _, current_id in differing if current_id is not None and users is MissingUsers.REMAP
    }
    _check_no_mergers(connection, names, ids)
    _create_users(connection, backup_policy, names, [old for old, _, _ in differing if old not in ids])
    connection.execute(_format("DROP TABLE {loaded}", names))
    return ids


def copy_members(
    connection: psycopg.Connection[Any],
    backup_policy: BackupPolicy,
    source: Tenant,
    tenant: Tenant,
    value: Callable[[str], sql.Composable] = sql.Identifier,
) -> None:
    """Copy the members of one tenant to another, within the open db transaction. `value` gives the SQL expression for
    each column; with it, former members are not copied.
    """
    is_masked = value is not sql.Identifier
    for table in [backup_policy.members] if is_masked else member_tables(connection, backup_policy):
        _copy_member_table(connection, table, source, tenant, value)


def _copy_member_table(
    connection: psycopg.Connection[Any],
    table: str,
    source: Tenant,
    tenant: Tenant,
    value: Callable[[str], sql.Composable],
) -> None:
    own = {"tenant_id": sql.Literal(tenant.id), "tenant_role": sql.Literal(tenant.role_name)}
    columns = shared_columns(connection, table)
    statement = sql.SQL("INSERT INTO {members} ({columns}) SELECT {values} FROM {members} t WHERE tenant_id = {source}")
    connection.execute(
        statement.format(
            members=sql.Identifier(SHARED_SCHEMA, table),
            columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
            values=sql.SQL(", ").join(own.get(column) or value(column) for column in columns),
            source=sql.Literal(source.id),
        )
    )


_CREATE_TABLE: Final = "CREATE TABLE {loaded} AS SELECT {columns} FROM {users} WITH NO DATA"
# The bundle's users whose id does not exist here, each with the id of the user here with the same identifying column.
_DIFFERING: Final = """
    SELECT b.{key}::text, b.{identifier}::text, other.{key}::text
    FROM {loaded} b LEFT JOIN {users} other ON other.{identifier} = b.{identifier}
    WHERE NOT EXISTS (SELECT FROM {users} same WHERE same.{key} = b.{key}) ORDER BY 2"""


def _names(backup_policy: BackupPolicy, schema_name: str) -> dict[str, sql.Composable]:
    key, identifier, *others = (sql.Identifier(column) for column in backup_policy.user_columns)
    return {
        "loaded": sql.Identifier(schema_name, _LOADED_USERS),
        "users": sql.Identifier(SHARED_SCHEMA, backup_policy.users),
        "columns": sql.SQL(", ").join((key, identifier, *others)),
        "key": key,
        "identifier": identifier,
    }


def _format(text: Any, names: Mapping[str, sql.Composable]) -> sql.Composed:
    return sql.SQL(text).format(**names)


def _describe(differing: list[tuple[str, str, str | None]]) -> str:
    lines = [
        f"{printable(identifier)} ({old}) " + (f"has the id {current_id} here" if current_id else "is missing here")
        for old, identifier, current_id in differing[:_SHOWN_USERS]
    ]
    more = f"\nand {len(differing) - len(lines)} more" if len(differing) > len(lines) else ""
    return (
        f"{len(differing)} users of the bundle are missing here or have another id; restore with --users "
        "recreate-disabled or --users remap, or create them first:\n" + "\n".join(lines) + more
    )


def _check_no_mergers(connection: psycopg.Connection[Any], names: Mapping[str, sql.Composable], ids: Ids) -> None:
    """Raises UsersDiffer if a remap would turn two users of the bundle into one, because a user here has the
    identifying column of the one and the id of the other.
    """
    query = _format("SELECT {identifier} FROM {loaded} WHERE {key}::text = ANY(%s) ORDER BY 1", names)
    merged: Iterable[tuple[str]] = connection.execute(query, (list(ids.values()),))
    found = ", ".join(printable(identifier) for (identifier,) in merged)
    if found:
        raise UsersDiffer(
            f"A remap would merge other users of the bundle into these users, who are in it too: {found}. "
            "Nothing was changed: restore with --users recreate-disabled."
        )


def _create_users(
    connection: psycopg.Connection[Any],
    backup_policy: BackupPolicy,
    names: Mapping[str, sql.Composable],
    ids: list[str],
) -> None:
    """Insert users of the bundle with their old ids. If another user has the same identifying column, the new one gets
    an address made from the id (`.invalid` is reserved by RFC 2606).
    """
    _, _, *others = backup_policy.user_columns
    made: dict[str, sql.Composable] = {column: sql.SQL("b.{}").format(sql.Identifier(column)) for column in others}
    made |= {column: sql.SQL(expression) for column, expression in backup_policy.recreated.items()}
    statement = sql.SQL(
        "INSERT INTO {users} ({key}, {identifier}, {made}) SELECT b.{key}, CASE"
        " WHEN EXISTS (SELECT FROM {users} u WHERE u.{identifier} = b.{identifier})"
        " THEN b.{key}::text || '@recreated.invalid' ELSE b.{identifier} END,"
        " {values} FROM {loaded} b WHERE b.{key}::text = ANY(%s)"
    )
    connection.execute(
        statement.format(
            made=sql.SQL(", ").join(map(sql.Identifier, made)), values=sql.SQL(", ").join(made.values()), **names
        ),
        (ids,),
    )
