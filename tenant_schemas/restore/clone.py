"""A copy of a living tenant for staging: its rows as they are, its people and its texts masked as the application says.

Rows go from schema to schema in one statement a table, masked on the way, so what is masked is never written to disk
in the clone's schema. Keys and sessions are in `shared`, and not copied.
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
from tenant_schemas.restore.loader import analyze, check_faults, empty
from tenant_schemas.restore.restore import Destination, begin_load, check_names_free
from tenant_schemas.restore.staging_schema import drop_abandoned_schemas, staging_schema, with_free_schema_name
from tenant_schemas.restore.table_order import Table, tables_in_order, user_triggers_off
from tenant_schemas.restore.user_mapping import copy_members
from tenant_schemas.roles import driver_of, tenant_password
from tenant_schemas.search_path import bind_migration
from tenant_schemas.tenant import SHARED_SCHEMA, Tenant

# What masks may use: a text that nobody knows and that is another one in every clone; and for people their number in
# the clone, `n`, and its slug, `slug`.
SALT: Final = "current_setting('tenant_schemas.clone_salt')"

# For as long as the db transaction lasts; no table of a tenant may be called so.
_PEOPLE: Final = "people_of_the_clone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloned:
    """A clone, and how much is in it."""

    tenant: Tenant
    source: str
    rows: int
    people: int


def clone(destination: Destination, source_slug: str, slug: str, *, name: str | None = None) -> Cloned:
    """Make a masked copy of a tenant as it is at one moment, as an active tenant; committed when it returns. Raises
    TenantNotFound, TenantExists, NameRefused or RestoreError, and then nothing is left.
    """
    engine, migrations = destination.engine, destination.migrations
    source, tables = _look(destination, source_slug)
    tenant = _plan(destination, source, slug, name)
    password = tenant_password(destination.tenant_secret, tenant.id, tenant.login_epoch)
    with (
        staging_schema(engine, migrations, tenant, reason="restoring", password=password),
        engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection,
        connection.begin(),
    ):
        _see_all_at_once(connection, source, tables)
        return _fill_and_register(connection, destination, source, tenant)


def _look(destination: Destination, slug: str) -> tuple[Tenant, Sequence[Table]]:
    with destination.engine.connect() as connection:
        check_prepared(connection, destination.migrations)
        source = registry.get_tenant(connection, slug)
        return source, tables_in_order(driver_of(connection), source.schema_name)


def _plan(destination: Destination, source: Tenant, slug: str, name: str | None) -> Tenant:
    """The clone as it will be before it is migrated."""
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


def _see_all_at_once(connection: Connection, source: Tenant, tables: Sequence[Table]) -> None:
    """Let nobody migrate what is read, and only then let the first query take the snapshot for all: LOCK TABLE takes
    none. Raises RestoreRefused.
    """
    set_timeouts(connection)
    names = sql.SQL(", ").join(sql.Identifier(source.schema_name, table.name) for table in tables)
    driver_of(connection).execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(names))
    if registry.get_tenant(connection, source.slug) != source:
        raise RestoreRefused(f"{source.slug} was migrated or changed meanwhile: run it again.")


def _fill_and_register(connection: Connection, destination: Destination, source: Tenant, tenant: Tenant) -> Cloned:
    migrations, backup_policy = destination.migrations, destination.backup_policy
    driver = begin_load(connection, migrations, tenant)
    bind_migration(connection, source.schema_name)
    check_faults(
        driver, backup_policy, source.slug
    )  # Before its chains are made anew, which would hide what was forged.
    bind_migration(connection, tenant.schema_name)
    people, rows = _fill(driver, backup_policy, source, tenant)
    check_faults(driver, backup_policy, "The clone")
    tenant = replace(tenant, revision=migrations.upgrade_tenant(connection, tenant))
    if backup_policy.note:
        backup_policy.note(driver, "tenant.clone", {"of": source.slug})
    register(connection, tenant, migrations.roles)
    masks = backup_policy.masks.get(backup_policy.members, {})
    copy_members(
        driver, backup_policy, source, tenant, lambda column: _value(tenant, column, masks, column == "user_id")
    )
    driver.execute(sql.SQL("DROP TABLE {}").format(_people(tenant)))
    return Cloned(tenant=tenant, source=source.slug, rows=rows, people=people)


def _fill(
    driver: psycopg.Connection[Any], backup_policy: BackupPolicy, source: Tenant, tenant: Tenant
) -> tuple[int, int]:
    """The number of people, and of rows."""
    driver.execute("SELECT set_config('tenant_schemas.clone_salt', %s, true)", (token_hex(32),))
    tables = tables_in_order(driver, tenant.schema_name)
    with user_triggers_off(driver, tenant.schema_name, tables):
        empty(driver, tenant.schema_name, tables)
        copied = [table for table in tables if table.name not in backup_policy.not_cloned]
        people = _make_people(driver, backup_policy, source, tenant, copied)
        rows = sum(_copy(driver, backup_policy, source, tenant, table) for table in copied)
        analyze(driver, tenant.schema_name, tables)
        backup_policy.rechain(driver)
    return people, rows


# Whoever is a member of the tenant or named in its tables gets a number and another id; members have the low ones.
_NUMBER: Final = """
    CREATE TABLE {numbered} AS
    SELECT u.{key} AS old_id, NULL::uuid AS new_id, {slug} AS slug, row_number() OVER (
        ORDER BY m.user_id IS NULL, u.{key}) AS n
    FROM {people} u LEFT JOIN {members} m ON m.tenant_id = {source_id} AND m.user_id = u.{key}
    WHERE m.user_id IS NOT NULL OR u.{key} IN ({meant})"""


_MAKE: Final = (
    "INSERT INTO {people} ({columns}) SELECT {masks} FROM {numbered}"
    " WHERE NOT EXISTS (SELECT FROM {people} u WHERE u.{known} = {mask})",
    "UPDATE {numbered} SET new_id = u.{key} FROM {people} u WHERE u.{known} = {mask}",
    "ALTER TABLE {numbered} ADD PRIMARY KEY (old_id)",
    "ANALYZE {numbered}",
)


def _make_people(
    driver: psycopg.Connection[Any],
    backup_policy: BackupPolicy,
    source: Tenant,
    tenant: Tenant,
    tables: Sequence[Table],
) -> int:
    """Number and mask them. Whoever is known by the masked name already is taken: staging's people keep their
    passwords when it is made anew.
    """
    key, known, *_ = backup_policy.user_columns
    masks = backup_policy.masks[backup_policy.users]
    names = {
        "numbered": _people(tenant),
        "people": sql.Identifier(SHARED_SCHEMA, backup_policy.users),
        "members": sql.Identifier(SHARED_SCHEMA, backup_policy.members),
        "key": sql.Identifier(key),
        "known": sql.Identifier(known),
        "mask": _expression(masks[known]),
        "columns": sql.SQL(", ").join(map(sql.Identifier, masks)),
        "masks": sql.SQL(", ").join(map(_expression, masks.values())),
        "slug": sql.Literal(tenant.slug),
        "source_id": sql.Literal(source.id),
        "meant": ids_in(
            source.schema_name,
            [(table.name, column) for table in tables for column in _people_in(backup_policy, table)],
        ),
    }
    numbered, *_ = [driver.execute(sql.SQL(statement).format(**names)).rowcount for statement in (_NUMBER, *_MAKE)]
    return numbered


def _people(tenant: Tenant) -> sql.Identifier:
    return sql.Identifier(tenant.schema_name, _PEOPLE)


def _expression(text: str) -> sql.SQL:
    """The application's own SQL, which is code and no input."""
    return sql.SQL(text)


def _people_in(backup_policy: BackupPolicy, table: Table) -> frozenset[str]:
    return backup_policy.user_id_columns.get(table.name, frozenset()).intersection(table.columns)


def _copy(
    driver: psycopg.Connection[Any], backup_policy: BackupPolicy, source: Tenant, tenant: Tenant, table: Table
) -> int:
    masks = backup_policy.masks.get(table.name, {})
    people = _people_in(backup_policy, table)
    values = [_value(tenant, column, masks, column in people) for column in table.columns]
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
    return replaced.format(_people(tenant), name, name)
