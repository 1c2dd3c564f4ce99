"""Whether webhooks of a tenant wait for events, for commands that end a tenant."""

from typing import Final

from psycopg import sql
from sqlalchemy import Connection

_EXISTS: Final = "SELECT to_regclass({name}) IS NOT NULL"
_BEHIND: Final = """
    SELECT count(*) FROM {schema}.webhook_endpoints e CROSS JOIN {schema}.events_head h
    WHERE e.status = 'enabled' AND (e.position < h.position
        OR EXISTS (SELECT FROM {schema}.events w WHERE w.position IS NULL)
        OR EXISTS (SELECT FROM {schema}.webhook_lanes l WHERE l.endpoint_id = e.id))"""


def count_behind(connection: Connection, schema_name: str) -> int:
    """How many enabled webhooks of the tenant with this schema wait for events; 0 for a schema of before webhooks.
    Works as the migrator, who is bound to no tenant.
    """
    exists = sql.SQL(_EXISTS).format(name=sql.Literal(f"{schema_name}.webhook_endpoints"))
    if not connection.exec_driver_sql(exists.as_string()).scalar_one():
        return 0
    behind = sql.SQL(_BEHIND).format(schema=sql.Identifier(schema_name))
    return int(connection.exec_driver_sql(behind.as_string()).scalar_one())
