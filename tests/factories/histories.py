"""A copy of the repository's histories, to add revisions to."""

import shutil
from pathlib import Path
from typing import Any, Final

from app.config import ROOT
from app.tenancy import MIGRATIONS
from tenant_schemas.migrations.history import History, Migrations, Outcome
from tenant_schemas.migrations.runner import MigrateOptions, migrate
from tenant_schemas.testing.plugin import Database

HEAD: Final = MIGRATIONS.head(History.TENANT)


def copied_histories(folder: Path) -> Migrations:
    shutil.copytree(ROOT / "migrations", folder / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.cfg", folder)
    return Migrations(folder / "setup.cfg", MIGRATIONS.roles)


def run(database: Database, histories: Migrations, **options: Any) -> dict[str, Outcome]:
    """Migrate with these MigrateOptions. Returns the outcomes by the tenant's slug, or `shared`."""
    outcomes = list(migrate(database.admin_engine(), histories, MigrateOptions(**options)))
    return {outcome.slug or "shared": outcome for outcome in outcomes}


def add_revision(
    histories: Migrations,
    upgrade: str,
    downgrade: str = "pass",
    *,
    history: History = History.TENANT,
    runs_python: bool = False,
    concurrently: bool = False,
    checks: tuple[str, ...] = (),
) -> str:
    """Add the next revision, whose functions have these bodies, and return its number."""
    number = int(histories.head(history)) + 1
    folder = histories.setup_cfg.parent / "migrations" / ("shared" if history is History.SHARED else "tenant")
    (folder / f"{number:04d}_more.py").write_text(
        "from alembic import op\n\n"
        f"revision = '{number:04d}'\ndown_revision = '{number - 1:04d}'\n"
        f"runs_python = {runs_python}\nconcurrently = {concurrently}\nchecks = {checks!r}\n\n\n"
        f"def upgrade():\n    {upgrade}\n\n\ndef downgrade():\n    {downgrade}\n"
    )
    return f"{number:04d}"
