"""Older bundles of the schema shared go when enough newer ones are intact, and only ours."""

import json
import shutil
from pathlib import Path

from tenant_schemas.backup.manifest import MANIFEST_NAME
from tenant_schemas.backup.shared_retention import keep_newest_shared
from tenant_schemas.testing.plugin import Database
from tests.factories.backups import FOREIGN_KEYS, KEYS, write_manifest
from tests.factories.installations import take_shared


def test_the_newest_intact_ones_stay(database: Database, tmp_path: Path) -> None:
    new = take_shared(database, tmp_path)
    text = (new.folder / MANIFEST_NAME).read_text()

    def copy(day: int) -> Path:
        return Path(shutil.copytree(new.folder, tmp_path / f"shared-2020010{day}T000000Z"))

    oldest, foreign, damaged, intact, noted = (copy(day) for day in (1, 2, 4, 3, 5))
    write_manifest(foreign, text, FOREIGN_KEYS)
    (damaged / json.loads(text)["tables"][0]["file"]).write_bytes(b"x")
    (oldest.parent / "km-20200101T000000Z").mkdir()
    (noted / "note.txt").write_text("kept by hand")
    assert keep_newest_shared(new, 2, KEYS) == [oldest]
    assert all(folder.exists() for folder in (intact, damaged, foreign, noted))
    assert len(list(tmp_path.iterdir())) == 6
    assert keep_newest_shared(new, 1, KEYS) == [damaged, intact]
