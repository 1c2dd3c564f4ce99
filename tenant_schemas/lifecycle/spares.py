"""Schemas that are no tenant's, known in `shared.spare_schemas`: on their way to be one, or replaced, or a name that
rests. Each is dropped after its time, and never one that a tenant of the registry has.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, Engine

from tenant_schemas.errors import SpareRefused
from tenant_schemas.lifecycle.removing import remove_role, remove_schema
from tenant_schemas.migrations import first_line, set_timeouts
from tenant_schemas.roles import stop_being_owner
from tenant_schemas.tenant import Tenant, check_name

NAME_MAX_LENGTH: Final = 63  # PostgreSQL's own: a spare's name may be a tenant's and more.
_COLUMNS: Final = "schema_name, tenant_id, slug, role_name, reason, since, drop_after, drop_after <= now()"


@dataclass(frozen=True, slots=True)
class Spare:
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
class SpareOutcome:
    """What became of one spare; with an `error` it is still there."""

    schema_name: str
    error: str | None = None


def note_spare(
    connection: Connection,
    *,
    schema_name: str,
    tenant: Tenant,
    reason: str,
    drop_after: datetime,
    role_name: str | None = None,
) -> None:
    """Note a schema as spare, made or not, in the migrator's or owner's db transaction. `role_name` is that of a login
    to be dropped with it. Raises NameRefused.
    """
    connection.exec_driver_sql(
        "INSERT INTO shared.spare_schemas (schema_name, tenant_id, slug, role_name, reason, drop_after)"
        " VALUES (%s, %s, %s, %s, %s, %s)",
        (check_name(schema_name, NAME_MAX_LENGTH), tenant.id, tenant.slug, role_name, reason, drop_after),
    )


def claim_spare(connection: Connection, schema_name: str) -> None:
    """Take a spare schema out of the notes, for a tenant that gets it in the same db transaction: from then on it can't
    be dropped as a spare. Raises SpareRefused if it is none, perhaps because it was just dropped.
    """
    gone = "DELETE FROM shared.spare_schemas WHERE schema_name = %s"
    if not connection.exec_driver_sql(gone, (schema_name,)).rowcount:
        raise SpareRefused(f"Schema {schema_name} is no spare schema.")


def list_spares(connection: Connection) -> list[Spare]:
    """All of them, those due first."""
    rows = connection.exec_driver_sql(f"SELECT {_COLUMNS} FROM shared.spare_schemas ORDER BY drop_after, schema_name")  # noqa: S608
    return [Spare(*row) for row in rows]


def drop_spare(connection: Connection, schema_name: str) -> None:
    """Drop a spare schema, its login where one is noted, and the note, in the migrator's db transaction. That then acts
    as the migrator itself; time-outs are the caller's. Raises SpareRefused if a tenant has it, or it is noted nowhere.
    """
    stop_being_owner(connection)
    locked = f"SELECT {_COLUMNS} FROM shared.spare_schemas WHERE schema_name = %s FOR UPDATE"  # noqa: S608
    row = connection.exec_driver_sql(locked, (schema_name,)).one_or_none()
    if row is None:
        raise SpareRefused(f"Schema {schema_name} is no spare schema.")
    spare = Spare(*row)
    _refuse_in_use(connection, spare)
    connection.exec_driver_sql("DELETE FROM shared.spare_schemas WHERE schema_name = %s", (schema_name,))
    remove_schema(connection, check_name(schema_name, NAME_MAX_LENGTH))
    if spare.role_name:
        remove_role(connection, spare.role_name)


def drop_spare_now(engine: Engine, schema_name: str) -> None:
    """The same in a db transaction of its own. Raises what `drop_spare` raises."""
    with engine.begin() as connection:
        set_timeouts(connection)
        drop_spare(connection, schema_name)


def drop_spares(engine: Engine, names: Sequence[str] = ()) -> Iterator[SpareOutcome]:
    """Drop those named, or all that are due, each in a db transaction of its own; one that fails stops no other."""
    with engine.connect() as connection:
        chosen = names or [spare.schema_name for spare in list_spares(connection) if spare.is_due]
    for schema_name in chosen:
        try:
            drop_spare_now(engine, schema_name)
        except Exception as error:  # noqa: BLE001  Whatever it is, it is this schema's outcome.
            yield SpareOutcome(schema_name, first_line(error))
        else:
            yield SpareOutcome(schema_name)


def _refuse_in_use(connection: Connection, spare: Spare) -> None:
    query = "SELECT slug FROM shared.tenants WHERE schema_name = %s OR role_name = %s"
    slug = connection.exec_driver_sql(query, (spare.schema_name, spare.role_name)).scalar()
    if slug is not None:
        raise SpareRefused(f"Schema {spare.schema_name}, or its role, is tenant {slug}'s: it is not dropped.")
