"""The installation of the fleet benchmark: one server with two databases, one for the engine and one for psql, which
have the same number of tenants.

So both have equally large system catalogues. The engine's functions are called in this process, as the scripts call
them.
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

from app.backup_policy import BACKUP_POLICY, bundle_keys
from app.config import DATABASE_NAME, ROOT, Settings
from app.db import ROLES, admin_engine
from app.tenancy import MIGRATIONS
from scripts import migration_status
from scripts.benchmarks.installation import Installation, throwaway_installation
from scripts.benchmarks.measurement import BenchmarkFailed
from scripts.benchmarks.psql_baseline import PsqlBaseline
from tenant_schemas.backup.backup import back_up
from tenant_schemas.backup.source import Source
from tenant_schemas.backup.writer import BackupOptions
from tenant_schemas.lifecycle.provision import new_tenant, provision_many
from tenant_schemas.migrations.history import History, Migrations
from tenant_schemas.migrations.runner import MigrateOptions, migrate
from tenant_schemas.registry import all_tenants
from tenant_schemas.roles import revoke_public_privileges
from tenant_schemas.schema_diff.compare import find_drift
from tenant_schemas.tenant import Tenant

BASELINE_DATABASE = "baseline"
SETTINGS = {"currency": "EUR"}


@dataclass(frozen=True, slots=True)
class FleetInstallation:
    """The engine's database, psql's, and a copy of the histories to which revisions are added."""

    installation: Installation
    baseline: PsqlBaseline
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
                raise BenchmarkFailed(f"{tenant.slug} was not provisioned: {error}")

    def migrate(self) -> None:
        """Migrate all tenants to the head. Raises BenchmarkFailed if one is not at the head afterwards."""
        head = self.migrations.head(History.TENANT)
        for outcome in migrate(self.engine, self.migrations, MigrateOptions(jobs=self.jobs)):
            if outcome.has_failed or (outcome.slug and outcome.after != head):
                raise BenchmarkFailed(f"{outcome.schema_name} is not at {head}: {outcome.error or outcome.after}")

    def show_status(self) -> None:
        result = CliRunner().invoke(migration_status.main, ["--json"])
        if result.exit_code:
            raise BenchmarkFailed(f"migration_status failed: {result.output[-1000:]}\n{result.exception!r}")

    def find_drift(self, *, is_full: bool = False) -> None:
        """Look at all tenants as `migration_status --drift` does. Raises BenchmarkFailed if one has drifted."""
        with self.engine.begin() as connection:
            found = find_drift(connection, MIGRATIONS, all_tenants(connection), is_full=is_full)
        if found.objects or found.unproven:
            raise BenchmarkFailed(f"Drift where nothing was changed: {found}")

    def back_up(self, tenant: Tenant, folder: Path) -> None:
        keys = bundle_keys(self.settings)
        url = self.settings.backup_database_url
        source = Source(url=url, migrations=MIGRATIONS, backup_policy=BACKUP_POLICY, keys=keys)
        back_up(source, tenant.slug, BackupOptions(folder=folder / "bundles"))

    def tables_of(self, tenant: Tenant) -> list[str]:
        query = "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1"
        with self.engine.connect() as connection:
            return list(connection.exec_driver_sql(query, (tenant.schema_name,)).scalars())

    def add_revision(self, number: int) -> None:
        """Add a revision that adds a column to a table of every tenant."""
        before = self.migrations.head(History.TENANT)
        revision = f"{int(before) + 1:04d}"
        (self.histories / "migrations" / "tenant" / f"{revision}_round.py").write_text(
            f'"""Round."""\n\nfrom alembic import op\n\nrevision = "{revision}"\ndown_revision = "{before}"\n\n\n'
            f'def upgrade() -> None:\n    op.execute("ALTER TABLE wallets ADD COLUMN round_{number} text")\n',
            encoding="utf-8",
        )


def planned_tenant(slug: str) -> Tenant:
    """A tenant that is not provisioned yet."""
    return new_tenant(MIGRATIONS, slug=slug, name=slug, settings=SETTINGS)


@contextmanager
def fleet_installation(members: int, jobs: int) -> Iterator[FleetInstallation]:
    """An installation that is removed afterwards. Both databases have two tenants with wallets for all members."""
    os.environ["TENANT_LOGINS"] = "shared"  # It creates the pool's role; each measurement chooses its own login mode.
    with throwaway_installation(members) as installation, TemporaryDirectory(prefix="wallet-histories-") as folder:
        shutil.copytree(ROOT / "migrations", Path(folder, "migrations"), ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "setup.cfg", folder)
        yield FleetInstallation(installation, _make_baseline(installation), Path(folder), jobs)


def _make_baseline(installation: Installation) -> PsqlBaseline:
    """A copy of the service's database."""
    with psycopg.connect(installation.server.superuser_url(), autocommit=True) as connection:
        names = [sql.Identifier(name) for name in (BASELINE_DATABASE, DATABASE_NAME)]
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
    with admin_engine(installation.server.superuser_url(BASELINE_DATABASE)).begin() as connection:
        revoke_public_privileges(connection, ROLES)
    url = sa.make_url(installation.settings.admin_database_url).set(database=BASELINE_DATABASE)
    return PsqlBaseline(url.render_as_string(hide_password=False), ROLES)
