"""The doctor's findings on a test's database, and their remedies.

Most faults are made in a db transaction that is rolled back, and examined and remedied inside it: PostgreSQL's DDL is
transactional, including roles.
"""

import importlib
import re
import shlex
from collections.abc import Iterator, Set
from contextlib import contextmanager
from typing import Any, Final
from unittest.mock import patch

import sqlalchemy as sa
from sqlalchemy import Connection

from app.tenancy import MIGRATIONS
from tenant_schemas.doctor import Finding, examine
from tenant_schemas.repair.adoption import Adoption
from tenant_schemas.repair.repair import Repairer
from tenant_schemas.roles import create_pool_role, create_service_roles, pool_password, set_tenant_login
from tenant_schemas.schema_diff.reference import Reference, make_reference
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
    """After the statement there is this finding, and no finding about another object. After its remedy it is gone.

    A grant may be wrong in two ways at once; then both findings are about the same object.
    """
    with broken(database, statement) as connection:
        connection.exec_driver_sql("SET LOCAL SESSION AUTHORIZATION wallet_migrator")
        with patch("tenant_schemas.doctor.make_reference", _known_reference):
            found = findings(connection)
        names = {(finding.check, finding.where) for finding in found}
        assert (check, where) in names
        others = {one for one in names - {(check, where)} if one[0] != "schema_drift"}
        assert all(where.partition(" ")[2].rpartition(".")[2] in other for _, other in others), others
        assert_remedied(connection, database, found)


# Their remedy is a decision, or a migration.
ADVICE: Final = frozenset({"policy_missing", "schema_drift", "behind"})
_COMMAND: Final = re.compile(r"`python -m scripts\.(\w+)([^`]*)`")
_STATEMENT: Final = re.compile(r"\b(?:ALTER|REVOKE|DROP|REINDEX|REASSIGN OWNED|DELETE|INSERT|SELECT)\s[^;`]*;")
_REFERENCES: Final[dict[str, Reference]] = {}


def assert_remedied(
    connection: Connection, database: Database, found: list[Finding], left: Set[str] = frozenset(), **options: Any
) -> None:
    """Run the remedies as a superuser. Afterwards these findings are gone, and no others have come but advice and those
    about the schemas in `left`.
    """
    connection.exec_driver_sql("SET LOCAL SESSION AUTHORIZATION DEFAULT")
    for remedy in dict.fromkeys(finding.remedy for finding in found if finding.check not in ADVICE):
        assert run_remedy(connection, database, remedy), f"Nothing to run: {remedy}"
    with patch("tenant_schemas.doctor.make_reference", _known_reference):
        after = [finding for finding in findings(connection, **options) if finding.check not in ADVICE]
    assert [one for one in after if one.where.split()[-1] not in left] == [], [finding.remedy for finding in found]


def run_remedy(connection: Connection, database: Database, remedy: str) -> int:
    """Run the statements and commands that a remedy names. Returns how many."""
    statements, commands = _STATEMENT.findall(_COMMAND.sub("", remedy)), _COMMAND.findall(remedy)
    for statement in statements:
        connection.exec_driver_sql(statement)
    for name, arguments in commands:
        _run_command(connection, database, name, shlex.split(arguments))
    return len(statements) + len(commands)


def _run_command(connection: Connection, database: Database, name: str, arguments: list[str]) -> None:
    """What the script does, in the open db transaction; its own parser reads the arguments."""
    if name == "create_roles":
        create_service_roles(connection, database.roles, dict(database.passwords))
        create_pool_role(connection, database.roles, pool_password(database.tenant_secret))
        return
    given = importlib.import_module(f"scripts.{name}").main.make_context(name, arguments).params
    if name == "repair_tenant":
        adoption = Adoption(schema_name=given["schema_name"]) if given["schema_name"] else None
        repairer = Repairer(MIGRATIONS, database.tenant_secret, lambda _: False)
        assert repairer.repair(connection, given["slug"], adoption).problem is None
        return
    assert name == "reset_tenant_login"
    tenant = database.tenant(given["slug"])
    set_tenant_login(connection, tenant, database.password_of(tenant))


def _known_reference(connection: Connection, *arguments: Any) -> Reference:
    """Made once for a version of the server: it is the same whatever is broken."""
    version = connection.exec_driver_sql("SHOW server_version").scalar_one()
    if version not in _REFERENCES:
        _REFERENCES[version] = make_reference(connection, *arguments)
    return _REFERENCES[version]
