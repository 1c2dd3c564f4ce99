"""Older bundles of the schema shared go when enough newer ones are intact, and only ours."""

import json
import shutil
from datetime import timedelta
from pathlib import Path

from tenant_schemas.backup.manifest import MANIFEST_NAME
from tenant_schemas.backup.retention import Keep
from tenant_schemas.backup.shared_retention import find_outdated_shared, keep_newest_shared
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
    assert find_outdated_shared(tmp_path, Keep(age=timedelta(days=1)), KEYS).outdated == []
    assert set(find_outdated_shared(tmp_path, Keep(age=timedelta(0)), KEYS).outdated) >= {oldest, intact}
    assert keep_newest_shared(new, Keep(2), KEYS).outdated == [oldest]
    assert all(folder.exists() for folder in (intact, damaged, foreign, noted))
    assert len(list(tmp_path.iterdir())) == 6
    assert keep_newest_shared(new, Keep(1), KEYS).outdated == [damaged, intact]
