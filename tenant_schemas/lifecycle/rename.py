"""Renames a tenant: its slug and role, and optionally its schema and display name.

A function with a pinned search_path names its schema: without a new path it would write into whatever schema gets the
old name next. So the rename sets the new path of every function in the same db transaction, and is refused if any other
text in the schema still contains an old name. An empty retired schema reserves the old schema name for a day.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
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
from tenant_schemas.tenant import SHARED_SCHEMA, Tenant, check_display_name, check_schema_name, check_slug, role_name_of
from tenant_schemas.visits import check_schema

OLD_NAME_RESERVED: Final = timedelta(days=1)
# unique_violation, duplicate_object, duplicate_schema
_NAME_IN_USE: Final = frozenset({"23505", "42710", "42P06"})


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
    returns the renamed tenant. The slug may stay the same. The caller commits, or rolls back after an error.

    A new slug leaves open connections and tokens working. A new schema name takes ACCESS EXCLUSIVE locks on the
    tenant's tables, and open connections then fail until they are reopened for the changed registry row. Raises
    TenantNotFound, SchemaMissing, NameRefused, LifecycleError.
    """
    check_slug(new_slug, reserved_slugs)
    if name is not None:
        check_display_name(name)
    before = lock_tenant_by_slug(connection, slug)
    check_schema(connection, before)
    after = replace(
        before,
        slug=new_slug,
        role_name=role_name_of(new_slug),
        schema_name=check_schema_name(schema_name or before.schema_name),
        name=name or before.name,
    )
    if after == before:
        raise RenameRefused(f"Tenant {slug!r} already has these names. Nothing was changed.")
    _rename(connection, roles, before, after)
    return after


def _rename(connection: Connection, roles: ServiceRoles, before: Tenant, after: Tenant) -> None:
    fingerprints = fingerprints_of(connection, [before])
    with _refused_if_in_use(f"Another tenant has slug {after.slug!r} or schema {after.schema_name!r}: choose others."):
        set_names(connection, after)
    if after.role_name != before.role_name:
        with _refused_if_in_use(
            f"Role {after.role_name!r} exists on this server and belongs to no tenant of this database: "
            "choose another slug, or drop the role."
        ):
            _run(connection, "ALTER ROLE {} RENAME TO {}", before.role_name, after.role_name)
    if after.schema_name != before.schema_name:
        connection.exec_driver_sql(set_role_default(after.role_name, after.schema_name))
        become_owner(connection, roles)
        _rename_schema(connection, before, after)
    become_owner(connection, roles)
    _check_old_names_gone(connection, before, after, fingerprints.get(before.schema_name))


def _rename_schema(connection: Connection, before: Tenant, after: Tenant) -> None:
    # A db transaction that has used the tables keeps its cached function paths until it takes a new lock: it could
    # write through an old path in the middle of a posting. So wait until no db transaction uses the tables.
    lock_tables(connection, before.schema_name, "ACCESS EXCLUSIVE")
    with _refused_if_in_use(
        f"Schema {after.schema_name!r} exists and belongs to no tenant: choose another name, "
        "or look for it in `python -m scripts.drop_retired_schemas --list`."
    ):
        _run(connection, "ALTER SCHEMA {} RENAME TO {}", before.schema_name, after.schema_name)
    pin_functions(connection, after.schema_name)
    _run(connection, "CREATE SCHEMA {}", before.schema_name)
    record_retired_schema(
        connection, schema_name=before.schema_name, tenant=after, reason="replaced", keep=OLD_NAME_RESERVED
    )


def _check_old_names_gone(connection: Connection, before: Tenant, after: Tenant, fingerprint: str | None) -> None:
    """Raises RenameRefused if the schema's fingerprint changed, or if any object's text in the schema or in `shared`
    still has an old name before a dot or in quotation marks.
    """
    if fingerprint is None or fingerprints_of(connection, [after]).get(after.schema_name) != fingerprint:
        raise RenameRefused(
            f"Some object in schema {before.schema_name} contains that name or {after.schema_name} in its text, so its "
            "meaning would change. Nothing was changed: correct the object, or choose another schema name."
        )
    old_names = {before.schema_name, before.role_name} - {after.schema_name, after.role_name}
    mention = re.compile("|".join(rf"\b{name}\.|'{name}'|\"{name}\"" for name in old_names) or "(?!)")
    found = [
        f"{kind} {schema.schema_name}.{name}"
        for schema in (after, replace(after, schema_name=SHARED_SCHEMA))
        for (kind, name), text in objects_of(connection, schema).items()
        if mention.search(text)
    ]
    if found:
        raise RenameRefused(
            f"These objects contain the old name in their text: {', '.join(sorted(found))}. "
            "Nothing was changed: correct them first."
        )


@contextmanager
def _refused_if_in_use(message: str) -> Iterator[None]:
    """Raises RenameRefused with this message if a statement of the block needs a name that exists."""
    try:
        yield
    except DBAPIError as error:
        if sqlstate_of(error) in _NAME_IN_USE:
            raise RenameRefused(f"{message} Nothing was changed.") from error
        raise


def _run(connection: Connection, statement: LiteralString, *names: str) -> None:
    connection.exec_driver_sql(sql.SQL(statement).format(*map(sql.Identifier, names)).as_string())
