"""Proof on a server that current.sql makes the same objects as the revisions, in PostgreSQL's own words.

That also finds what a revision makes in Python, which current.sql can't have.
"""

from dataclasses import replace

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from scripts.support.current_sql.files import current_sql
from tenant_schemas.migrations.history import History, Migrations
from tenant_schemas.migrations.replay import version_table_text
from tenant_schemas.roles import TENANT_ROLE_SETTING, become_owner, create_tenant_schema, send, stop_being_owner
from tenant_schemas.schema_diff.catalog import Objects, objects_of
from tenant_schemas.search_path import bind_migration
from tenant_schemas.tenant import SHARED_SCHEMA, Tenant

_SET_ASIDE = "shared_of_the_history"
_MADE_ANEW = "tenant_of_current_sql"


def differing_objects(connection: Connection, migrations: Migrations, history: History, tenant: Tenant) -> list[str]:
    """The objects that differ, each with what is wrong with it. `tenant` was made by the revisions, and lends its role.

    Makes the schema a second time within the open db transaction, and goes back to a savepoint. Raises NotFolded and
    RevisionRefused.
    """
    text = current_sql(migrations, history)
    savepoint = connection.begin_nested()
    try:
        become_owner(connection, migrations.roles)
        if history is History.SHARED:
            anew = replace(tenant, schema_name=SHARED_SCHEMA)
            # The foreign keys of tenants' tables have triggers in `shared`.
            connection.exec_driver_sql(f"DROP SCHEMA {tenant.schema_name} CASCADE")
            # Described before it is renamed: the bodies of its functions name it.
            made = objects_of(connection, anew)
            connection.exec_driver_sql(f"ALTER SCHEMA {SHARED_SCHEMA} RENAME TO {_SET_ASIDE}")
            connection.exec_driver_sql(f"CREATE SCHEMA {SHARED_SCHEMA}")
            _drop_extensions(connection)
        else:
            anew, made = replace(tenant, schema_name=_MADE_ANEW), objects_of(connection, tenant)
            create_tenant_schema(connection, anew)
        _run(connection, migrations, history, anew, text)
        stop_being_owner(connection)
        return _differences(made, objects_of(connection, anew))
    except (DBAPIError, psycopg.Error) as error:
        return [f"PostgreSQL does not run it: {getattr(error, 'orig', None) or error}"]
    finally:
        savepoint.rollback()


def _drop_extensions(connection: Connection) -> None:
    """Drop the extensions of the schema that was set aside: a database has each once."""
    query = "SELECT quote_ident(extname) FROM pg_extension WHERE extnamespace = %s::regnamespace"
    for name in connection.exec_driver_sql(query, (_SET_ASIDE,)).scalars().all():
        connection.exec_driver_sql(f"DROP EXTENSION {name} CASCADE")


def _run(connection: Connection, migrations: Migrations, history: History, tenant: Tenant, text: str) -> None:
    bind_migration(connection, tenant.schema_name)
    connection.exec_driver_sql("SELECT set_config(%s, %s, true)", (TENANT_ROLE_SETTING, tenant.role_name))
    # The function of a trigger stands above the tables that it writes to.
    connection.exec_driver_sql("SET LOCAL check_function_bodies TO off")
    send(connection, version_table_text(migrations.steps(history, None)[0], tenant.schema_name) + text)


def _differences(made: Objects, anew: Objects) -> list[str]:
    differing = [key for key in sorted({*made, *anew}) if made.get(key) != anew.get(key)]
    return [f"{kind} {name}: {_verdict(made, anew, (kind, name))}" for kind, name in differing]


def _verdict(made: Objects, anew: Objects, key: tuple[str, str]) -> str:
    if key not in anew:
        return "only the revisions make it"
    return "the revisions make it otherwise" if key in made else "the revisions do not make it"
