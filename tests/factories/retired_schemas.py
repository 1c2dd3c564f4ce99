"""Retired schemas to drop or to keep, and queries of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import sqlalchemy as sa

from tenant_schemas.lifecycle.retired_schemas import (
    list_retired_schemas,
    record_retired_schema,
)
from tenant_schemas.migrations.history import set_timeouts
from tenant_schemas.roles import become_owner
from tenant_schemas.testing.plugin import Database

# How long a schema is kept: it was due yesterday, or is due tomorrow.
YESTERDAY, TOMORROW = timedelta(days=-1), timedelta(days=1)


@contextmanager
def as_owner(database: Database) -> Iterator[sa.Connection]:
    with database.admin_engine().begin() as connection:
        set_timeouts(connection)
        become_owner(connection, database.roles)
        yield connection


def make_retired_schema(database: Database, name: str, keep: timedelta, role_name: str | None = None) -> None:
    """A schema with a table that refers to a table of `shared`, like tenants' tables."""
    with as_owner(database) as connection:
        record_retired_schema(
            connection,
            schema_name=name,
            tenant=database.tenant("km"),
            reason="replaced",
            keep=keep,
            role_name=role_name,
        )
        connection.exec_driver_sql(f"CREATE SCHEMA {name}")
        connection.exec_driver_sql(f"CREATE TABLE {name}.things (user_id uuid REFERENCES shared.users (id))")


def schemas(database: Database) -> set[str]:
    return {name for (name,) in database.as_superuser().execute("SELECT nspname::text FROM pg_namespace")}


def noted(database: Database) -> list[str]:
    with database.admin_engine().connect() as connection:
        return [retired.schema_name for retired in list_retired_schemas(connection)]
