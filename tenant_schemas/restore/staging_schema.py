"""A retired schema for as long as something is made of it: noted in `shared.spare_schemas` before all else, and dropped
again unless a tenant has got it by then. After a kill the note is left, and who comes next finds it.
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

# Nothing that runs takes this long; what is found noted after it was killed.
_LEFT_OVER_AFTER: Final = timedelta(days=1)


@contextmanager
def staging_schema(
    engine: Engine, migrations: Migrations, tenant: Tenant, *, reason: str, password: str | None = None
) -> Iterator[list[str]]:
    """Make the tenant's schema at its revision and empty, committed; with a password its login too, which can't yet log
    in. Nobody but the owner may use the schema. Drop all of it if the block raises, or nobody has claimed it; where it
    can't be, since somebody has locked what it refers to, it is due from then on, and said to be left: in the error's
    notes, or in the list that the block is given.
    """
    left: list[str] = []
    with engine.begin() as connection:
        set_timeouts(connection)
        _make(connection, migrations, tenant, reason, password)
    try:
        yield left
    except BaseException as error:
        for told in _drop(engine, tenant.schema_name):
            error.add_note(told)
        raise
    left += _drop(engine, tenant.schema_name)


def _make(connection: Connection, migrations: Migrations, tenant: Tenant, reason: str, password: str | None) -> None:
    due = datetime.now(UTC) + _LEFT_OVER_AFTER
    makes_role = tenant.role_name if password else None
    record_retired_schema(
        connection,
        schema_name=tenant.schema_name,
        tenant=tenant,
        reason=reason,
        drop_after=due,
        role_name=makes_role,
    )
    names = {"schema": sql.Identifier(tenant.schema_name), "role": sql.Identifier(tenant.role_name)}
    if password:
        create_tenant_role(connection, tenant, password, migrations.roles)
        connection.exec_driver_sql(sql.SQL("ALTER ROLE {role} NOLOGIN").format(**names).as_string())
    become_owner(connection, migrations.roles)
    make_schema(connection, migrations, tenant)
    connection.exec_driver_sql(sql.SQL("REVOKE USAGE ON SCHEMA {schema} FROM {role}").format(**names).as_string())


def _drop(engine: Engine, schema_name: str) -> list[str]:
    """What is to be told if it could not be. No error: what was made of the schema failed or held before."""
    try:
        with suppress(NotRetired):  # Claimed: a tenant has it now.
            drop_retired_schema_now(engine, schema_name)
    except (TenancyError, SQLAlchemyError, psycopg.Error) as error:
        with suppress(SQLAlchemyError, psycopg.Error), engine.begin() as connection:
            set_timeouts(connection)
            due = "UPDATE shared.spare_schemas SET drop_after = now() WHERE schema_name = %s"
            connection.exec_driver_sql(due, (schema_name,))
        command = f"python -m scripts.drop_retired_schemas --now {schema_name}"
        return [f"Schema {schema_name} could not be dropped and is left: {first_line(error)} Later, run `{command}`."]
    return []


def lock_retired_schema(connection: psycopg.Connection[Any], schema_name: str) -> None:
    """Keep the note from whoever drops retired until the db transaction ends. Raises RestoreRefused if it is gone."""
    query = "SELECT FROM shared.spare_schemas WHERE schema_name = %s FOR UPDATE"
    if connection.execute(query, (schema_name,)).fetchone() is None:
        raise RestoreRefused(f"Somebody dropped {schema_name} while it was being made.")


def drop_abandoned_schemas(engine: Engine, tenant: Tenant) -> None:
    """Drop what a restore of this tenant left when it was killed. Raises RestoreRefused if it is still at work."""
    with engine.connect() as connection:
        left = [
            retired
            for retired in list_retired_schemas(connection)
            if retired.reason == "restoring" and (retired.tenant_id == tenant.id or retired.slug == tenant.slug)
        ]
    for retired in left:
        try:
            drop_retired_schema_now(engine, retired.schema_name)
        except NotRetired:
            continue  # It has just ended.
        except DBAPIError as error:
            if isinstance(error.orig, psycopg.errors.LockNotAvailable):
                raise RestoreRefused(
                    f"{retired.schema_name} is being made for {retired.slug} at this moment."
                ) from None
            raise


def with_free_schema_name(connection: Connection, tenant: Tenant) -> Tenant:
    """The tenant in its schema if that name is free, else in one with the time behind a cut name."""
    now = datetime.now(UTC)
    suffixes = ("", *((now + timedelta(seconds=number)).strftime("_r%Y%m%d%H%M%S") for number in range(60)))
    names = [tenant.schema_name[: SCHEMA_NAME_MAX_LENGTH - len(suffix)] + suffix for suffix in suffixes]
    taken = """
        SELECT nspname::text FROM pg_catalog.pg_namespace WHERE nspname::text = ANY(%(names)s)
        UNION SELECT schema_name FROM shared.spare_schemas WHERE schema_name = ANY(%(names)s)"""
    found = set(connection.exec_driver_sql(taken, {"names": names}).scalars())
    return replace(tenant, schema_name=next(name for name in names if name not in found))
