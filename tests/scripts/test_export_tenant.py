"""`scripts.export_tenant` refuses an export that it can't make, with a reason."""

from pathlib import Path

import pytest

from tenant_schemas.testing.plugin import Database
from tests.factories.script_runner import backup_script_runner

pytestmark = pytest.mark.both_servers


@pytest.mark.parametrize("arguments", [("nope", "--to", "x"), ("km",)])
def test_what_can_not_be_asked_for_is_refused_with_a_reason(
    fresh_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    run = backup_script_runner(fresh_database, monkeypatch)
    monkeypatch.chdir(tmp_path)
    result = run("export_tenant", *arguments)
    assert result.exit_code == 2
    assert result.output
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []
