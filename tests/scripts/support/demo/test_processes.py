"""Processes end with the demo, and one that fails says why."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from app.config import ROOT
from scripts.support.demo.processes import Failed, Processes, Stopped
from tests.factories.processes import lives

SECONDS = 10
# A shell that waits for its child, as RabbitMQ's start script does. It writes the child's number.
PARENT = ("sh", "-c", "sleep 60 & echo $! >&1; wait")
KILLED = """
import sys, time
from pathlib import Path
from threading import Event
from scripts.support.demo.processes import Processes
Processes(Path(sys.argv[1]), {"PATH": "/usr/bin:/bin"}, Event()).start("sleeping", ["sleep", "60"])
print("started", flush=True)
time.sleep(60)
"""


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path, {"PATH": os.environ["PATH"]}, Event())
    yield made
    made.end()


def wait_until_dead(pid: int) -> None:
    deadline = time.monotonic() + SECONDS
    while lives(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_end_reaches_what_a_process_has_started(processes: Processes, tmp_path: Path) -> None:
    processes.start("parent", PARENT)
    processes.wait_until(lambda: (tmp_path / "parent.log").read_text().endswith("\n"), "parent")
    child = int((tmp_path / "parent.log").read_text())
    assert lives(child)
    processes.end()
    wait_until_dead(child)


def test_a_process_that_ends_by_itself_says_why(processes: Processes) -> None:
    processes.start("broken", ("sh", "-c", "echo no such queue >&2; exit 3"))
    with pytest.raises(Failed, match="broken ended with exit code 3:\nno such queue"):
        processes.wait_until(lambda: False, "broken")


def test_a_signal_ends_the_wait(processes: Processes) -> None:
    processes.start("slow", ("sleep", "60"))
    processes.stop.set()
    with pytest.raises(Stopped):
        processes.wait_until(lambda: False, "slow")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_processes_end_when_the_demo_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    demo = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert demo.stdout
    assert demo.stdout.readline() == "started\n"
    children = Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()
    assert len(children) == 1
    demo.send_signal(signal.SIGKILL)
    demo.wait()
    demo.stdout.close()
    wait_until_dead(int(children[0]))
