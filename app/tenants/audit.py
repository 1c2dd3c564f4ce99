"""Entries in a tenant's audit log about scripts that change the tenant, written in the same db transaction."""

from typing import Any

from psycopg import sql
from sqlalchemy import Connection

from app.audit.service import entry_json
from app.auth.actors import SYSTEM
from tenant_schemas.tenant import Tenant


def add_system_entry(connection: Connection, tenant: Tenant, action: str, **told: Any) -> None:
    """Write an entry as the migrator or the owner, whatever schema is bound. Commits nothing. Call it last before the
    commit: it locks the head of the audit log's chain.
    """
    # The tenant may be behind: the first version is in every schema, and calls the newest.
    statement = sql.SQL("SELECT {}.audit_note_v1(%s::jsonb)").format(sql.Identifier(tenant.schema_name))
    connection.exec_driver_sql(statement.as_string(), (entry_json(SYSTEM, action=action, **told),))
