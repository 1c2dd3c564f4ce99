"""Each history is one line of numbered revisions; the shared history starts from an empty database and touches no
tenant.

The histories here are those of the repository with scratch revisions after them.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa
from alembic.util import CommandError
from psycopg import sql

from tenant_schemas.migrations.history import History, Migrations, Outcome
from tenant_schemas.roles import revoke_public_privileges
from tenant_schemas.testing.plugin import Database
from tests.factories.scratch_revision import (
    BEFORE,
    PROBES,
    SCHEMAS,
    STEPS,
    assert_as_before,
    migrations_in,
    next_number,
    tables_in,
    write_revision,
)

pytestmark = pytest.mark.changes_roles

# The shared history.


@pytest.fixture
def empty_database(template: Database) -> Iterator[Database]:
    """A database with the roles' privileges and without objects."""
    name = f"empty_{uuid4().hex[:8]}"
    empty = replace(template, name=name, _open=[])
    with psycopg.connect(template.server_url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            engine = sa.create_engine(
                sa.make_url(empty.url()).set(drivername="postgresql+psycopg"), poolclass=sa.NullPool
            )
            with engine.begin() as connection:
                revoke_public_privileges(connection, empty.roles)
            yield empty
            empty.close()
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_shared_is_made_and_migrated_from_nothing_and_again_for_nothing(
    empty_database: Database, tenancy_migrations: Migrations
) -> None:
    head = tenancy_migrations.head(History.SHARED)
    engine = empty_database.admin_engine()
    assert tenancy_migrations.migrate_shared(engine) == Outcome("shared", None, None, head)
    assert tenancy_migrations.migrate_shared(engine) == Outcome("shared", None, head, head)
    assert tables_in(empty_database, "shared") >= {"alembic_version", "memberships", "tenants", "users"}
    assert tables_in(empty_database, "public") == set()


def test_a_shared_migration_that_fails_leaves_nothing(empty_database: Database, repository: Path) -> None:
    """Not even the schema, if the migration made it."""
    write_revision(repository, History.SHARED, next_number(History.SHARED), 'op.execute("SELECT 1 / 0")')
    outcome = migrations_in(repository).migrate_shared(empty_database.admin_engine())
    assert (outcome.before, outcome.after) == (None, None)
    assert "DivisionByZero" in (outcome.error or "")
    with empty_database.as_superuser() as superuser:
        assert superuser.execute("SELECT to_regnamespace('shared')").fetchone() == (None,)


def test_a_shared_migration_touches_no_tenant(fresh_database: Database, repository: Path) -> None:
    write_revision(repository, History.SHARED, next_number(History.SHARED), STEPS)
    outcome = migrations_in(repository).migrate_shared(fresh_database.admin_engine())
    assert outcome.after == f"{next_number(History.SHARED):04d}"
    assert tables_in(fresh_database, "shared") >= PROBES
    for slug in SCHEMAS:
        assert_as_before(fresh_database, slug)


# Histories.


def test_each_history_is_one_line_with_a_numbered_head(tenancy_migrations: Migrations) -> None:
    for history in History:
        assert tenancy_migrations.head(history).isdecimal()
        assert len(tenancy_migrations.head(history)) == 4


def test_a_history_without_revisions_is_an_error_that_says_which(repository: Path) -> None:
    for file in (repository / "migrations" / "tenant").glob("0*.py"):
        file.unlink()
    with pytest.raises(LookupError, match=r"alembic.*no revisions"):
        migrations_in(repository).head(History.TENANT)


def test_a_history_of_two_lines_is_refused(scratch: Migrations) -> None:
    fork = scratch.setup_cfg.parent / "migrations" / "tenant" / "0000_fork.py"
    fork.write_text(f"revision = 'fork'\ndown_revision = '{BEFORE}'\n\n\ndef upgrade() -> None:\n    pass\n")
    with pytest.raises(CommandError, match="multiple heads"):
        scratch.head(History.TENANT)
