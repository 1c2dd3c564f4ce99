"""The last step: a schema that is ready becomes a new tenant's, or takes the place of a living one's.

The replaced schema is kept and closed, so that nobody writes into it: neither the tenant nor, through a function with
the owner's rights that was called before and waited, the owner.
"""

import random
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import psycopg
from psycopg import sql
from sqlalchemy import Connection

from tenant_schemas import registry
from tenant_schemas.errors import RestoreRefused, TenantBusy
from tenant_schemas.lifecycle.retired_schemas import claim_retired_schema, record_retired_schema
from tenant_schemas.migrations.history import set_timeouts
from tenant_schemas.restore.table_order import tables_in_order
from tenant_schemas.roles import (
    ServiceRoles,
    become_owner,
    driver_of,
    set_tenant_login,
    stop_being_owner,
    tenant_password,
)
from tenant_schemas.search_path import LEAVE_SCHEMA
from tenant_schemas.tenant import Tenant

# Below PostgreSQL's deadlock_timeout (1 s): where a payment and the swap wait for each other, the swap gives way.
_LOCK_TIMEOUT_MS: Final = 400
_SWAP_TIMEOUT_SECONDS: Final = 30


def register(connection: Connection, tenant: Tenant, roles: ServiceRoles) -> None:
    """Make the tenant of a schema that is ready, within the open db transaction, which then acts as the owner. Its
    members are the caller's to add.
    """
    set_timeouts(connection)
    stop_being_owner(connection)
    _run(connection, sql.SQL("ALTER ROLE {} LOGIN").format(sql.Identifier(tenant.role_name)))
    become_owner(connection, roles)
    claim_retired_schema(connection, tenant.schema_name)
    registry.add_tenant(connection, tenant)
    grant_schema_usage(connection, tenant)


def swap(connection: Connection, tenant: Tenant, roles: ServiceRoles, *, secret: str, keep: timedelta) -> str | None:
    """Put the schema that `tenant` is to have in the place of the one that the tenant has now, within the open db
    transaction. Returns the one that was replaced, None if somebody had dropped it. Waits for the tenant's own db
    transactions that have begun to write; raises TenantBusy if that takes too long.
    """
    deadline = time.monotonic() + _SWAP_TIMEOUT_SECONDS
    while True:
        savepoint = connection.begin_nested()
        try:
            replaced = _swap(connection, tenant, roles, secret, keep)
        except Exception as error:
            savepoint.rollback()
            if not _is_of_locks(error):
                raise
            if time.monotonic() > deadline:
                raise TenantBusy(f"Tenant {tenant.slug} was never at rest for {_SWAP_TIMEOUT_SECONDS} s.") from error
        else:
            savepoint.commit()
            return replaced
        time.sleep(random.uniform(0.05, 0.5))  # noqa: S311


def _is_of_locks(error: Exception) -> bool:
    original = getattr(error, "orig", error)
    return isinstance(original, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected)


def _swap(connection: Connection, tenant: Tenant, roles: ServiceRoles, secret: str, keep: timedelta) -> str | None:
    connection.exec_driver_sql(f"SET LOCAL lock_timeout TO {_LOCK_TIMEOUT_MS}")
    living = registry.lock_tenant(connection, tenant.id)
    if living.role_name != tenant.role_name:
        raise RestoreRefused(f"{tenant.slug} was renamed to {living.slug} meanwhile; restore it again.")
    moved = replace(living, schema_name=tenant.schema_name, revision=tenant.revision)
    become_owner(connection, roles)
    claim_retired_schema(connection, moved.schema_name)
    replaced = _put_aside(connection, living, roles, keep) if living.schema_name != moved.schema_name else None
    registry.set_schema(connection, moved.id, moved.schema_name, moved.revision)
    grant_schema_usage(connection, moved)
    stop_being_owner(connection)
    set_tenant_login(connection, moved, tenant_password(secret, living.id, living.login_epoch))
    return replaced


def _put_aside(connection: Connection, living: Tenant, roles: ServiceRoles, keep: timedelta) -> str | None:
    exists = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = %s)"
    if not connection.exec_driver_sql(exists, (living.schema_name,)).scalar_one():
        return None
    _wait_for_writers(connection, living)
    revoke_schema_rights(connection, living, roles)
    due = datetime.now(UTC) + keep
    record_retired_schema(connection, schema_name=living.schema_name, tenant=living, reason="replaced", drop_after=due)
    return living.schema_name


def _wait_for_writers(connection: Connection, tenant: Tenant) -> None:
    """Let those end who have begun to write, in the order in which they lock; who comes now waits, and is then refused.
    Readers go on.
    """
    tables = tables_in_order(driver_of(connection), tenant.schema_name)
    if tables:
        names = sql.SQL(", ").join(sql.Identifier(tenant.schema_name, table.name) for table in tables)
        _run(connection, sql.SQL("LOCK TABLE {} IN EXCLUSIVE MODE").format(names))


def grant_schema_usage(connection: Connection, tenant: Tenant) -> None:
    """As the owner: let the tenant use its schema."""
    schema, role = sql.Identifier(tenant.schema_name), sql.Identifier(tenant.role_name)
    _run(connection, sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, role))


# The schema, its relations and its functions, as GRANT names them, with everybody who has any right. By way of
# pg_depend, which knows a schema's objects without a look at those of all others.
_GRANTED: Final = """
    WITH ours AS MATERIALIZED (
        SELECT classid, objid FROM pg_depend
        WHERE refclassid = 'pg_namespace'::regclass AND refobjid = %(schema)s::regnamespace
    ), owned (kind, name, acl) AS (
        SELECT 'SCHEMA', quote_ident(nspname), nspacl FROM pg_namespace WHERE oid = %(schema)s::regnamespace
        UNION ALL
        SELECT 'TABLE', c.oid::regclass::text, coalesce(c.relacl, acldefault('r', c.relowner))
        FROM ours JOIN pg_class c ON c.oid = objid
        WHERE classid = 'pg_class'::regclass AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        UNION ALL
        SELECT 'ROUTINE', p.oid::regprocedure::text, p.proacl FROM ours JOIN pg_proc p ON p.oid = objid
        WHERE classid = 'pg_proc'::regclass
    )
    SELECT DISTINCT o.kind, o.name, CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END,
        a.grantee = %(owner)s::regrole::oid
    FROM owned o CROSS JOIN LATERAL aclexplode(o.acl) a ORDER BY 1, 2"""


def revoke_schema_rights(connection: Connection, tenant: Tenant, roles: ServiceRoles) -> None:
    """Leave nobody a right in the schema but the owner's to read it, as the owner. A prepared statement looks its
    schema up no more, but its tables' and functions' rights it does.
    """
    driver = driver_of(connection)
    driver.execute(LEAVE_SCHEMA)
    names = {"schema": sql.Identifier(tenant.schema_name).as_string(), "owner": sql.Identifier(roles.owner).as_string()}
    for kind, name, grantee, is_owner in driver.execute(_GRANTED, names).fetchall():
        if not is_owner:
            driver.execute(f"REVOKE ALL ON {kind} {name} FROM {grantee}")
        elif kind == "TABLE":
            driver.execute(f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON {name} FROM {grantee}")


def _run(connection: Connection, statement: sql.Composable) -> None:
    connection.exec_driver_sql(statement.as_string())
