"""Clones an existing tenant, for example for staging: its rows, with users and texts masked by the BackupPolicy.

Each table is copied and masked by one INSERT … SELECT, so no unmasked value is ever written to the clone's schema. API
keys and sessions are in `shared` and are not copied.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Any, Final

import psycopg
from psycopg import sql
from sqlalchemy import Connection

from tenant_schemas import registry
from tenant_schemas.backup.introspection import ids_in
from tenant_schemas.backup.policy import BackupPolicy
from tenant_schemas.errors import RestoreRefused
from tenant_schemas.lifecycle.provision import check_prepared, new_tenant
from tenant_schemas.migrations.history import set_timeouts
from tenant_schemas.restore.cutover import register
from tenant_schemas.restore.deferred_indexes import indexes_built_afterwards
from tenant_schemas.restore.loader import analyze, check_faults, delete_rows
from tenant_schemas.restore.restore import Destination, begin_load, check_names_free
from tenant_schemas.restore.staging_schema import drop_abandoned_schemas, staging_schema, with_free_schema_name
from tenant_schemas.restore.table_order import Table, tables_in_order, user_triggers_off
from tenant_schemas.restore.user_mapping import copy_members
from tenant_schemas.roles import driver_of, tenant_password
from tenant_schemas.search_path import bind_migration
from tenant_schemas.secret_checks import check_tenant_secret
from tenant_schemas.tenant import SHARED_SCHEMA, Tenant
from tenant_schemas.visits import check_schema

# Masks may use this secret salt, which is random in every clone. Masks of users may also use `n`, the user's number in
# the clone, and `slug`, the clone's slug.
SALT: Final = "current_setting('tenant_schemas.clone_salt')"

# A table in the clone's schema until the db transaction ends; no table of a tenant may have this name.
_CLONE_USERS: Final = "users_of_the_clone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloned:
    """The result of a clone: the new tenant, the source's slug, and the numbers of rows and of users (`people`)."""

    tenant: Tenant
    source: str
    rows: int
    people: int


def clone(destination: Destination, source_slug: str, slug: str, *, name: str | None = None) -> Cloned:
    """Make a masked copy of a tenant from one snapshot, as a new active tenant; commits. The source's tables are locked
    against DDL meanwhile. Raises TenantNotFound, SchemaMissing, TenantExists, NameRefused or RestoreError, and then
    nothing is left.
    """
    engine, migrations = destination.engine, destination.migrations
    source, tables = _find_source(destination, source_slug)
    tenant = _plan(destination, source, slug, name)
    password = tenant_password(destination.tenant_secret, tenant.id, tenant.login_epoch)
    with (
        staging_schema(engine, migrations, tenant, reason="restoring", password=password),
        engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection,
        connection.begin(),
    ):
        _take_snapshot(connection, source, tables)
        return _fill_and_register(connection, destination, source, tenant)


def _find_source(destination: Destination, slug: str) -> tuple[Tenant, Sequence[Table]]:
    with destination.engine.connect() as connection:
        check_prepared(connection, destination.migrations)
        check_tenant_secret(driver_of(connection), destination.tenant_secret)
        source = registry.get_tenant(connection, slug)
        check_schema(connection, source)
        return source, tables_in_order(driver_of(connection), source.schema_name)


def _plan(destination: Destination, source: Tenant, slug: str, name: str | None) -> Tenant:
    """The clone's registry values, at the source's revision and in an unused schema."""
    new = new_tenant(
        destination.migrations,
        slug=slug,
        name=name or slug,
        settings=source.settings,
        reserved_slugs=destination.reserved_slugs,
    )
    drop_abandoned_schemas(destination.engine, new)
    with destination.engine.connect() as connection:
        check_names_free(connection, new)
        return with_free_schema_name(connection, replace(new, revision=source.revision))


def _take_snapshot(connection: Connection, source: Tenant, tables: Sequence[Table]) -> None:
    """Lock the source's tables ACCESS SHARE, so that they are not migrated; the next query then takes the snapshot
    (LOCK TABLE takes none). Raises RestoreRefused if the source has changed.
    """
    set_timeouts(connection)
    names = sql.SQL(", ").join(sql.Identifier(source.schema_name, table.name) for table in tables)
    driver_of(connection).execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(names))
    if registry.get_tenant(connection, source.slug) != source:
        raise RestoreRefused(f"{source.slug} was migrated or changed when its clone began: run it again.")


def _fill_and_register(connection: Connection, destination: Destination, source: Tenant, tenant: Tenant) -> Cloned:
    migrations, backup_policy = destination.migrations, destination.backup_policy
    driver = begin_load(connection, migrations, tenant)
    bind_migration(connection, source.schema_name)
    # The source is audited first, because recomputing the hash chains in the clone would hide forged rows.
    check_faults(driver, backup_policy, f"tenant {source.slug}")
    bind_migration(connection, tenant.schema_name)
    users, rows = _fill(driver, backup_policy, source, tenant)
    check_faults(driver, backup_policy, "the clone")
    tenant = replace(tenant, revision=migrations.upgrade_tenant(connection, tenant))
    if backup_policy.note:
        backup_policy.note(driver, "tenant.clone", {"of": source.slug})
    check_tenant_secret(driver, destination.tenant_secret, lock=True)
    register(connection, tenant, migrations.roles)
    masks = backup_policy.masks.get(backup_policy.members, {})
    copy_members(
        driver, backup_policy, source, tenant, lambda column: _value(tenant, column, masks, column == "user_id")
    )
    driver.execute(sql.SQL("DROP TABLE {}").format(_users_table(tenant)))
    return Cloned(tenant=tenant, source=source.slug, rows=rows, people=users)


