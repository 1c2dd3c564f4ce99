"""The doctor's findings on a test's database.

Most faults are made in a db transaction that is rolled back, and examined inside it as the migrator: PostgreSQL's DDL
is transactional, including roles.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from app.tenancy import MIGRATIONS
from tenant_schemas.doctor import Finding, examine
from tenant_schemas.testing.plugin import Database

# The tests' server is temporary, so it needs no durability, and its other databases are not checked.
THROWN_AWAY = frozenset({"fsync", "full_page_writes", "synchronous_commit", "data_checksums", "other_database"})


# The settings and pg_hba.conf of a given server are unknown.
THEIR_SERVER = frozenset({"pg_hba", "ssl", "max_prepared_transactions", "log_statement", "password_encryption"})


EXEMPT = THROWN_AWAY | THEIR_SERVER


def engine(database: Database) -> sa.Engine:
    url = sa.make_url(database.url()).set(drivername="postgresql+psycopg")
    return sa.create_engine(url, poolclass=sa.NullPool)


@contextmanager
def broken(database: Database, *statements: str) -> Iterator[Connection]:
    """The superuser's connection after these statements. They are rolled back."""
    with engine(database).connect() as connection, connection.begin() as transaction:
        for statement in statements:
            connection.exec_driver_sql(statement)
        yield connection
        transaction.rollback()


def findings(connection: Connection, **options: Any) -> list[Finding]:
    return examine(connection, MIGRATIONS, **({"shared_logins": True, "exempt": EXEMPT} | options))


def seen(connection: Connection, **options: Any) -> list[tuple[str, str]]:
    """The findings of the migrator."""
    connection.exec_driver_sql("SET LOCAL SESSION AUTHORIZATION wallet_migrator")
    return [(finding.check, finding.where) for finding in findings(connection, **options)]


def assert_found_alone(database: Database, statement: str, check: str, where: str) -> None:
    """After the statement there is this finding, and no finding about another object.

    A grant may be wrong in two ways at once; then both findings are about the same object.
    """
    with broken(database, statement) as connection:
        found = seen(connection)
    assert (check, where) in found
    others = set(found) - {(check, where)}
    assert all(where.partition(" ")[2].rpartition(".")[2] in other for _, other in others), others
