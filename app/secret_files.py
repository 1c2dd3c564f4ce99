"""Files that hold secrets: for their owner alone, on the disk before they have their name, whole or not at all."""

import os
from pathlib import Path


def make_once(path: Path, text: str) -> None:
    """Make the file with this text, unless it is there. Of processes that start at once, one makes it."""
    scratch = scratch_beside(path, text)
    try:
        os.link(scratch, path)  # Fails if another process was faster; then what it wrote counts.
    except FileExistsError:
        pass
    finally:
        scratch.unlink()


def scratch_beside(path: Path, text: str) -> Path:
    """A file with this text, ready to take the path's place."""
    scratch = path.resolve().with_suffix(f".{os.getpid()}")
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return scratch
