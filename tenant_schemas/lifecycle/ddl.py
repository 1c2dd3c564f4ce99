"""Drops a schema with its contents, or a tenant's login role. The caller decides whether that is allowed; nothing is
checked or committed here.
"""

from typing import Final

from psycopg import sql
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from tenant_schemas.errors import LifecycleError
from tenant_schemas.lifecycle.lock_retry import run_with_lock_retry
from tenant_schemas.migrations.history import sqlstate_of
from tenant_schemas.roles import role_exists

_DEPENDENT_OBJECTS: Final = "2BP01"


def drop_schema(connection: Connection, schema_name: str) -> None:
    """Drop a schema, as the owner or the migrator. Dropping its foreign keys locks the referenced tables of `shared`
    ACCESS EXCLUSIVE until the db transaction ends, so commit soon. Raises LifecycleError if tables are in use.
    """
    dropping = sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema_name))
    run_with_lock_retry(connection, dropping, f"the tables of schema {schema_name} or the shared tables they reference")


def drop_role(connection: Connection, role_name: str) -> None:
    """Drop a login role and its grants, as the migrator. Open sessions of the role keep running without rights. Raises
    LifecycleError if another database of the server uses the role.
    """
    if not role_exists(connection, role_name):
        return
    role = sql.Identifier(role_name)
    # The role may have default privileges of its own, which only a member of the role can revoke.
    for statement in ("GRANT {} TO CURRENT_USER", "DROP OWNED BY {}"):
        connection.exec_driver_sql(sql.SQL(statement).format(role).as_string())
    try:
        connection.exec_driver_sql(sql.SQL("DROP ROLE {}").format(role).as_string())
    except DBAPIError as error:
        if sqlstate_of(error) != _DEPENDENT_OBJECTS:
            raise
        raise LifecycleError(
            f"Could not drop role {role_name}: it is used elsewhere, in another database of this server. "
            f"Nothing was changed. {error.orig}"
        ) from error
