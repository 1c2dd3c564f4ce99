"""Loads rows faster: indexes and foreign keys within a schema are built after its rows, not updated with each row."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg import sql

from tenant_schemas.errors import VerificationFailed

# A foreign key to another schema stays: to add it again would lock that table against writing until the end.
_FOREIGN_KEYS: Final = """
    SELECT format('ALTER TABLE %%s DROP CONSTRAINT %%I', k.conrelid::regclass, k.conname),
        format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s', k.conrelid::regclass, k.conname, pg_get_constraintdef(k.oid))
    FROM pg_constraint k JOIN pg_class t ON t.oid = k.confrelid
    WHERE k.connamespace = %s::text::regnamespace AND t.relnamespace = k.connamespace AND k.contype = 'f'
        AND k.conparentid = 0
    ORDER BY 1"""
# An index stays if a constraint, a foreign key or another object needs it, or if it is more than its definition says.
_INDEXES: Final = """
    SELECT format('DROP INDEX %%s', i.indexrelid::regclass), pg_get_indexdef(i.indexrelid)
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE c.relnamespace = %s::text::regnamespace AND c.relkind = 'i' AND i.indisvalid
        AND NOT i.indisreplident AND NOT i.indisclustered AND NOT c.relispartition
        AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid)
        AND NOT EXISTS (SELECT FROM pg_depend d
            WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indexrelid)
    ORDER BY 1"""


@contextmanager
def indexes_built_afterwards(connection: psycopg.Connection[Any], schema_name: str) -> Iterator[None]:
    """As the owner, drop the indexes and the foreign keys within the schema, and make the same ones at the end. Locks
    the tables until the db transaction ends. Raises VerificationFailed if the rows break one of them.
    """
    name = sql.Identifier(schema_name).as_string()
    made = [row for query in (_FOREIGN_KEYS, _INDEXES) for row in connection.execute(query, (name,)).fetchall()]
    for drop, _ in made:
        connection.execute(drop.encode())
    yield
    # Not in `finally`: after an error the db transaction can only roll back, which brings them back.
    try:
        for _, make in reversed(made):  # Indexes first: the checks of foreign keys may use them.
            connection.execute(make.encode())
    except psycopg.IntegrityError as error:
        raise VerificationFailed(f"The rows can't be loaded: {error}") from error
