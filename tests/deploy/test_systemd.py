"""The units of deploy/systemd: systemd can read them, they confine what they run, and their commands exist."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.config import ROOT
from scripts.serve import DRAIN_SECONDS
from tests.factories.command_lines import parse

UNITS = ROOT / "deploy" / "systemd"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
COMMON = UNITS / "wallet-.service.d" / "common.conf"
MOST_EXPOSURE = 20  # In tenths; systemd calls a service up to 5 of 10 "OK".
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd is not installed: apt-get install systemd"
)


def instance(name: str) -> str:
    return name.replace("@.", "@8000.")


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units as they are shipped, for this repository and this Python in place of /opt/wallet."""
    shutil.copytree(UNITS, tmp_path, dirs_exist_ok=True)
    for path in [*tmp_path.glob("*.service"), tmp_path / COMMON.relative_to(UNITS)]:
        text = path.read_text().replace("/opt/wallet/.venv/bin/python", sys.executable)
        path.write_text(text.replace("/opt/wallet", str(ROOT)))
    return tmp_path


def analyze(units: Path, *arguments: str) -> str:
    """What systemd-analyze said; it must be content."""
    command, path = ["systemd-analyze", *arguments], f"{units}:"
    done = subprocess.run(
        command, env={"SYSTEMD_UNIT_PATH": path, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_systemd
def test_systemd_finds_no_fault(units: Path) -> None:
    names = [str(units / instance(name)) for name in SERVICES]
    assert analyze(units, "verify", "--man=no", *names, str(units / "wallet.target")) == ""


@needs_systemd
def test_every_service_is_confined(units: Path) -> None:
    """The common drop-in holds for each of them, also for the templates."""
    for name in SERVICES:
        said = analyze(
            units, "security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSURE}", instance(name)
        )
        assert re.search(r"Overall exposure level for \S+: [01]\.\d", said)


@pytest.mark.parametrize("name", SERVICES)
def test_the_command_of_a_service_exists(name: str) -> None:
    (line,) = re.findall(r"^ExecStart=/opt/wallet/\.venv/bin/python (.*)$", (UNITS / name).read_text(), re.MULTILINE)
    parse(shlex.split(line.replace("%i", "8000" if "--port %i" in line else "1")))


def test_the_target_starts_each_service_and_the_gateway_knows_its_ports() -> None:
    wanted = re.findall(r"^Wants=(.*)$", (UNITS / "wallet.target").read_text(), re.MULTILINE)
    assert {re.sub("@.*", "@.service", name) for name in wanted} == set(SERVICES)
    gateway = (ROOT / "deploy" / "nginx" / "snippets" / "wallet-upstreams.conf").read_text()
    ports = re.findall(r"@(\d{4})\.service", " ".join(wanted))
    assert len(ports) == 2
    assert [port for port in ports if f"127.0.0.1:{port};" not in gateway] == []


def test_a_service_may_drain_before_it_is_killed() -> None:
    text = COMMON.read_text()
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert int(seconds) > DRAIN_SECONDS
    assert "\nKillMode=mixed\n" in text
