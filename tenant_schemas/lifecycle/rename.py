"""Gives a tenant another slug, and so its role another name, and its schema another one too if that is wanted.

A function that keeps its path for good knows its schema by name: after a rename it would write into whatever schema
takes the old name. So each is given the new path in the db transaction of the rename, which is refused unless nothing
in the schema goes by the old name any more; and the old name rests, taken by an empty schema, until nobody can mean
the tenant by it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final, LiteralString

from psycopg import sql
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from tenant_schemas.errors import RenameRefused
from tenant_schemas.lifecycle.lock_retry import lock_tables
from tenant_schemas.lifecycle.retired_schemas import record_retired_schema
from tenant_schemas.migrations.history import sqlstate_of
from tenant_schemas.registry import lock_tenant_by_slug, set_names
from tenant_schemas.roles import ServiceRoles, become_owner
from tenant_schemas.schema_diff.catalog import fingerprints_of, objects_of
from tenant_schemas.search_path import pin_functions, set_role_default
from tenant_schemas.tenant import SHARED_SCHEMA, Tenant, check_schema_name, check_slug, role_name_of

NAME_RESTS: Final = timedelta(days=1)
# unique_violation, duplicate_object, duplicate_schema
_TAKEN: Final = frozenset({"23505", "42710", "42P06"})


def rename(
    connection: Connection,
    roles: ServiceRoles,
    slug: str,
    new_slug: str,
    *,
    schema_name: str | None = None,
    name: str | None = None,
    reserved_slugs: frozenset[str] = frozenset(),
) -> Tenant:
    """Rename a tenant within the migrator's open db transaction, which then acts as the owner, bound to no schema;
    returns it as it then is. The new slug may be the old one, for a new schema name or name alone. Commits nothing.

    Open connections and tokens go on after a change of slug. After a change of the schema's name, for which nobody may
    be using its tables, they find nothing by the old one and fail, until they are opened anew for the changed registry
    row. Raises TenantNotFound, NameRefused, LifecycleError, and then the db transaction is to be rolled back.
    """
    check_slug(new_slug, reserved_slugs)
    before = lock_tenant_by_slug(connection, slug)
    after = replace(
        before,
        slug=new_slug,
        role_name=role_name_of(new_slug),
        schema_name=check_schema_name(schema_name or before.schema_name),
        name=name or before.name,
    )
    if after == before:
        raise RenameRefused(f"That is what tenant {slug!r} is called already.")
    _rename(connection, roles, before, after)
    return after


def _rename(connection: Connection, roles: ServiceRoles, before: Tenant, after: Tenant) -> None:
    words = fingerprints_of(connection, [before])
    with _unless_taken(f"Slug {after.slug!r} or schema {after.schema_name!r} is another tenant's."):
        set_names(connection, after)
    if after.role_name != before.role_name:
        with _unless_taken(f"Role {after.role_name!r} exists on this server and is no tenant's of this database."):
            _run(connection, "ALTER ROLE {} RENAME TO {}", before.role_name, after.role_name)
    if after.schema_name != before.schema_name:
        connection.exec_driver_sql(set_role_default(after.role_name, after.schema_name))
        become_owner(connection, roles)
        _rename_schema(connection, before, after)
    become_owner(connection, roles)
    _prove(connection, before, after, words.get(before.schema_name))


def _rename_schema(connection: Connection, before: Tenant, after: Tenant) -> None:
    # A db transaction that has used its tables learns of no change until it needs another one: it would go on with the
    # functions' old paths in the middle of a posting.
    lock_tables(connection, before.schema_name, "ACCESS EXCLUSIVE")
    taken = (
        f"Schema {after.schema_name!r} exists and is no tenant's; `drop_retired_schemas --list` may tell what it is."
    )
    with _unless_taken(taken):
        _run(connection, "ALTER SCHEMA {} RENAME TO {}", before.schema_name, after.schema_name)
    pin_functions(connection, after.schema_name)
    _run(connection, "CREATE SCHEMA {}", before.schema_name)
    rests_until = datetime.now(UTC) + NAME_RESTS
    record_retired_schema(
        connection, schema_name=before.schema_name, tenant=after, reason="replaced", drop_after=rests_until
    )


def _prove(connection: Connection, before: Tenant, after: Tenant, words: str | None) -> None:
    """The schema is word for word what it was but for its own name, and no text in it or in `shared` has the old names:
    before a dot, or in quotation marks, as in a path or a condition.
    """
    if words is None or fingerprints_of(connection, [after]).get(after.schema_name) != words:
        raise RenameRefused(
            f"As {after.schema_name} it would read otherwise than as {before.schema_name}: some text in it has one of "
            "the two names. Nothing was changed."
        )
    old = {before.schema_name, before.role_name} - {after.schema_name, after.role_name}
    forms = re.compile("|".join(rf"\b{name}\.|'{name}'|\"{name}\"" for name in old) or "(?!)")
    found = [
        f"{kind} {schema.schema_name}.{name}"
        for schema in (after, replace(after, schema_name=SHARED_SCHEMA))
        for (kind, name), text in objects_of(connection, schema).items()
        if forms.search(text)
    ]
    if found:
        raise RenameRefused(f"These go by the old name in their text: {', '.join(sorted(found))}. Nothing was changed.")


@contextmanager
def _unless_taken(message: str) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if sqlstate_of(error) in _TAKEN:
            raise RenameRefused(f"{message} Nothing was changed.") from error
        raise


def _run(connection: Connection, statement: LiteralString, *names: str) -> None:
    connection.exec_driver_sql(sql.SQL(statement).format(*map(sql.Identifier, names)).as_string())
