"""What a restore would change, read without changing anything: the rows, proofs, members and settings of the bundle and
of the living tenant.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import sql
from sqlalchemy import Connection

from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.backup.data_time import DataTime, read_data_time
from tenant_schemas.backup.table_io import pin_session
from tenant_schemas.lifecycle.provision import check_prepared
from tenant_schemas.migrations.history import set_timeouts
from tenant_schemas.restore.left_out import drift_today, left_out
from tenant_schemas.restore.loader import check_shared, find_file
from tenant_schemas.restore.restore import (
    Destination,
    check_names_free,
    check_revisions_known,
    planned_tenant,
    tenant_to_replace,
)
from tenant_schemas.restore.table_order import having_right, tables_in_order
from tenant_schemas.roles import driver_of
from tenant_schemas.schema_diff.effects import DriftedObject
from tenant_schemas.search_path import bind_migration
from tenant_schemas.secret_checks import check_tenant_secret
from tenant_schemas.tenant import SHARED_SCHEMA, Tenant

_MEMBERS: Final = "SELECT user_id::text FROM {} WHERE tenant_id = {}"
_KNOWN_USERS: Final = "SELECT {key}::text FROM {users} WHERE {key}::text = ANY(%s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Living:
    """The living tenant that a restore in place would replace, beside its bundle. `rows` are its numbers of rows, by
    table. `joined` and `left` count the members since the bundle, and `settings` has the names and values of today that
    differ from the bundle's: members and settings stay as they are. `proof` is as the manifest's. `drift` has the
    objects of the schema that the migrations do not make, and the restore would not either.
    """

    tenant: Tenant
    data: DataTime
    rows: Mapping[str, int]
    proof: Mapping[str, Any]
    joined: int
    left: int
    settings: Mapping[str, Any]
    drift: tuple[DriftedObject, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a restore would do: the slug of the restored tenant, the number of users of the bundle that are missing here
    or have another id, the living tenant that it would replace, if there is one, and what the bundle has and a restore
    does not bring back.
    """

    slug: str
    missing_users: int
    living: Living | None
    left_out: tuple[str, ...]


def preview(destination: Destination, bundle: Bundle, *, slug: str | None = None, name: str | None = None) -> Preview:
    """Make the checks of a restore that need no loaded rows, and compare the bundle with the tenant that it would
    replace, in one read-only snapshot. Changes nothing. Raises RestoreError, TenantExists, NameRefused or BackupError
    as `restore` would, and BindingMismatch if the living tenant's schema is gone.
    """
    check_shared(destination.backup_policy, bundle)
    check_revisions_known(destination.migrations, bundle.manifest)
    living = tenant_to_replace(destination, bundle.manifest) if slug is None else None
    engine = destination.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    with engine.connect() as connection, connection.begin():
        driver = driver_of(connection)
        set_timeouts(connection)
        check_prepared(connection, destination.migrations)
        check_tenant_secret(driver, destination.tenant_secret)
        tenant = planned_tenant(destination, bundle.manifest, living, slug, name)
        if living is None:
            check_names_free(connection, tenant)
        return Preview(
            slug=tenant.slug,
            missing_users=_missing_users(driver, destination, bundle),
            living=_compare(connection, destination, bundle, living) if living else None,
            left_out=left_out(bundle.manifest),
        )


def _missing_users(driver: psycopg.Connection[Any], destination: Destination, bundle: Bundle) -> int:
    policy = destination.backup_policy
    ids = _column(bundle, policy.users, policy.user_columns[0])
    names = {"key": sql.Identifier(policy.user_columns[0]), "users": sql.Identifier(SHARED_SCHEMA, policy.users)}
    known = driver.execute(sql.SQL(_KNOWN_USERS).format(**names), (list(ids),))
    return len(ids - {user_id for (user_id,) in known})


def _compare(connection: Connection, destination: Destination, bundle: Bundle, living: Tenant) -> Living:
    policy, driver, backed_up = destination.backup_policy, driver_of(connection), bundle.manifest.tenant
    drift = drift_today(connection, destination.migrations, living)
    bind_migration(connection, living.schema_name)
    pin_session(driver)
    then = _column(bundle, policy.members, "user_id")
    members = sql.Identifier(SHARED_SCHEMA, policy.members)
    now = {user_id for (user_id,) in driver.execute(sql.SQL(_MEMBERS).format(members, sql.Literal(living.id)))}
    settings = {"name": living.name, "status": living.status.value, **living.settings}
    before = {"name": backed_up.name, "status": backed_up.status.value, **backed_up.settings}
    ((moment,),) = driver.execute("SELECT clock_timestamp()")
    return Living(
        tenant=living,
        data=read_data_time(driver, policy, moment),
        rows=_count_rows(driver, living.schema_name),
        proof=policy.prove(driver),
        joined=len(now - then),
        left=len(then - now),
        settings={
            key: settings.get(key)
            for key in sorted(settings.keys() | before.keys())
            if settings.get(key) != before.get(key)
        },
        drift=drift,
    )


def _count_rows(driver: psycopg.Connection[Any], schema_name: str) -> dict[str, int]:
    counted = {}
    readable = having_right(driver, schema_name, tables_in_order(driver, schema_name), "SELECT")
    for table in sorted(readable, key=lambda each: each.name):
        query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema_name, table.name))
        ((counted[table.name],),) = driver.execute(query)
    return counted


def _column(bundle: Bundle, table: str, column: str) -> set[str]:
    """The values of a column in the bundle's rows of a table of `shared`; of ids, which COPY escapes nowhere."""
    file = find_file(bundle.manifest.shared, table)
    position = file.columns.index(column)
    return {line.removesuffix(b"\n").split(b"\t")[position].decode() for line in bundle.lines(file)}
