"""Where the fleet's work is measured: one server with two databases of equally many tenants, the engine's and psql's.

Both so have as large a catalogue before them. The engine is called as the scripts call it, in a process that is up.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import sqlalchemy as sa
from click.testing import CliRunner
from psycopg import sql

from app.backup_policy import BACKUP_POLICY
from app.config import DATABASE_NAME, ROOT, Settings
from app.db import ROLES, admin_engine
from app.tenancy import MIGRATIONS
from scripts import migration_status
from scripts.benchmarks.installation import Installation, throw_away
from scripts.benchmarks.psql_floor import Floor
from scripts.benchmarks.slices import BenchmarkFailed
from tenant_schemas.backup.backup import back_up
from tenant_schemas.backup.source import Source
from tenant_schemas.backup.writer import Shape
from tenant_schemas.lifecycle.provision import provision_many, tenant_to_be
from tenant_schemas.migrations.history import History, Migrations
from tenant_schemas.migrations.runner import MigrateOptions, migrate
from tenant_schemas.registry import all_tenants
from tenant_schemas.roles import revoke_public_privileges
from tenant_schemas.tenant import Tenant

FLOOR_DATABASE = "floor"
SETTINGS = {"currency": "EUR"}


@dataclass(frozen=True, slots=True)
class Ground:
    """The engine's side, the floor's, and histories to which revisions are added."""

    installation: Installation
    floor: Floor
    histories: Path
    jobs: int

    @property
    def settings(self) -> Settings:
        return self.installation.settings

    @property
    def engine(self) -> sa.Engine:
        return admin_engine(self.settings.admin_database_url)

    @property
    def migrations(self) -> Migrations:
        return Migrations(self.histories / "setup.cfg", ROLES)

    def tenants(self) -> list[Tenant]:
        with self.engine.connect() as connection:
            return all_tenants(connection)

    def provision(self, tenants: Sequence[Tenant]) -> None:
        for tenant, error in provision_many(self.engine, MIGRATIONS, tenants, self.settings.tenant_secret):
            if error:
                raise BenchmarkFailed(f"{tenant.slug} was not made: {error}")

    def migrate(self) -> None:
        """Take all to the head, and make sure that they are there."""
        head = self.migrations.head(History.TENANT)
        for outcome in migrate(self.engine, self.migrations, MigrateOptions(jobs=self.jobs)):
            if outcome.has_failed or (outcome.slug and outcome.after != head):
                raise BenchmarkFailed(f"{outcome.schema_name} is not at {head}: {outcome.error or outcome.after}")

    def show_status(self) -> None:
        result = CliRunner().invoke(migration_status.main, ["--json"])
        if result.exit_code:
            raise BenchmarkFailed(f"migration_status failed: {result.output[-1000:]}\n{result.exception!r}")

    def back_up(self, tenant: Tenant, folder: Path) -> None:
        source = Source(url=self.settings.backup_database_url, migrations=MIGRATIONS, backup_policy=BACKUP_POLICY)
        back_up(source, tenant.slug, Shape(folder=folder / "bundles"))

    def tables_of(self, tenant: Tenant) -> list[str]:
        query = "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1"
        with self.engine.connect() as connection:
            return list(connection.exec_driver_sql(query, (tenant.schema_name,)).scalars())

    def add_revision(self, number: int) -> None:
        """One column more for a table of every tenant."""
        before = self.migrations.head(History.TENANT)
        revision = f"{int(before) + 1:04d}"
        (self.histories / "migrations" / "tenant" / f"{revision}_round.py").write_text(
            f'"""Round."""\n\nfrom alembic import op\n\nrevision = "{revision}"\ndown_revision = "{before}"\n\n\n'
            f'def upgrade() -> None:\n    op.execute("ALTER TABLE wallets ADD COLUMN round_{number} text")\n',
            encoding="utf-8",
        )


def to_be(slug: str) -> Tenant:
    """A tenant that is still to be made."""
    return tenant_to_be(MIGRATIONS, slug=slug, name=slug, settings=SETTINGS)


@contextmanager
def prepared(members: int, jobs: int) -> Iterator[Ground]:
    """Nothing of it is left afterwards. Two tenants are there, with wallets for all members, in both databases."""
    os.environ["TENANT_LOGINS"] = "shared"  # So that the pool's role is made; who logs in says which login it takes.
    with throw_away(members) as installation, TemporaryDirectory(prefix="wallet-histories-") as folder:
        shutil.copytree(ROOT / "migrations", Path(folder, "migrations"), ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "setup.cfg", folder)
        yield Ground(installation, _make_floor(installation), Path(folder), jobs)


def _make_floor(installation: Installation) -> Floor:
    """A copy of the service's database."""
    with psycopg.connect(installation.server.superuser_url(), autocommit=True) as connection:
        names = [sql.Identifier(name) for name in (FLOOR_DATABASE, DATABASE_NAME)]
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
    with admin_engine(installation.server.superuser_url(FLOOR_DATABASE)).begin() as connection:
        revoke_public_privileges(connection, ROLES)
    url = sa.make_url(installation.settings.admin_database_url).set(database=FLOOR_DATABASE)
    return Floor(url.render_as_string(hide_password=False), ROLES)
