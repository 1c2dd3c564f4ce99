"""Migrates the retired schemas that restores replaced along with the tenants, so that they can still be put back when
`shared` and the code have moved on.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from psycopg import sql
from sqlalchemy import Connection, Engine

from tenant_schemas import registry
from tenant_schemas.lifecycle.retired_schemas import RetiredSchema, list_retired_schemas
from tenant_schemas.migrations.history import (
    History,
    Migrations,
    Outcome,
    current_revision,
    first_line,
    set_timeouts,
    sqlstate_of,
)
from tenant_schemas.restore.cutover import revoke_schema_rights
from tenant_schemas.roles import become_owner, driver_of
from tenant_schemas.tenant import Tenant

_LOCK_RECORD: Final = "SELECT FROM shared.spare_schemas WHERE schema_name = %s FOR UPDATE"


def migrate_retired_schemas(engine: Engine, migrations: Migrations) -> Iterator[Outcome]:
    """Migrate each replaced schema that is behind to the head, in a db transaction of its own, which locks its record;
    yields the outcome. After a failure the others are still migrated. `engine` logs in as the migrator.
    """
    with engine.connect() as connection:
        replaced = [each for each in list_retired_schemas(connection) if each.reason == "replaced"]
    for retired in replaced:
        if outcome := _outcome_of(engine, migrations, retired):
            yield outcome


def _outcome_of(engine: Engine, migrations: Migrations, retired: RetiredSchema) -> Outcome | None:
    """None for a schema that is not behind: at the head, or a name that is reserved for a renamed tenant."""
    revision = None
    try:
        with engine.begin() as connection:
            set_timeouts(connection)
            revision = current_revision(connection, retired.schema_name)
            if revision is None or revision >= migrations.head(History.TENANT):
                return None
            after = _migrate(connection, migrations, retired, revision)
        return Outcome(retired.schema_name, retired.slug, revision, after)
    except Exception as error:  # noqa: BLE001  Any error is this schema's outcome.
        return Outcome(
            retired.schema_name,
            retired.slug,
            before=revision,
            after=revision,
            error=first_line(error),
            sqlstate=sqlstate_of(error),
        )


def _migrate(connection: Connection, migrations: Migrations, retired: RetiredSchema, revision: str) -> str | None:
    """Returns the new revision; None if the schema was dropped meanwhile. Without its writing rights, which it gets
    until the end of the db transaction, the owner could not migrate rows.
    """
    if not connection.exec_driver_sql(_LOCK_RECORD, (retired.schema_name,)).rowcount:
        return None
    tenant = _tenant_of(connection, retired, revision)
    become_owner(connection, migrations.roles)
    granted = sql.SQL("GRANT INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA {} TO {}").format(
        sql.Identifier(retired.schema_name), sql.Identifier(migrations.roles.owner)
    )
    driver_of(connection).execute(granted)
    after = migrations.upgrade_tenant(connection, tenant)
    become_owner(connection, migrations.roles)
    revoke_schema_rights(connection, tenant, migrations.roles)
    return after


def _tenant_of(connection: Connection, retired: RetiredSchema, revision: str) -> Tenant:
    tenant = registry.get_tenant_by_id(connection, retired.tenant_id)
    return replace(tenant, schema_name=retired.schema_name, revision=revision)
