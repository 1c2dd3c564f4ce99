"""What the kernel says of a process: proc(5)."""

from pathlib import Path


def lives(pid: int) -> bool:
    """Whether the process runs or is stopped; one that nobody has waited for does not."""
    return _state(Path(f"/proc/{pid}")) not in {None, "Z"}


def is_stopped(pid: int) -> bool:
    """Whether each of its threads is. A signal returns before they are: until then they may still answer."""
    return {_state(thread) for thread in Path(f"/proc/{pid}/task").iterdir()} == {"T"}


def _state(entry: Path) -> str | None:
    """Its one letter, after the name, which stands in parentheses. None for one that is gone."""
    try:
        return (entry / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None
