"""Folders lie in memory if there is room, and the next run removes the folders of a killed run."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest

from tenant_schemas.testing import folders
from tests.factories.processes import lives

LONGEST_SECONDS = 20
HOLD = """
import os, sys
from contextlib import ExitStack
from tenant_schemas.testing.folders import claimed, new_folder
from tenant_schemas.testing.servers import running_embedded
stack = ExitStack()
folder = new_folder()
stack.enter_context(claimed(folder))
stack.enter_context(running_embedded(folder))
print(folder, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place for temporary files, of this test alone."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(folders.tempfile, "tempdir", None)
    return tmp_path


def test_what_a_killed_process_left_is_removed_with_its_server(place: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        folder = Path(holder.stdout.readline().strip())
        assert folder.parent == place
        pid = int((folder / "data" / "postmaster.pid").read_text().split()[0])
        folders.remove_abandoned_folders()
        assert (folder / "data" / "postmaster.pid").exists(), "it is in use"
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        os.kill(pid, 0)
    folders.remove_abandoned_folders()
    assert not folder.exists()
    assert wait_until_gone(pid)


def wait_until_gone(pid: int) -> bool:
    deadline = monotonic() + LONGEST_SECONDS
    while monotonic() < deadline:
        if not lives(pid):
            return True
        sleep(0.01)
    return False


def test_other_folders_are_left_alone(place: Path) -> None:
    (place / "of-another-program").mkdir()
    mine, unclaimed = folders.new_folder(), folders.new_folder()
    with folders.claimed(mine), folders.claimed(mine):
        folders.remove_abandoned_folders()
        assert {*place.iterdir()} == {mine, unclaimed, place / "of-another-program"}
    folders.remove_abandoned_folders()
    assert {*place.iterdir()} == {unclaimed, place / "of-another-program"}


def kept_in(environment: dict[str, str]) -> str:
    program = (
        "import tempfile; from tenant_schemas.testing import folders;"
        " folders.keep_temporary_files_in_memory(); print(tempfile.gettempdir())"
    )
    kept = {name: value for name, value in os.environ.items() if name != "TMPDIR"} | environment
    done = subprocess.run([sys.executable, "-c", program], env=kept, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_temporary_files_lie_in_memory_where_there_is_room_and_tmpdir_has_precedence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert folders._has_room(folders.MEMORY) == (kept_in({}) == str(folders.MEMORY))
    assert kept_in({"TMPDIR": str(tmp_path)}) == str(tmp_path)
    assert not folders._has_room(tmp_path), "it is no file system of its own"
    monkeypatch.setattr(folders, "WANTED_BYTES", 10**18)
    assert not folders._has_room(folders.MEMORY)
