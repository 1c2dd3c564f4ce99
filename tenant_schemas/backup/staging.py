"""A folder that appears whole or not at all: made as `<name>.partial`, synced to disk, and then renamed.

A process holds a lock on the partial folder that it fills, and the kernel lets go of it when the process ends, however
it ends: what nobody holds is left over, and the next run that makes such a folder removes it.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tenant_schemas.backup.bundle import PARTIAL
from tenant_schemas.errors import BackupError, BundleExists

_MOMENT: Final = "%Y%m%dT%H%M%SZ"
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*-\d{8}T\d{6}Z")
_LEFT_OVER: Final = re.compile(rf"([a-z][a-z0-9_]*)-\d{{8}}T\d{{6}}Z(-\w+)?{re.escape(PARTIAL)}")
_SYNCED_AT_ONCE: Final = 8


def folder_name(slug: str, moment: datetime) -> str:
    return f"{slug}-{moment.astimezone(UTC).strftime(_MOMENT)}"


def folders_by_slug(parent: Path) -> dict[str, list[str]]:
    """The names in `parent` that `folder_name` gave, the newest first. The folder is read once for all tenants."""
    found: dict[str, list[str]] = {}
    for name in sorted(os.listdir(parent) if parent.exists() else (), reverse=True):
        if _NAME.fullmatch(name):
            found.setdefault(name.partition("-")[0], []).append(name)
    return found


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A private folder to fill. It becomes `target` when the block ends, and is removed if it fails.

    Raises BundleExists rather than touch what is there already.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.path.lexists(target):
        raise BundleExists(f"{target} is there already, and no backup is ever overwritten.")
    partial = target.with_name(target.name + PARTIAL)
    with _made_and_held(partial):
        try:
            yield partial
            _sync_tree(partial)
            _rename(partial, target)
        except BaseException as error:
            shutil.rmtree(partial, ignore_errors=True)
            if partial.exists():
                error.add_note(f"{partial} could not be removed; it is no bundle, and the next run tries again.")
            raise


def remove_abandoned_folders(parent: Path, slug: str | None = None) -> None:
    """Remove what killed runs left of one tenant's folders, or of all tenants'."""
    for name in os.listdir(parent) if parent.exists() else ():
        found = _LEFT_OVER.fullmatch(name)
        if found and slug in {None, found[1]}:
            with suppress(BundleExists, OSError), _held(parent / name):
                shutil.rmtree(parent / name, ignore_errors=True)


def remove(bundle: Path) -> None:
    """Remove a folder so that, whenever this is interrupted, it is whole or no bundle."""
    doomed = bundle.with_name(bundle.name + PARTIAL)
    bundle.rename(doomed)
    with _held(doomed):
        shutil.rmtree(doomed)


@contextmanager
def _made_and_held(partial: Path) -> Iterator[None]:
    try:
        partial.mkdir(mode=0o700)
    except FileExistsError:
        raise BundleExists(f"{partial} is being written by another backup.") from None
    with _held(partial):
        yield


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The kernel lets go of the lock when the process ends, however it ends."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), os.stat(folder, follow_symlinks=False)):
            raise BundleExists(f"{folder} is another one by now.")
        yield
    except BlockingIOError:
        raise BundleExists(f"{folder} is being written by another backup.") from None
    finally:
        os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    """Together, for the disk writes its journal once for all that wait for it."""
    with ThreadPoolExecutor(_SYNCED_AT_ONCE) as pool:
        list(pool.map(_sync, (folder, *folder.rglob("*"))))


def _rename(partial: Path, target: Path) -> None:
    try:
        partial.rename(target)
    except OSError as error:
        raise BackupError(f"{partial} can't be renamed to {target.name}: {error.strerror}.") from error
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
