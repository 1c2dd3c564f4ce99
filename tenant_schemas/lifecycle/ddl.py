"""The two acts that destroy: a schema with all that is in it, and a tenant's login. Who may be destroyed, and when, is
for the callers to know; nothing is asked here, and nothing committed.
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


def remove_schema(connection: Connection, schema_name: str) -> None:
    """As the owner or the migrator. PostgreSQL takes triggers away from the tables of `shared` that the schema refers
    to, and so locks these against everybody until the db transaction ends: it is to end soon.
    """
    run_with_lock_retry(connection, sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema_name)))


def remove_role(connection: Connection, role_name: str) -> None:
    """As the migrator. Sessions that are open as the role go on with no rights. Raises LifecycleError if it is used in
    another database of the server.
    """
    if not role_exists(connection, role_name):
        return
    role = sql.Identifier(role_name)
    # It may have given itself default privileges, and only a member with its rights can take those away.
    for statement in ("GRANT {} TO CURRENT_USER", "DROP OWNED BY {}"):
        connection.exec_driver_sql(sql.SQL(statement).format(role).as_string())
    try:
        connection.exec_driver_sql(sql.SQL("DROP ROLE {}").format(role).as_string())
    except DBAPIError as error:
        if sqlstate_of(error) != _DEPENDENT_OBJECTS:
            raise
        raise LifecycleError(f"Nothing was dropped: role {role_name} is used elsewhere too. {error.orig}") from error
