"""A new tenant's schema, which the migrations make and nobody keeps: what the schemas at the head should be."""

import secrets
from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection

from tenant_schemas.doctor.finding import NewSchema
from tenant_schemas.doctor.words import fingerprints_of, objects_of
from tenant_schemas.migrations import Migrations
from tenant_schemas.roles import become_owner, create_tenant_schema, role_exists
from tenant_schemas.tenant import Tenant

# The migrations lock tables of `shared` against writing, and whoever comes next queues behind us.
_LOCK_TIMEOUT_MS = 500
_STATEMENT_TIMEOUT_MS = 10_000


def make(connection: Connection, migrations: Migrations, tenants: Sequence[Tenant]) -> NewSchema:
    """Make a schema as the owner, describe it and roll it back to a savepoint. A tenant's role lends its name to the
    rights in it. Where it can't be made the result is empty or says why.
    """
    lender = next((tenant for tenant in tenants if role_exists(connection, tenant.role_name)), None)
    if lender is None or not _may_be_made(connection, migrations.roles.owner):
        return NewSchema()
    new = replace(lender, schema_name=f"new_{secrets.token_hex(8)}")
    savepoint = connection.begin_nested()
    try:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout TO {_LOCK_TIMEOUT_MS}")
        connection.exec_driver_sql(f"SET LOCAL statement_timeout TO {_STATEMENT_TIMEOUT_MS}")
        become_owner(connection, migrations.roles)
        # Were this missing, it is another finding, and no fault of every tenant's.
        connection.exec_driver_sql("ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS FROM PUBLIC")
        create_tenant_schema(connection, new)
        migrations.upgrade_tenant(connection, new)
        return NewSchema(fingerprints_of(connection, [new])[new.schema_name], objects_of(connection, new))
    except Exception as error:  # noqa: BLE001  Whatever it is, it is a finding.
        return NewSchema(failure=str(error).partition("\n")[0])
    finally:
        savepoint.rollback()


def _may_be_made(connection: Connection, owner: str) -> bool:
    query = """
        SELECT pg_has_role(%s, 'MEMBER') AND NOT pg_is_in_recovery()
            AND current_setting('transaction_read_only') = 'off'"""
    return bool(connection.exec_driver_sql(query, (owner,)).scalar_one())
