"""Every command of the runbook works when pasted, in its order."""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.config import ROOT
from app.tenancy import MIGRATIONS
from tenant_schemas import embedded
from tenant_schemas.testing.plugin import Database, made_template
from tests.conftest import SECRET_KEY, SIGNING_KEYS, running_app
from tests.factories.api import Api
from tests.factories.people import People

# A section of the runbook with its own test (tests/scripts/test_restore_tenant_point_in_time.py).
RUN_ELSEWHERE = "## One tenant back in time"


@pytest.fixture
def installation(tenant_settings: Mapping[str, Mapping[str, Any]]) -> Iterator[Database]:
    """On a server with default settings: the doctor would report the tests' own server, which waits for no disk."""
    with tempfile.TemporaryDirectory(prefix="runbook-") as folder:
        server = embedded.start(Path(folder))
        try:
            url = server.superuser_url()
            with psycopg.connect(url) as superuser:
                superuser.execute("REVOKE CONNECT, TEMP ON DATABASE postgres, template1 FROM PUBLIC")
            with made_template(url, MIGRATIONS, ("eur", "km"), tenant_settings) as installation:
                yield installation
        finally:
            server.release()


def test_the_runbook_can_be_pasted(installation: Database, tmp_path: Path) -> None:
    with contextlib.contextmanager(running_app)(installation) as app:
        admin = People(app).make(km="admin", eur="admin")
        for tenant in ("eur", "km"):
            assert Api(app).get("/api/wallet", admin, tenant).status_code == 200
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").partition(RUN_ELSEWHERE)[0]
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 5
    script = tmp_path / "runbook.sh"
    script.write_text("set -euxo pipefail\n" + "\n".join(blocks))
    programs = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "BACKUPS": str(tmp_path / "backups"),
        "DATABASE_URL": installation.app_url,
        "ADMIN_DATABASE_URL": installation.admin_url,
        "TENANT_SECRET": installation.tenant_secret,
        "SECRET_KEY": SECRET_KEY,
        "SIGNING_KEYS": SIGNING_KEYS,
        "TENANT_LOGINS": "shared",  # The tests' server has the pool's role, which the doctor expects.
    }
    (tmp_path / "backups").mkdir()
    done = subprocess.run(
        ["bash", str(script)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
