"""Retired schemas: schemas that belong to no tenant and are recorded in `shared.spare_schemas`, their older name.

A schema is retired while a restore, clone or verification fills it, after a restore replaced it, or to reserve the old
name after a rename. It may be dropped after `drop_after`, and never while the registry assigns it to a tenant.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, Engine

from tenant_schemas.errors import NotRetired
from tenant_schemas.lifecycle.ddl import drop_role, drop_schema
from tenant_schemas.migrations.history import first_line, set_timeouts
from tenant_schemas.roles import stop_being_owner
from tenant_schemas.tenant import Tenant, check_name

NAME_MAX_LENGTH: Final = 63  # PostgreSQL's limit; a retired schema's name may be longer than a tenant's schema name.
_COLUMNS: Final = "schema_name, tenant_id, slug, role_name, reason, since, drop_after, drop_after <= now()"


@dataclass(frozen=True, slots=True)
class RetiredSchema:
    """One row of `shared.spare_schemas`; `is_due` says whether `drop_after` had passed when it was read."""

    schema_name: str
    tenant_id: UUID
    slug: str
    role_name: str | None
    reason: str
    since: datetime
    drop_after: datetime
    is_due: bool


@dataclass(frozen=True, slots=True)
class DropOutcome:
    """The outcome for one retired schema; with an `error` it still exists."""

    schema_name: str
    error: str | None = None


def record_retired_schema(
    connection: Connection,
    *,
    schema_name: str,
    tenant: Tenant,
    reason: str,
    keep: timedelta,
    role_name: str | None = None,
) -> None:
    """Record a schema as retired, whether it exists or not, within the migrator's or owner's db transaction. It is due
    when `keep` has passed on the server's clock. `role_name` is a login role to drop with it. Raises NameRefused.
    """
    connection.exec_driver_sql(
        "INSERT INTO shared.spare_schemas (schema_name, tenant_id, slug, role_name, reason, since, drop_after)"
        " VALUES (%s, %s, %s, %s, %s, clock_timestamp(), clock_timestamp() + %s)",
        (check_name(schema_name, NAME_MAX_LENGTH), tenant.id, tenant.slug, role_name, reason, keep),
    )


def claim_retired_schema(connection: Connection, schema_name: str) -> None:
    """Delete the record of a retired schema in the db transaction that assigns the schema to a tenant. Raises
    NotRetired if there is no record, for example because the schema was dropped.
    """
    deletion = "DELETE FROM shared.spare_schemas WHERE schema_name = %s"
    if not connection.exec_driver_sql(deletion, (schema_name,)).rowcount:
        raise NotRetired(_no_record(schema_name))


def list_retired_schemas(connection: Connection) -> list[RetiredSchema]:
    """All retired schemas, by `drop_after`."""
    rows = connection.exec_driver_sql(f"SELECT {_COLUMNS} FROM shared.spare_schemas ORDER BY drop_after, schema_name")  # noqa: S608
    return [RetiredSchema(*row) for row in rows]


def drop_retired_schema(connection: Connection, schema_name: str) -> None:
    """Drop a retired schema, its recorded login role and its record, within the migrator's db transaction, which acts
    as the migrator afterwards. Locks the record. The caller sets the timeouts. Raises NotRetired if there is no record
    or a tenant uses the schema or role, and LifecycleError if tables are in use.
    """
    stop_being_owner(connection)
    locked = f"SELECT {_COLUMNS} FROM shared.spare_schemas WHERE schema_name = %s FOR UPDATE"  # noqa: S608
    row = connection.exec_driver_sql(locked, (schema_name,)).one_or_none()
    if row is None:
        raise NotRetired(_no_record(schema_name))
    retired = RetiredSchema(*row)
    _check_unused(connection, retired)
    connection.exec_driver_sql("DELETE FROM shared.spare_schemas WHERE schema_name = %s", (schema_name,))
    drop_schema(connection, check_name(schema_name, NAME_MAX_LENGTH))
    if retired.role_name:
        drop_role(connection, retired.role_name)


def drop_retired_schema_now(engine: Engine, schema_name: str) -> None:
    """`drop_retired_schema` in its own db transaction, committed. Raises the same errors."""
    with engine.begin() as connection:
        set_timeouts(connection)
        drop_retired_schema(connection, schema_name)


def drop_retired_schemas(engine: Engine, names: Sequence[str] = ()) -> Iterator[DropOutcome]:
    """Drop the named retired schemas, or all that are due, each in its own db transaction. After a failure the others
    are still dropped.
    """
    with engine.connect() as connection:
        chosen = names or [retired.schema_name for retired in list_retired_schemas(connection) if retired.is_due]
    for schema_name in chosen:
        try:
            drop_retired_schema_now(engine, schema_name)
        except Exception as error:  # noqa: BLE001  Any error is this schema's outcome.
            yield DropOutcome(schema_name, first_line(error))
        else:
            yield DropOutcome(schema_name)


def _no_record(schema_name: str) -> str:
    return f"Schema {schema_name} is no retired schema: shared.spare_schemas has no row for it. Nothing was changed."


def _check_unused(connection: Connection, retired: RetiredSchema) -> None:
    query = "SELECT slug FROM shared.tenants WHERE schema_name = %s OR role_name = %s"
    slug = connection.exec_driver_sql(query, (retired.schema_name, retired.role_name)).scalar()
    if slug is not None:
        raise NotRetired(f"Schema {retired.schema_name} was not dropped: tenant {slug} uses it or its role.")
