"""Rows are loaded without indexes and foreign keys of their schema, which are the same afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from tenant_schemas.errors import VerificationFailed
from tenant_schemas.restore.deferred_indexes import indexes_built_afterwards
from tenant_schemas.testing.plugin import Database

pytestmark = pytest.mark.both_servers
DEFINITIONS = """
    SELECT conname, pg_get_constraintdef(oid), contype = 'f' AND confrelid::regclass::text !~ '^shared' AS is_own_key
    FROM pg_constraint WHERE connamespace = 'km_schema'::regnamespace
    UNION ALL
    SELECT indexname, indexdef, NULL FROM pg_indexes WHERE schemaname = 'km_schema' ORDER BY 1, 2"""


@contextmanager
def as_owner(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """A db transaction of the owner, which is rolled back."""
    with psycopg.connect(database.url()) as connection:
        connection.execute("SET LOCAL ROLE wallet_owner; SET LOCAL search_path TO km_schema")
        yield connection
        connection.rollback()


def test_all_are_the_same_afterwards_and_few_are_there_meanwhile(database: Database) -> None:
    with as_owner(database) as connection:
        before = connection.execute(DEFINITIONS).fetchall()
        with indexes_built_afterwards(connection, "km_schema"):
            meanwhile = connection.execute(DEFINITIONS).fetchall()
        assert connection.execute(DEFINITIONS).fetchall() == before
    gone = set(before) - set(meanwhile)
    assert {row for row in before if row[2]} <= gone
    assert not [name for name, _, _ in gone if name.endswith(("_pkey", "_user_id_fkey"))]
    assert {"wallet_transactions_created_at_idx", "wallet_transactions_hold_id_idx"} <= {name for name, _, _ in gone}


def test_rows_without_what_they_refer_to_are_refused(database: Database) -> None:
    orphan = "INSERT INTO order_items VALUES (gen_random_uuid(), 1, gen_random_uuid(), 'tea', 'Tea', 1, 100, 100)"
    with as_owner(database) as connection, pytest.raises(VerificationFailed, match="order_items_order_id_fkey"):  # noqa: SIM117
        with indexes_built_afterwards(connection, "km_schema"):
            connection.execute(orphan)
