"""The processes of the demo. Each has a session of its own, so that Ctrl-C reaches the demo only, which ends them. On
Linux they end too if the demo is killed.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from app.config import ROOT
from scripts.serve import stop_with_parent

READY_SECONDS = 90
STOP_SECONDS = 45  # More than a process takes to drain.
LOG_TAIL = 2_000


class Stopped(Exception):
    """A signal asked the demo to end."""


class Failed(Exception):
    """A process ended by itself, or is not ready in time. The message has the end of its log."""


@dataclass(slots=True)
class Processes:
    """`folder` gets a log for each process, `environment` is theirs. `stop` is set when the demo shall end."""

    folder: Path
    environment: dict[str, str]
    stop: Event
    _started: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        more: Mapping[str, str] | None = None,
    ) -> None:
        """Start a process, with more settings than the others have."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=ROOT,
                env={**self.environment, **(more or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=stop_with_parent,  # noqa: PLW1509  It calls the kernel only.
            )
        self._started[name] = process

    def wait_until(self, is_ready: Callable[[], bool], name: str) -> None:
        """Wait until the process is ready. Raises Stopped, or Failed."""
        deadline = time.monotonic() + READY_SECONDS
        while not is_ready():
            self.check()
            if time.monotonic() > deadline:
                raise Failed(f"{name} is not ready after {READY_SECONDS} s:\n{self._tail(name)}")
            self.stop.wait(0.05)

    def check(self) -> None:
        """Raises Stopped if the demo shall end, and Failed if a process has ended by itself."""
        if self.stop.is_set():
            raise Stopped
        for name, process in self._started.items():
            if process.poll() is not None:
                raise Failed(f"{name} ended with exit code {process.returncode}:\n{self._tail(name)}")

    def end(self) -> None:
        """End all processes and wait for them. They drain at once; the first one, which the others use, ends when they
        have ended. What one leaves behind is killed.
        """
        started = list(self._started.values())
        for processes in (started[1:], started[:1]):
            for process in processes:
                _signal_group(process, signal.SIGTERM)
            deadline = time.monotonic() + STOP_SECONDS
            for process in processes:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0, deadline - time.monotonic()))
                _signal_group(process, signal.SIGKILL)
                process.wait()
        self._started.clear()

    def _tail(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-LOG_TAIL:]


def _signal_group(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """Also to the children of a process that has ended: a group exists for as long as it has a member."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
