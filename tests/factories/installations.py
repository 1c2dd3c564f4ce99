"""A lost installation, and the bundles from which it comes back."""

from pathlib import Path

from psycopg import sql

from app.shared_policy import SHARED_POLICY
from tenant_schemas.backup.backup_all import back_up_all
from tenant_schemas.backup.shared_backup import back_up_shared
from tenant_schemas.backup.shared_bundle import SharedBundle, open_shared_bundle
from tenant_schemas.backup.writer import BackupOptions
from tenant_schemas.testing.plugin import Database
from tests.factories.backups import KEYS, source_of

# The tests' applications have this SECRET_KEY, and the installation of a test has no check value of it.
SECRET_NAME = "SECRET_KEY"


def take_shared(database: Database, folder: Path, *sealed_for: str) -> SharedBundle:
    """A bundle of the schema shared, opened."""
    taken = back_up_shared(source_of(database), SHARED_POLICY, BackupOptions(folder=folder, sealed_for=sealed_for))
    return open_shared_bundle(taken.folder, KEYS)


def take_all(database: Database, folder: Path) -> SharedBundle:
    """Bundles of all tenants and of the schema shared, which is returned."""
    for outcome in back_up_all(source_of(database), BackupOptions(folder=folder)):
        assert outcome.error is None, outcome.error
    return take_shared(database, folder)


def lose(database: Database) -> None:
    """Drop all data of the installation. The roles stay, because they belong to the whole server."""
    names = ["shared", *(tenant.schema_name for tenant in database.tenants())]
    schemas = sql.SQL(", ").join(map(sql.Identifier, names))
    database.as_superuser().execute(sql.SQL("DROP SCHEMA {} CASCADE").format(schemas))
