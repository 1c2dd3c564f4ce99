"""Restores the schema shared from its bundle, in an installation that has no rows of its own.

One db transaction makes the schema at the revision of the bundle, loads and proves the rows, and migrates it to the
head. So after an interruption the installation has all of it or nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from psycopg import sql
from sqlalchemy import Connection

from tenant_schemas.backup.shared_bundle import SharedBundle
from tenant_schemas.backup.shared_policy import SharedPolicy
from tenant_schemas.backup.table_io import pin_session
from tenant_schemas.errors import RestoreRefused, SecretRefused
from tenant_schemas.migrations.history import History, current_revision, set_timeouts
from tenant_schemas.restore.loader import analyze, delete_rows
from tenant_schemas.restore.restore import Destination, check_revision_known
from tenant_schemas.restore.shared_rows import load_shared_rows
from tenant_schemas.restore.table_order import tables_in_order, user_triggers_off
from tenant_schemas.roles import become_owner, driver_of
from tenant_schemas.secret_checks import replace_secret, wrong_secrets
from tenant_schemas.tenant import SHARED_SCHEMA

_HAS_SCHEMA: Final = "SELECT to_regnamespace('shared') IS NOT NULL"
_REGISTRY: Final = "SELECT id, slug FROM shared.tenants"


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedRestored:
    """The result: the revision of the bundle, its number of rows, and what was left out, because the history does not
    make it.
    """

    revision: str
    rows: int
    left_out: tuple[str, ...]


def is_loaded(destination: Destination, bundle: SharedBundle) -> bool:
    """Whether the installation has the tenants of the bundle already, or some of them, and no others. Raises
    RestoreRefused if it has tenants of its own.
    """
    with destination.engine.connect() as connection:
        if current_revision(connection, SHARED_SCHEMA) is None:
            return False
        here: dict[UUID, str] = {row.id: row.slug for row in connection.exec_driver_sql(_REGISTRY)}
    own = sorted(slug for tenant_id, slug in here.items() if tenant_id not in _tenant_ids(bundle))
    if own:
        raise RestoreRefused(
            f"This installation has tenants of its own, which are not in {bundle.folder}: {', '.join(own)}. Nothing "
            "was changed: restore into a server without tenants, or one tenant with `python -m scripts.restore_tenant`."
        )
    return bool(here)


def _tenant_ids(bundle: SharedBundle) -> set[UUID]:
    file = bundle.find_file("tenants")
    if file is None:
        return set()
    place = file.columns.index("id")
    return {UUID(line.split(b"\t")[place].decode().strip()) for line in bundle.lines(file)}


def restore_shared(
    destination: Destination,
    policy: SharedPolicy,
    bundle: SharedBundle,
    secrets: Mapping[str, str],
    *,
    accepts_new_secrets: bool = False,
) -> SharedRestored:
    """Restore the schema shared and migrate it to the head; commits. A schema shared without rows is made anew, with
    its tables locked. `secrets` are compared with the check values in the bundle; with `accepts_new_secrets` their own
    check values take the place of those that differ. Raises RestoreRefused if there are rows, SecretRefused,
    VerificationFailed, BackupError, and then nothing was changed.
    """
    migrations, revision = destination.migrations, bundle.manifest.shared_revision
    check_revision_known(migrations, History.SHARED, revision)
    with destination.engine.begin() as connection:
        set_timeouts(connection)
        become_owner(connection, migrations.roles)
        _drop_empty_schema(connection, policy)
        migrations.upgrade_shared(connection, revision)
        pin_session(driver_of(connection))
        left_out = _load(connection, bundle)
        migrations.upgrade_shared(connection)
        if policy.after_load:
            policy.after_load(driver_of(connection))
        _check_secrets(connection, secrets, accepts_new_secrets=accepts_new_secrets)
    return SharedRestored(revision=revision, rows=bundle.manifest.rows, left_out=left_out)


def _drop_empty_schema(connection: Connection, policy: SharedPolicy) -> None:
    """Drop the schema shared if it exists, as the owner. Raises RestoreRefused if it has rows that a restore would
    destroy.
    """
    if not connection.exec_driver_sql(_HAS_SCHEMA).scalar_one():
        return
    driver = driver_of(connection)
    tables = tables_in_order(driver, SHARED_SCHEMA)
    if tables:
        names = sql.SQL(", ").join(sql.Identifier(SHARED_SCHEMA, table.name) for table in tables)
        driver.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(names))
    filled = []
    for table in tables:
        query = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.Identifier(SHARED_SCHEMA, table.name))
        if table.name not in policy.incidental and driver.execute(query).fetchone() == (True,):
            filled.append(table.name)
    if filled:
        raise RestoreRefused(
            f"This installation has rows of its own in {', '.join(f'shared.{name}' for name in filled)}. Nothing was "
            "changed: restore into a database without them."
        )
    connection.exec_driver_sql(f"DROP SCHEMA {SHARED_SCHEMA} CASCADE")


def _load(connection: Connection, bundle: SharedBundle) -> tuple[str, ...]:
    driver = driver_of(connection)
    tables = tables_in_order(driver, SHARED_SCHEMA)
    with user_triggers_off(driver, SHARED_SCHEMA, tables):
        delete_rows(driver, SHARED_SCHEMA, tables)
        left_out = load_shared_rows(driver, bundle, SHARED_SCHEMA, tables)
    analyze(driver, SHARED_SCHEMA, tables)
    return left_out


def _check_secrets(connection: Connection, secrets: Mapping[str, str], *, accepts_new_secrets: bool) -> None:
    driver = driver_of(connection)
    wrong = wrong_secrets(driver, secrets)
    if wrong and not accepts_new_secrets:
        raise SecretRefused(
            f"{' and '.join(wrong)} of the settings had another value when the bundle was taken. Nothing was changed: "
            "set the value of the lost installation or, if that is lost too, use --accept-new-secrets."
        )
    for name in wrong:
        replace_secret(driver, name, secrets[name])
