"""Schemas that are no tenant's, known in `shared.spare_schemas`: on their way to be one, or replaced, or a name that
rests. Each is dropped after its time, and never one that a tenant of the registry has.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, Engine

from tenant_schemas.errors import NotRetired
from tenant_schemas.lifecycle.ddl import remove_role, remove_schema
from tenant_schemas.migrations.history import first_line, set_timeouts
from tenant_schemas.roles import stop_being_owner
from tenant_schemas.tenant import Tenant, check_name

NAME_MAX_LENGTH: Final = 63  # PostgreSQL's own: a retired's name may be a tenant's and more.
_COLUMNS: Final = "schema_name, tenant_id, slug, role_name, reason, since, drop_after, drop_after <= now()"


@dataclass(frozen=True, slots=True)
class RetiredSchema:
    """One row of `shared.spare_schemas`; `is_due` when its time was over as it was read."""

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
    """What became of one retired; with an `error` it is still there."""

    schema_name: str
    error: str | None = None


def record_retired_schema(
    connection: Connection,
    *,
    schema_name: str,
    tenant: Tenant,
    reason: str,
    drop_after: datetime,
    role_name: str | None = None,
) -> None:
    """Record a schema as retired, whether it exists or not, in the migrator's or owner's db transaction. `role_name`
    is the login to drop with it. Raises NameRefused.
    """
    connection.exec_driver_sql(
        "INSERT INTO shared.spare_schemas (schema_name, tenant_id, slug, role_name, reason, drop_after)"
        " VALUES (%s, %s, %s, %s, %s, %s)",
        (check_name(schema_name, NAME_MAX_LENGTH), tenant.id, tenant.slug, role_name, reason, drop_after),
    )


def claim_retired_schema(connection: Connection, schema_name: str) -> None:
    """Delete the record of a retired schema, for the tenant that gets the schema in the same db transaction; from then
    on it can't be dropped as a retired schema. Raises NotRetired if there is no record, for instance after a drop.
    """
    gone = "DELETE FROM shared.spare_schemas WHERE schema_name = %s"
    if not connection.exec_driver_sql(gone, (schema_name,)).rowcount:
        raise NotRetired(f"Schema {schema_name} is no retired schema.")


def list_retired_schemas(connection: Connection) -> list[RetiredSchema]:
    """All of them, those due first."""
    rows = connection.exec_driver_sql(f"SELECT {_COLUMNS} FROM shared.spare_schemas ORDER BY drop_after, schema_name")  # noqa: S608
    return [RetiredSchema(*row) for row in rows]


def drop_retired_schema(connection: Connection, schema_name: str) -> None:
    """Drop a retired schema, its recorded login, and the record, in the migrator's db transaction, which acts as the
    migrator itself afterwards. The caller sets the time-outs. Raises NotRetired without a record, or if a tenant's.
    """
    stop_being_owner(connection)
    locked = f"SELECT {_COLUMNS} FROM shared.spare_schemas WHERE schema_name = %s FOR UPDATE"  # noqa: S608
    row = connection.exec_driver_sql(locked, (schema_name,)).one_or_none()
    if row is None:
        raise NotRetired(f"Schema {schema_name} is no retired schema.")
    retired = RetiredSchema(*row)
    _refuse_in_use(connection, retired)
    connection.exec_driver_sql("DELETE FROM shared.spare_schemas WHERE schema_name = %s", (schema_name,))
    remove_schema(connection, check_name(schema_name, NAME_MAX_LENGTH))
    if retired.role_name:
        remove_role(connection, retired.role_name)


def drop_retired_schema_now(engine: Engine, schema_name: str) -> None:
    """The same in a db transaction of its own. Raises what `drop_retired_schema` raises."""
    with engine.begin() as connection:
        set_timeouts(connection)
        drop_retired_schema(connection, schema_name)


def drop_retired_schemas(engine: Engine, names: Sequence[str] = ()) -> Iterator[DropOutcome]:
    """Drop those named, or all that are due, each in a db transaction of its own; one that fails stops no other."""
    with engine.connect() as connection:
        chosen = names or [retired.schema_name for retired in list_retired_schemas(connection) if retired.is_due]
    for schema_name in chosen:
        try:
            drop_retired_schema_now(engine, schema_name)
        except Exception as error:  # noqa: BLE001  Whatever it is, it is this schema's outcome.
            yield DropOutcome(schema_name, first_line(error))
        else:
            yield DropOutcome(schema_name)


def _refuse_in_use(connection: Connection, retired: RetiredSchema) -> None:
    query = "SELECT slug FROM shared.tenants WHERE schema_name = %s OR role_name = %s"
    slug = connection.exec_driver_sql(query, (retired.schema_name, retired.role_name)).scalar()
    if slug is not None:
        raise NotRetired(f"Schema {retired.schema_name}, or its role, is tenant {slug}'s: it is not dropped.")
