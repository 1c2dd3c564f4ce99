"""The staging schema of a restore, clone or verification: recorded as retired before it is filled, and dropped at the
end unless a tenant has claimed it. After a kill the record stays, and the next restore drops the schema.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
from psycopg import sql
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from tenant_schemas.errors import NotRetired, RestoreRefused, TenancyError
from tenant_schemas.lifecycle.provision import make_schema
from tenant_schemas.lifecycle.retired_schemas import (
    drop_retired_schema_now,
    list_retired_schemas,
    record_retired_schema,
)
from tenant_schemas.migrations.history import Migrations, first_line, set_timeouts
from tenant_schemas.roles import become_owner, create_tenant_role
from tenant_schemas.tenant import SCHEMA_NAME_MAX_LENGTH, Tenant

# Longer than any restore: a staging schema with an older record was left by a killed process.
_ABANDONED_AFTER: Final = timedelta(days=1)


@contextmanager
def staging_schema(
    engine: Engine, migrations: Migrations, tenant: Tenant, *, reason: str, password: str | None = None
) -> Iterator[list[str]]:
    """Make the tenant's schema at its revision, usable by the owner only; commits. With a password also make its login
    role, still NOLOGIN. At the end drop both, unless a tenant has claimed the schema.

    If the drop fails because tables are in use, the schema becomes due for `drop_retired_schemas`, and a warning is
    added to the error's notes, or to the list that the block gets.
    """
    warnings: list[str] = []
    with engine.begin() as connection:
        set_timeouts(connection)
        _make_schema(connection, migrations, tenant, reason, password)
    try:
        yield warnings
    except BaseException as error:
        for warning in _drop_schema(engine, tenant.schema_name):
            error.add_note(warning)
        raise
    warnings += _drop_schema(engine, tenant.schema_name)


def _make_schema(
    connection: Connection, migrations: Migrations, tenant: Tenant, reason: str, password: str | None
) -> None:
    role_name = tenant.role_name if password else None
    record_retired_schema(
        connection,
        schema_name=tenant.schema_name,
        tenant=tenant,
        reason=reason,
        keep=_ABANDONED_AFTER,
        role_name=role_name,
    )
    names = {"schema": sql.Identifier(tenant.schema_name), "role": sql.Identifier(tenant.role_name)}
    if password:
        create_tenant_role(connection, tenant, password, migrations.roles)
        connection.exec_driver_sql(sql.SQL("ALTER ROLE {role} NOLOGIN").format(**names).as_string())
    become_owner(connection, migrations.roles)
    make_schema(connection, migrations, tenant)
    connection.exec_driver_sql(sql.SQL("REVOKE USAGE ON SCHEMA {schema} FROM {role}").format(**names).as_string())


def _drop_schema(engine: Engine, schema_name: str) -> list[str]:
    """Drop the schema if no tenant has claimed it. Returns a warning if that fails, because the outcome of the block is
    already decided.
    """
    try:
        with suppress(NotRetired):  # Claimed: a tenant has it now.
            drop_retired_schema_now(engine, schema_name)
    except (TenancyError, SQLAlchemyError, psycopg.Error) as error:
        with suppress(SQLAlchemyError, psycopg.Error), engine.begin() as connection:
            set_timeouts(connection)
            due = "UPDATE shared.spare_schemas SET drop_after = now() WHERE schema_name = %s"
            connection.exec_driver_sql(due, (schema_name,))
        command = f"python -m scripts.drop_retired_schemas --now {schema_name}"
        return [f"Could not drop schema {schema_name}: {first_line(error)} Run `{command}` later."]
    return []


def lock_retired_schema(connection: psycopg.Connection[Any], schema_name: str) -> None:
    """Lock the record of a retired schema until the db transaction ends, so that it is not dropped. Raises
    RestoreRefused if there is no record.
    """
    query = "SELECT FROM shared.spare_schemas WHERE schema_name = %s FOR UPDATE"
    if connection.execute(query, (schema_name,)).fetchone() is None:
        raise RestoreRefused(f"Schema {schema_name} was dropped by another session before it was filled: run it again.")


def drop_abandoned_schemas(engine: Engine, tenant: Tenant) -> None:
    """Drop the staging schemas that killed restores of this tenant left. Raises RestoreRefused if one is in use."""
    with engine.connect() as connection:
        abandoned = [
            retired
            for retired in list_retired_schemas(connection)
            if retired.reason == "restoring" and (retired.tenant_id == tenant.id or retired.slug == tenant.slug)
        ]
    for retired in abandoned:
        try:
            drop_retired_schema_now(engine, retired.schema_name)
        except NotRetired:
            continue  # That restore has ended meanwhile.
        except DBAPIError as error:
            if isinstance(error.orig, psycopg.errors.LockNotAvailable):
                raise RestoreRefused(
                    f"Another restore or clone is filling schema {retired.schema_name} for {retired.slug} at this "
                    "moment: wait until it has ended."
                ) from None
            raise


def with_free_schema_name(connection: Connection, tenant: Tenant) -> Tenant:
    """The tenant with its schema name if that is unused, else with a shortened name and a timestamp. A name that the
    registry has is used, also if that schema is gone: an unfinished schema would be taken for the tenant's own.
    """
    now = datetime.now(UTC)
    suffixes = ("", *((now + timedelta(seconds=number)).strftime("_r%Y%m%d%H%M%S") for number in range(60)))
    names = [tenant.schema_name[: SCHEMA_NAME_MAX_LENGTH - len(suffix)] + suffix for suffix in suffixes]
    query = """
        SELECT nspname::text FROM pg_catalog.pg_namespace WHERE nspname::text = ANY(%(names)s)
        UNION SELECT schema_name FROM shared.spare_schemas WHERE schema_name = ANY(%(names)s)
        UNION SELECT schema_name FROM shared.tenants WHERE schema_name = ANY(%(names)s)"""
    used = set(connection.exec_driver_sql(query, {"names": names}).scalars())
    return replace(tenant, schema_name=next(name for name in names if name not in used))
