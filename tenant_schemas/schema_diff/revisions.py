"""Reads the revision of each tenant's schema from its version table; the registry may say another."""

from collections.abc import Mapping, Sequence

from psycopg import sql

from tenant_schemas.migrations.replay import VERSION_TABLE
from tenant_schemas.sessions import AnyConnection, fetch
from tenant_schemas.tenant import Tenant
from tenant_schemas.visits import Visitor

_WITH_TABLE = """
    SELECT n.nspname FROM pg_namespace n
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = %s AND c.relkind = 'r'"""


def revisions_of(visitor: Visitor[AnyConnection], tenants: Sequence[Tenant]) -> dict[str, str | None]:
    """The revision in each schema's version table by schema name, None without one, with several tenants per query. A
    tenant that can't be read is a failure of the visitor.
    """
    connection = visitor.connection
    versioned = {str(name) for (name,) in fetch(connection, _WITH_TABLE, (VERSION_TABLE,))}

    def read(some: Sequence[Tenant]) -> Mapping[str, str | None]:
        parts = [_query(tenant) for tenant in some if tenant.schema_name in versioned]
        rows = fetch(connection, sql.SQL(" UNION ALL ").join(parts).as_string()) if parts else []
        found = {str(schema_name): revision for schema_name, revision in rows}
        return {tenant.schema_name: found.get(tenant.schema_name) for tenant in some}

    return visitor.visit_all(tenants, read)


def _query(tenant: Tenant) -> sql.Composed:
    return sql.SQL("SELECT {}, string_agg(version_num, ' ') FROM {}").format(
        sql.Literal(tenant.schema_name), sql.Identifier(tenant.schema_name, VERSION_TABLE)
    )
