"""Writes a folder so that it appears complete or not at all: it is filled as `<name>.partial`, synced to disk and then
renamed.

A process locks the partial folder while it fills it, and the kernel releases the lock when the process ends. So an
unlocked partial folder is abandoned, and the next run that writes such a folder removes it.
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
from tenant_schemas.errors import BackupError, BundleBroken, BundleExists

_MOMENT: Final = "%Y%m%dT%H%M%SZ"
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*-\d{8}T\d{6}Z")
_ABANDONED: Final = re.compile(rf"([a-z][a-z0-9_]*)-\d{{8}}T\d{{6}}Z(-\w+)*{re.escape(PARTIAL)}")
_SYNCED_AT_ONCE: Final = 8


def folder_name(slug: str, taken_at: datetime, data_of: datetime | None = None) -> str:
    """The name of a bundle, in the order of the times at which they were taken. `data_of` is the time of past data, in
    a bundle that is none of the tenant's regular backups.
    """
    past = f"-data-{_compact(data_of)}" if data_of else ""
    return f"{slug}-{_compact(taken_at)}{past}"


def _compact(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime(_MOMENT)


def folders_by_slug(parent: Path) -> dict[str, list[str]]:
    """The folders in `parent` with a name from `folder_name`, newest first, by slug. Bundles of past data are left
    out: no retention counts or removes them.
    """
    found: dict[str, list[str]] = {}
    for name in sorted(os.listdir(parent) if parent.exists() else (), reverse=True):
        if _NAME.fullmatch(name):
            found.setdefault(name.partition("-")[0], []).append(name)
    return found


def newest_folder(parent: Path, slug: str) -> Path:
    """The newest bundle of the tenant's present data in a folder of bundles, by its name. Raises BundleBroken if there
    is none.
    """
    names = folders_by_slug(parent).get(slug)
    if not names:
        raise BundleBroken(f"{parent} has no bundle {slug}-TIME.")
    return parent / names[0]


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A private folder to fill. It is renamed to `target` when the block ends, and removed if the block raises.

    Raises BundleExists if the target exists or another process is writing it.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.path.lexists(target):
        raise BundleExists(f"{target} exists, and no backup is ever overwritten: run the backup again.")
    partial = target.with_name(target.name + PARTIAL)
    with _created_and_locked(partial):
        try:
            yield partial
            _sync_tree(partial)
            _rename(partial, target)
        except BaseException as error:
            shutil.rmtree(partial, ignore_errors=True)
            if partial.exists():
                error.add_note(f"Could not remove {partial}. It is no bundle; the next run tries to remove it again.")
            raise


def remove_abandoned_folders(parent: Path, slug: str | None = None) -> None:
    """Remove the partial folders that killed runs left, of one tenant or of all."""
    for name in os.listdir(parent) if parent.exists() else ():
        found = _ABANDONED.fullmatch(name)
        if found and slug in {None, found[1]}:
            with suppress(BundleExists, OSError), _locked(parent / name):
                shutil.rmtree(parent / name, ignore_errors=True)


def remove(bundle: Path) -> None:
    """Remove a bundle. It is renamed first, so that an interruption never leaves an incomplete bundle."""
    partial = bundle.with_name(bundle.name + PARTIAL)
    bundle.rename(partial)
    with _locked(partial):
        shutil.rmtree(partial)


@contextmanager
def _created_and_locked(partial: Path) -> Iterator[None]:
    try:
        partial.mkdir(mode=0o700)
    except FileExistsError:
        raise BundleExists(f"{partial} is being written by another backup: wait until it has ended.") from None
    with _locked(partial):
        yield


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """An exclusive lock on a folder. The kernel releases it when the process ends. Raises BundleExists if another
    process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), os.stat(folder, follow_symlinks=False)):
            raise BundleExists(f"{folder} was replaced by another process: run the backup again.")
        yield
    except BlockingIOError:
        raise BundleExists(f"{folder} is being written by another backup: wait until it has ended.") from None
    finally:
        os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    """Sync all files concurrently: the file system then writes its journal once for several of them."""
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
