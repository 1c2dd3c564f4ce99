"""The plan of a run shows the statements as they will be sent."""

from pathlib import Path

import pytest

from scripts.support.migration_plan import show_sql
from tenant_schemas.migrations.runner import MigrateOptions
from tenant_schemas.testing.plugin import Database
from tests.factories.histories import add_revision, copied_histories


def test_a_concurrent_index_is_shown_with_its_weaker_lock(
    database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    histories = copied_histories(tmp_path)
    index = "CREATE INDEX CONCURRENTLY wallets_at_idx ON wallets (last_posted_at)"
    add_revision(histories, f"op.execute('{index}')", concurrently=True)
    show_sql(database.admin_engine(), histories, MigrateOptions())
    shown = capsys.readouterr().out
    assert f"-- Outside a db transaction:\n{index};\n" in shown
    assert "Locks: wallets: SHARE UPDATE EXCLUSIVE." in shown
