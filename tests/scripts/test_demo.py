"""`make demo` on a fresh clone: what it prints works when it is pasted, and it leaves nothing behind."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from app.config import ROOT
from scripts.build_clients import install_node_modules
from scripts.demo import main
from scripts.support.demo import installation
from scripts.support.demo.installation import missing_packages
from tests.deploy.standin.test_proof import run_typescript, shown_in_the_document
from tests.factories.ports import free_port

START_SECONDS = 120
ARRIVAL_SECONDS = 20
PROVE = """
import { readFileSync } from "node:fs";
import { proveFeed } from "./proof.js";
const heads = await proveFeed(...JSON.parse(readFileSync(0, "utf8")));
console.log(JSON.stringify([...heads.values()]));
"""
pytestmark = pytest.mark.skipif(bool(missing_packages()), reason=f"apt-get install {' '.join(missing_packages())}")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not pytest's own: another session closes that one to the account of PostgreSQL."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@pytest.fixture
def demo(folder: Path) -> Iterator[tuple[str, str]]:
    """The URL of a demo, and what it printed. Afterwards it must have left nothing behind."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.demo", "--port", str(port)],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        printed = ""
        while printed.count("/account") < 2:
            line = process.stdout.readline()
            assert line, f"the demo ended: {printed}"
            printed += line
        yield f"http://localhost:{port}", printed
        assert of_folder(folder)
    finally:
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(START_SECONDS) == 0
        process.stdout.close()
    assert of_folder(folder) == []
    assert list(folder.iterdir()) == []


def of_folder(folder: Path) -> list[str]:
    """The processes that know this folder from their environment or their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            known = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if str(folder).encode() in known and process.name != str(os.getpid()):
            found.append(f"{process.name} {(process / 'comm').read_text()}")
    return found


class Member:
    """The demo's member, logged in at the stand-in."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=10)
        body = {"email": "member@example.com", "password": "wallet-demo-login"}
        self.http.headers["Authorization"] = f"Bearer {self.http.post('/login', json=body).json()['accessToken']}"

    def balance(self) -> Decimal:
        return Decimal(self.http.get("/account").json()["balance"])

    def last(self, via: str) -> dict[str, Any]:
        """The data of the newest movement that arrived by this way."""
        items = self.http.get(f"/arrived/{via}").json()["items"]
        return next(dict(item["data"]) for item in items if "hash" in item["data"])

    def payments(self, via: str, *, wanted: int) -> list[dict[str, Any]]:
        """The data of the payments that arrived by this way since the demo's own, the oldest first."""
        deadline = time.monotonic() + ARRIVAL_SECONDS
        while True:
            items = self.http.get(f"/arrived/{via}").json()["items"]
            found = [item["data"] for item in reversed(items) if item["type"] == "wallet.payment.posted.v1"]
            new = [data for data in found if data["amount"] in {"-1.50", "-2.00"}]
            if len(new) >= wanted or time.monotonic() > deadline:
                return new
            time.sleep(0.1)


def test_what_it_prints_works_when_pasted(demo: tuple[str, str]) -> None:
    """A payment over the gateway arrives by RabbitMQ, by webhook and by SSE. A command that is delivered twice pays
    once.
    """
    url, printed = demo
    member = Member(url)
    before = member.balance()
    lines = (
        printed.partition("another shell.\n")[2].replace("--max-time 20", "--max-time 7").replace("sleep 3", "sleep 0")
    )
    done = subprocess.run(["bash", "-uc", lines], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    streamed = [json.loads(data) for data in re.findall(r"^data: ?(\{.*)$", done.stdout, re.MULTILINE)]
    assert "-1.50" in [event["data"].get("amount") for event in streamed]
    for via in ("rabbitmq", "webhook"):
        payments = member.payments(via, wanted=2)
        assert [data["amount"] for data in payments] == ["-1.50", "-2.00"], via
        assert payments[1]["previousHash"] == payments[0]["hash"]
    assert member.balance() == before - Decimal("3.50")
    assert_the_printed_proof_runs(url, member.last("rabbitmq"))
    member.http.close()


def assert_the_printed_proof_runs(url: str, last: dict[str, Any]) -> None:
    """What docs/events.md prints, on the feed of the demo: `last` is the newest movement of its only wallet."""
    admin = {"email": "admin@example.com", "password": "wallet-demo-login"}
    token = httpx.post(f"{url}/api/eur/auth/login", json=admin).json()["accessToken"]
    expected = [last["seq"], last["hash"]]
    code: dict[str, Any] = {}
    exec(shown_in_the_document("python"), code)
    assert [list(head) for head in code["prove_feed"](f"{url}/api/eur", token).values()] == [expected]
    if shutil.which("npm"):
        install_node_modules()
        with tempfile.TemporaryDirectory() as folder:
            module = Path(folder) / "proof.ts"
            module.write_text(shown_in_the_document("ts"))
            said = run_typescript(Path(folder), module, PROVE, json.dumps([f"{url}/api/eur", token]))
        assert json.loads(said) == [expected]


def test_missing_packages_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "NGINX", None)
    monkeypatch.setattr(installation, "SERVER", None)
    said = CliRunner().invoke(main, [])
    assert said.exit_code == 2
    assert "apt-get install nginx-light rabbitmq-server" in said.output


def test_a_port_in_use_is_refused_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = CliRunner().invoke(main, ["--port", str(taken.getsockname()[1])])
    assert said.exit_code == 2
    assert "Set PORT" in said.output
