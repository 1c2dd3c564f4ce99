"""Backups of tenants, their content, and payments during a backup."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import UUID

from app.backup_policy import BACKUP_POLICY
from app.tenancy import MIGRATIONS
from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.backup.manifest import MANIFEST_NAME
from tenant_schemas.backup.signature import SIGNATURE_NAME, BundleKeys, read_key_file
from tenant_schemas.backup.source import Source
from tenant_schemas.testing.plugin import Database

# The keys that the scripts have in the tests, too.
KEY_FILE = Path(__file__).with_name("bundle_keys.txt")
KEYS = BundleKeys(read_key_file(KEY_FILE))
# Of another installation.
FOREIGN_KEYS = BundleKeys([bytes(32)])


def source_of(database: Database, role_name: str = "wallet_backup") -> Source:
    """The source of a backup of this database, with this login."""
    return Source(url=database.url(role_name), migrations=MIGRATIONS, backup_policy=BACKUP_POLICY, keys=KEYS)


def rows_in(bundle: Bundle, name: str) -> list[dict[str, str]]:
    """A table's rows as COPY's texts. No test here writes a value that COPY has to escape."""
    (found,) = [each for each in (*bundle.manifest.tables, *bundle.manifest.shared) if each.name == name]
    return [
        dict(zip(found.columns, line.decode().rstrip("\n").split("\t"), strict=True)) for line in bundle.lines(found)
    ]


def fill(database: Database, rows: int) -> None:
    """Rows that hardly compress, in a table of km that refers to nothing."""
    database.as_superuser().execute(
        "INSERT INTO km_schema.reconciliations (user_id, currency, calculated_minor, posted_minor, source_rows,"
        " source_hash, compared_at) SELECT gen_random_uuid(), 'BAM', 1, 1, 1, sha256(uuid_send(gen_random_uuid())),"
        " now() FROM generate_series(1, %s)",
        (rows,),
    )


PAY = "SELECT wallet_post_v2(%s, 'payment', 1, gen_random_uuid()::text, NULL, NULL, NULL, NULL, NULL, NULL)"


@contextmanager
def paying(database: Database, wallets: Sequence[UUID]) -> Iterator[list[int]]:
    """Payments from wallets of km, one after another, until the block ends. The list has one number: their count."""
    done, stop, tenant = [0], Event(), database.as_tenant("km")

    def pay() -> None:
        while not stop.is_set():
            for wallet in wallets:
                tenant.execute(PAY, (wallet,))
                done[0] += 1

    thread = Thread(target=pay)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


MIGRATED = """
    ALTER TABLE km_schema.wallets ADD COLUMN nickname text;
    UPDATE km_schema.alembic_version SET version_num = '9999';
    UPDATE shared.tenants SET revision = '9999' WHERE slug = 'km'"""


def edited(bundle: Bundle, edit: Callable[[dict[str, Any]], object], keys: BundleKeys = KEYS) -> Path:
    """The bundle with another manifest, signed again."""
    told = json.loads((bundle.folder / MANIFEST_NAME).read_text())
    edit(told)
    write_manifest(bundle.folder, json.dumps(told), keys)
    return bundle.folder


def write_manifest(folder: Path, text: str, keys: BundleKeys = KEYS) -> None:
    """Write the manifest and its signature."""
    content = text.encode("utf-8", "surrogatepass")
    (folder / MANIFEST_NAME).write_bytes(content)
    (folder / SIGNATURE_NAME).write_bytes(keys.sign(content))
