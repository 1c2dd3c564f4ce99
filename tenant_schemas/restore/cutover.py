"""The last step of a restore: assigns a filled schema to a new tenant, or swaps it for an existing tenant's schema.

The replaced schema is kept for a while without write rights: neither the tenant can write into it, nor a waiting call
of a SECURITY DEFINER function, which runs with the owner's rights.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

import psycopg
from psycopg import sql
from sqlalchemy import Connection

from tenant_schemas import registry
from tenant_schemas.errors import RestoreRefused, TenantBusy
from tenant_schemas.lifecycle.retired_schemas import claim_retired_schema, record_retired_schema
from tenant_schemas.migrations.history import set_timeouts
from tenant_schemas.restore.table_order import having_right, tables_in_order
from tenant_schemas.roles import (
    ServiceRoles,
    become_owner,
    driver_of,
    set_tenant_login,
    stop_being_owner,
    tenant_password,
)
from tenant_schemas.search_path import LEAVE_SCHEMA, pin_functions
from tenant_schemas.secret_checks import check_tenant_secret
from tenant_schemas.tenant import Tenant

# Below PostgreSQL's deadlock_timeout (1 s): if a payment and the swap wait for each other, the swap times out first.
_LOCK_TIMEOUT_MS: Final = 400
_SWAP_TIMEOUT_SECONDS: Final = 30


def register(connection: Connection, tenant: Tenant, roles: ServiceRoles) -> None:
    """Add the tenant of a filled schema to the registry and let its role log in, within the migrator's open db
    transaction, which then acts as the owner. The caller adds the members. Raises NotRetired.
    """
    set_timeouts(connection)
    stop_being_owner(connection)
    _run(connection, sql.SQL("ALTER ROLE {} LOGIN").format(sql.Identifier(tenant.role_name)))
    become_owner(connection, roles)
    claim_retired_schema(connection, tenant.schema_name)
    registry.add_tenant(connection, tenant)
    grant_schema_usage(connection, tenant)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """How a schema takes the place of another. `take_over` is called with the name of the schema that is to be
    replaced, if that exists: bound to the new one, as the owner, when no writing db transaction is left in the old one.
    With `only_if_gone` an existing schema is not replaced.
    """

    secret: str = field(repr=False)
    keep: timedelta
    take_over: Callable[[str], None] | None = None
    only_if_gone: bool = False


def swap(connection: Connection, tenant: Tenant, roles: ServiceRoles, replacement: Replacement) -> str | None:
    """Assign the schema of `tenant` to the existing tenant with its id, within the migrator's open db transaction.
    Returns the replaced schema's name, or None if it no longer existed: then the new schema gets that name. Locks the
    tenant's tables EXCLUSIVE, in short attempts, so it waits for db transactions that write. Raises TenantBusy if that
    takes too long, RestoreRefused if the tenant was renamed meanwhile or has a schema that must stay, SecretRefused for
    a wrong secret.
    """
    deadline = time.monotonic() + _SWAP_TIMEOUT_SECONDS
    while True:
        savepoint = connection.begin_nested()
        try:
            replaced = _swap(connection, tenant, roles, replacement)
        except Exception as error:
            savepoint.rollback()
            if not _is_lock_error(error):
                raise
            if time.monotonic() > deadline:
                raise TenantBusy(
                    f"Could not lock the tables of tenant {tenant.slug} within {_SWAP_TIMEOUT_SECONDS} s: they are in "
                    "use. The tenant was not changed. Restore again at a quieter time, or suspend the tenant first."
                ) from error
        else:
            savepoint.commit()
            return replaced
        time.sleep(random.uniform(0.05, 0.5))  # noqa: S311


def _is_lock_error(error: Exception) -> bool:
    original = getattr(error, "orig", error)
    return isinstance(original, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected)


def _swap(connection: Connection, tenant: Tenant, roles: ServiceRoles, replacement: Replacement) -> str | None:
    connection.exec_driver_sql(f"SET LOCAL lock_timeout TO {_LOCK_TIMEOUT_MS}")
    current = registry.lock_tenant(connection, tenant.id)
    if current.role_name != tenant.role_name:
        raise RestoreRefused(f"{tenant.slug} was renamed to {current.slug} during the restore: restore again.")
    restored = replace(current, schema_name=tenant.schema_name, revision=tenant.revision)
    check_tenant_secret(driver_of(connection), replacement.secret, lock=True)
    become_owner(connection, roles)
    claim_retired_schema(connection, restored.schema_name)
    replaced = _retire_schema(connection, current, roles, replacement)
    if replaced is None:
        restored = _rename_schema(connection, restored, current.schema_name)
    registry.set_schema(connection, restored.id, restored.schema_name, restored.revision)
    grant_schema_usage(connection, restored)
    stop_being_owner(connection)
    set_tenant_login(connection, restored, tenant_password(replacement.secret, current.id, current.login_epoch))
    return replaced


def _retire_schema(
    connection: Connection, current: Tenant, roles: ServiceRoles, replacement: Replacement
) -> str | None:
    exists = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = %s)"
    if not connection.exec_driver_sql(exists, (current.schema_name,)).scalar_one():
        return None
    if replacement.only_if_gone:
        raise RestoreRefused(f"{current.slug} has its schema {current.schema_name} again: it was not replaced.")
    _wait_for_writers(connection, current)
    if replacement.take_over:
        replacement.take_over(current.schema_name)
    revoke_schema_rights(connection, current, roles)
    record_retired_schema(
        connection, schema_name=current.schema_name, tenant=current, reason="replaced", keep=replacement.keep
    )
    return current.schema_name


def _rename_schema(connection: Connection, tenant: Tenant, schema_name: str) -> Tenant:
    """Give the tenant's schema, which nobody uses yet, another name."""
    old, new = sql.Identifier(tenant.schema_name), sql.Identifier(schema_name)
    _run(connection, sql.SQL("ALTER SCHEMA {} RENAME TO {}").format(old, new))
    pin_functions(connection, schema_name)
    return replace(tenant, schema_name=schema_name)


