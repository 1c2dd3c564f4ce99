"""The generated clients, made once for each test process."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.config import ROOT

needs_node = pytest.mark.skipif(shutil.which("npm") is None, reason="Node.js is not installed: apt-get install npm")


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `make clients` makes."""
    folder = tmp_path_factory.mktemp("clients")
    subprocess.run([sys.executable, "-m", "scripts.build_clients", "--to", str(folder)], cwd=ROOT, check=True)
    return folder