def _fill(
    driver: psycopg.Connection[Any], backup_policy: BackupPolicy, source: Tenant, tenant: Tenant
) -> tuple[int, int]:
    """Copy the masked rows. Returns the number of users and of rows."""
    driver.execute("SELECT set_config('tenant_schemas.clone_salt', %s, true)", (token_hex(32),))
    tables = tables_in_order(driver, tenant.schema_name)
    with user_triggers_off(driver, tenant.schema_name, tables):
        delete_rows(driver, tenant.schema_name, tables)
        copied = [table for table in tables if table.name not in backup_policy.not_cloned]
        users = _make_users(driver, backup_policy, source, tenant, copied)
        with indexes_built_afterwards(driver, tenant.schema_name):
            rows = sum(_copy(driver, backup_policy, source, tenant, table) for table in copied)
        analyze(driver, tenant.schema_name, tables)
        backup_policy.rechain(driver)
        if backup_policy.after_load:
            backup_policy.after_load(driver)
    return users, rows


# Every user who is a member of the source or referenced in its tables gets a number, members first, and a new id.
_NUMBER_USERS: Final = """
    CREATE TABLE {numbered} AS
    SELECT u.{key} AS old_id, NULL::uuid AS new_id, {slug} AS slug, row_number() OVER (
        ORDER BY m.user_id IS NULL, u.{key}) AS n
    FROM {users} u LEFT JOIN {members} m ON m.tenant_id = {source_id} AND m.user_id = u.{key}
    WHERE m.user_id IS NOT NULL OR u.{key} IN ({referenced})"""


_CREATE_USERS: Final = (
    "INSERT INTO {users} ({columns}) SELECT {masks} FROM {numbered}"
    " WHERE NOT EXISTS (SELECT FROM {users} u WHERE u.{identifier} = {mask})",
    "UPDATE {numbered} SET new_id = u.{key} FROM {users} u WHERE u.{identifier} = {mask}",
    "ALTER TABLE {numbered} ADD PRIMARY KEY (old_id)",
    "ANALYZE {numbered}",
)


def _make_users(
    driver: psycopg.Connection[Any],
    backup_policy: BackupPolicy,
    source: Tenant,
    tenant: Tenant,
    tables: Sequence[Table],
) -> int:
    """Number the source's users, create masked users for them and return their number. A user that has the masked
    identifier from an earlier clone is used again and keeps its password.
    """
    key, identifier, *_ = backup_policy.user_columns
    masks = backup_policy.masks[backup_policy.users]
    names = {
        "numbered": _users_table(tenant),
        "users": sql.Identifier(SHARED_SCHEMA, backup_policy.users),
        "members": sql.Identifier(SHARED_SCHEMA, backup_policy.members),
        "key": sql.Identifier(key),
        "identifier": sql.Identifier(identifier),
        "mask": _expression(masks[identifier]),
        "columns": sql.SQL(", ").join(map(sql.Identifier, masks)),
        "masks": sql.SQL(", ").join(map(_expression, masks.values())),
        "slug": sql.Literal(tenant.slug),
        "source_id": sql.Literal(source.id),
        "referenced": ids_in(
            source.schema_name,
            [(table.name, column) for table in tables for column in _user_id_columns(backup_policy, table)],
        ),
    }
    numbered, *_ = [
        driver.execute(sql.SQL(statement).format(**names)).rowcount for statement in (_NUMBER_USERS, *_CREATE_USERS)
    ]
    return numbered


def _users_table(tenant: Tenant) -> sql.Identifier:
    return sql.Identifier(tenant.schema_name, _CLONE_USERS)


def _expression(text: str) -> sql.SQL:
    """A mask as SQL. It is trusted: it comes from the application's code, never from input."""
    return sql.SQL(text)


def _user_id_columns(backup_policy: BackupPolicy, table: Table) -> frozenset[str]:
    return backup_policy.user_id_columns.get(table.name, frozenset()).intersection(table.columns)


def _copy(
    driver: psycopg.Connection[Any], backup_policy: BackupPolicy, source: Tenant, tenant: Tenant, table: Table
) -> int:
    masks = backup_policy.masks.get(table.name, {})
    user_id_columns = _user_id_columns(backup_policy, table)
    values = [_value(tenant, column, masks, column in user_id_columns) for column in table.columns]
    statement = sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} t").format(
        sql.Identifier(tenant.schema_name, table.name),
        sql.SQL(", ").join(map(sql.Identifier, table.columns)),
        sql.SQL(", ").join(values),
        sql.Identifier(source.schema_name, table.name),
    )
    return driver.execute(statement).rowcount


def _value(tenant: Tenant, column: str, masks: Mapping[str, str], is_id: bool) -> sql.Composable:
    if column in masks:
        return _expression(masks[column])
    name = sql.Identifier(column)
    if not is_id:
        return sql.SQL("t.{}").format(name)
    replaced = sql.SQL("coalesce((SELECT p.new_id FROM {} p WHERE p.old_id = t.{}), t.{})")
    return replaced.format(_users_table(tenant), name, name)