def _wait_for_writers(connection: Connection, tenant: Tenant) -> None:
    """Lock the tables EXCLUSIVE, in the order of foreign keys, until writing db transactions have ended. New writers
    wait and then fail; readers are not blocked. Tables that another role made by hand can't be locked.
    """
    driver = driver_of(connection)
    tables = having_right(driver, tenant.schema_name, tables_in_order(driver, tenant.schema_name), "UPDATE")
    if tables:
        names = sql.SQL(", ").join(sql.Identifier(tenant.schema_name, table.name) for table in tables)
        _run(connection, sql.SQL("LOCK TABLE {} IN EXCLUSIVE MODE").format(names))


def grant_schema_usage(connection: Connection, tenant: Tenant) -> None:
    """As the owner, grant the tenant's role USAGE on its schema."""
    schema, role = sql.Identifier(tenant.schema_name), sql.Identifier(tenant.role_name)
    _run(connection, sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, role))


# Schema, relations and functions, as GRANT names them, with each role that has a right on them. They are found through
# pg_depend, whose index by schema avoids a scan of the objects of all schemas. Only the owner of an object can revoke
# rights on it: what another role made by hand keeps its rights.
_GRANTS: Final = """
    WITH ours AS MATERIALIZED (
        SELECT classid, objid FROM pg_depend
        WHERE refclassid = 'pg_namespace'::regclass AND refobjid = %(schema)s::regnamespace
    ), owned (kind, name, acl) AS (
        SELECT 'SCHEMA', quote_ident(nspname), nspacl FROM pg_namespace WHERE oid = %(schema)s::regnamespace
        UNION ALL
        SELECT 'TABLE', c.oid::regclass::text, coalesce(c.relacl, acldefault('r', c.relowner))
        FROM ours JOIN pg_class c ON c.oid = objid
        WHERE classid = 'pg_class'::regclass AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
            AND pg_has_role(c.relowner, 'USAGE')
        UNION ALL
        SELECT 'ROUTINE', p.oid::regprocedure::text, p.proacl FROM ours JOIN pg_proc p ON p.oid = objid
        WHERE classid = 'pg_proc'::regclass AND pg_has_role(p.proowner, 'USAGE')
    )
    SELECT DISTINCT o.kind, o.name, CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END,
        a.grantee = %(owner)s::regrole::oid
    FROM owned o CROSS JOIN LATERAL aclexplode(o.acl) a ORDER BY 1, 2"""


def revoke_schema_rights(connection: Connection, tenant: Tenant, roles: ServiceRoles) -> None:
    """As the owner, revoke all rights on the schema, its tables and functions, except the owner's right to read. A
    right on the schema alone is not enough: a prepared statement no longer checks it.
    """
    driver = driver_of(connection)
    driver.execute(LEAVE_SCHEMA)
    names = {"schema": sql.Identifier(tenant.schema_name).as_string(), "owner": sql.Identifier(roles.owner).as_string()}
    for kind, name, grantee, is_owner in driver.execute(_GRANTS, names).fetchall():
        if not is_owner:
            driver.execute(f"REVOKE ALL ON {kind} {name} FROM {grantee}")
        elif kind == "TABLE":
            driver.execute(f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON {name} FROM {grantee}")


def _run(connection: Connection, statement: sql.Composable) -> None:
    connection.exec_driver_sql(statement.as_string())
