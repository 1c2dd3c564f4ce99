"""The generated clients, made once for each test process."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.config import ROOT
from scripts.build_clients import build_python
from scripts.support.api_description import api_description

needs_node = pytest.mark.skipif(shutil.which("npm") is None, reason="Node.js is not installed: apt-get install npm")


@pytest.fixture(scope="session")
def python_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The Python client, importable. It needs no Node.js."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "openapi.json").write_bytes(api_description())
    build_python(folder / "openapi.json", folder / "python")
    sys.path.insert(0, str(folder / "python"))
    yield
    sys.path.remove(str(folder / "python"))


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `make clients` makes."""
    folder = tmp_path_factory.mktemp("clients")
    subprocess.run([sys.executable, "-m", "scripts.build_clients", "--to", str(folder)], cwd=ROOT, check=True)
    return folder
