"""The generated clients are strictly typed, and an admin and a member get through their day with each of them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.auth.passwords import hash_password
from app.config import ROOT
from tenant_schemas.testing.plugin import Database
from tests.factories.clients import clients, needs_node  # noqa: F401  The fixture.
from tests.factories.people import People
from tests.factories.served import served

HERE = ROOT / "tests" / "clients"
NODE_MODULES = ROOT / "scripts" / "clients" / "node_modules"
PASSWORD = "a long password of a test"
SECONDS = 120
pytestmark = needs_node


@pytest.fixture
def url(database: Database, tmp_path: Path) -> Iterator[str]:
    with served(database, tmp_path / "gunicorn.log", "--threads", "4") as url:
        yield url


@pytest.fixture
def arguments(url: str, people: People) -> list[str]:
    """The arguments of a journey: the URL, the addresses of an admin and of a member, and their password."""
    known = hash_password(PASSWORD)
    admin, member = (people.make(password_hash=known, eur=role) for role in ("admin", "member"))
    return [url, admin.email, member.email, PASSWORD]


def run(*command: str | Path, folder: Path, **variables: str) -> str:
    """What the command printed. It must succeed."""
    done = subprocess.run(
        command, cwd=folder, env=os.environ | variables, check=False, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_day_with_the_typescript_client(clients: Path, arguments: list[str]) -> None:  # noqa: F811
    folder = clients / "typescript"
    shutil.copy(HERE / "journey.ts", folder)
    strict = ["--target", "ES2022", "--module", "NodeNext", "--strict", "--exactOptionalPropertyTypes"]
    run(NODE_MODULES / ".bin" / "tsc", *strict, "--types", "node", "journey.ts", folder=folder)
    assert run("node", "journey.js", *arguments, folder=folder) == "ok\n"


def test_a_day_with_the_python_client(clients: Path, arguments: list[str], tmp_path: Path) -> None:  # noqa: F811
    folder = clients / "python"
    shutil.copy(HERE / "journey.py", folder)
    cache = f"--cache-dir={tmp_path}"
    run(sys.executable, "-m", "mypy", "--strict", cache, "journey.py", "schema_wallet_client", folder=folder)
    assert run(sys.executable, "journey.py", *arguments, folder=folder) == "ok\n"
