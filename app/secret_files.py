"""Files with secrets: readable by their owner only, and written whole: synced to disk before they get their name."""

import os
from pathlib import Path


def make_once(path: Path, text: str) -> None:
    """Create the file with this text unless it exists. Of several processes at once, one creates it."""
    scratch = scratch_beside(path, text)
    try:
        os.link(scratch, path)  # Fails if another process was faster; then its file stays.
    except FileExistsError:
        pass
    finally:
        scratch.unlink()


def scratch_beside(path: Path, text: str) -> Path:
    """A temporary file with this text, ready to be renamed to the path."""
    scratch = path.resolve().with_suffix(f".{os.getpid()}")
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return scratch
