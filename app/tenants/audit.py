"""What scripts do to a tenant, written into its own audit log in the db transaction that does it."""

from typing import Any

from psycopg import sql
from sqlalchemy import Connection

from app.audit.service import entry_of
from app.auth.actors import SYSTEM
from tenant_schemas.tenant import Tenant


def note_as_system(connection: Connection, tenant: Tenant, action: str, **told: Any) -> None:
    """Write an entry as the migrator or the owner, whatever schema is bound; commits nothing. To be the last thing but
    the commit, for it locks the head of the tenant's log.
    """
    statement = sql.SQL("SELECT {}.audit_note_v1(%s::jsonb)").format(sql.Identifier(tenant.schema_name))
    connection.exec_driver_sql(statement.as_string(), (entry_of(SYSTEM, action=action, **told),))
