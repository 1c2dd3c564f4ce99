"""`scripts.psql` starts psql as the login of a tenant."""

import subprocess
import sys

import pytest

from app.config import ROOT


@pytest.mark.usefixtures("run")
def test_psql_logs_in_as_the_tenant() -> None:
    command = [sys.executable, "-m", "scripts.psql", "--tenant", "km", "-Atc", "SELECT current_user"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "tenant_km"
