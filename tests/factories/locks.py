"""A table that another session has locked, as an operator's forgotten shell does."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from tenant_schemas.testing.plugin import Database


@contextmanager
def held_table(database: Database, *tables: str, mode: str = "ACCESS EXCLUSIVE") -> Iterator[int]:
    """Lock tables until the block ends. Yields the process id of the session that holds them."""
    with psycopg.connect(database.url(), application_name="a forgotten shell") as session:
        session.execute(f"LOCK TABLE {', '.join(tables)} IN {mode} MODE".encode())
        yield session.info.backend_pid


@contextmanager
def held_tenant(database: Database, slug: str) -> Iterator[int]:
    """Lock every table of a tenant."""
    query = """
        SELECT format('%%I.%%I', t.schema_name, c.relname) FROM shared.tenants t
        JOIN pg_class c ON c.relnamespace = t.schema_name::regnamespace AND c.relkind IN ('r', 'p') WHERE t.slug = %s"""
    with psycopg.connect(database.url()) as reader:
        tables = [str(name) for (name,) in reader.execute(query, (slug,))]
    with held_table(database, *tables) as pid:
        yield pid
