"""Folders of throw-away servers: in memory if there is room, and removed even if their run was killed.

A process claims the folders that it uses. The next run of the tests removes folders without a claim, and ends the
servers that run in them.
"""

import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

MEMORY: Final = Path("/dev/shm")  # noqa: S108  Linux's file system in memory, which every user may write to.
WANTED_BYTES: Final = 3 * 1024**3
_PREFIX: Final = "tenant-schemas-test-"
_CLAIM: Final = "claim.lock"


def keep_temporary_files_in_memory() -> None:
    """Put temporary files of this process and its children in memory, if there is room. TMPDIR has precedence."""
    if "TMPDIR" not in os.environ and _has_room(MEMORY):
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None  # tempfile reads TMPDIR at the next use.


def _has_room(folder: Path) -> bool:
    """Some systems allow no programs in memory, and its file system may promise more than the machine has."""
    if not os.access(folder, os.W_OK) or not os.path.ismount(folder):
        return False
    disk = os.statvfs(folder)
    free_bytes = min(disk.f_bavail * disk.f_frsize, _available_bytes())
    return not disk.f_flag & os.ST_NOEXEC and free_bytes >= WANTED_BYTES


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, value, *_ = line.split()
        if name == "MemAvailable:":
            return int(value) * 1024
    return 0


def new_folder() -> Path:
    """A new folder, claimed by this process and removed afterwards."""
    return Path(tempfile.mkdtemp(prefix=_PREFIX))


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Claim the folder. Several processes may claim the same one."""
    with (folder / _CLAIM).open("a") as claim:
        fcntl.flock(claim, fcntl.LOCK_SH)
        yield


def remove_abandoned_folders() -> None:
    """Remove every folder of `new_folder` whose claiming processes have ended."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_CLAIM}"):
        with suppress(OSError), path.open() as claim:  # Claimed, or another user's folder.
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _kill_server(path.parent / "data")
            shutil.rmtree(path.parent, ignore_errors=True)


def _kill_server(cluster: Path) -> None:
    with suppress(OSError):  # No server runs in it.
        pid = int((cluster / "postmaster.pid").read_text().splitlines()[0])
        if str(cluster) in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, signal.SIGQUIT)
