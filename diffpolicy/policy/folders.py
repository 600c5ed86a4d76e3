"""Folders that are replaced whole: one writer at a time, swapped by renaming, and found again after a kill.

While a folder is replaced, the new one is filled beside it under a name of its own; then the old one is moved
aside, the new one into its place, and the old one deleted. A kill at any moment leaves a whole copy under one of
the three names: `standing` finds it, and the next writer puts it in its place.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from diffpolicy.errors import InputError
from diffpolicy.policy.files import sync_folder

__all__ = ["held", "mend", "places", "replacing", "standing"]

Whole = Callable[[Path], bool]
"""Whether a folder is complete and sound."""

_WAIT = 60.0  # for another process that is replacing the same folder [s]


@contextmanager
def held(lock: Path, what: str, wait: float = 0.0) -> Iterator[None]:
    """Hold a lock file, in a folder that exists, until the block ends or the process dies.

    Raises InputError where another process, or another thread, holds it for longer than `wait` [s].
    """
    from filelock import FileLock, Timeout

    before, guard = _holder(lock), FileLock(lock)
    try:
        guard.acquire(timeout=wait)
    except Timeout:
        holder = _holder(lock) or before or "of another machine"
        raise InputError(
            f"{what} is in use by process {holder}; wait until it has ended, or name another folder (--out)"
        ) from None
    try:
        with suppress(OSError):  # a full disk: then nobody learns who holds it, no more
            lock.write_text(f"{os.getpid()}\n", encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            lock.unlink()  # before the release: who waits for it sees that it has gone, and makes a new one
        guard.release()


@contextmanager
def replacing(folder: Path, whole: Whole) -> Iterator[Path]:
    """Gives an empty folder to fill, which takes the place of `folder` where the block ends without an error.

    Raises InputError where another process goes on replacing it.
    """
    folder = folder.resolve()  # a link stays one
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh, old = _beside(folder)
    with held(_lock(folder), str(folder), _WAIT):
        _clear(folder, whole)
        try:
            fresh.mkdir()
            yield fresh
            sync_folder(fresh)
            _swap(fresh, folder, old)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
            if folder.exists():
                shutil.rmtree(old, ignore_errors=True)


def standing(folder: Path, whole: Whole) -> Path | None:
    """Where a folder's content is: in its place, or beside it where a kill or a writer at work left a whole copy."""
    if folder.is_dir():
        return folder
    folder = folder.resolve()
    return next((aside for aside in _beside(folder) if aside.is_dir() and whole(aside)), None)


def mend(folder: Path, whole: Whole) -> None:
    """Put what a kill left of a folder in its place, and delete what it left half-written.

    Raises InputError where another process goes on replacing it.
    """
    folder = folder.resolve()
    if any(aside.exists() for aside in _beside(folder)):
        with held(_lock(folder), str(folder), _WAIT):
            _clear(folder, whole)


def places(folder: Path) -> tuple[Path, ...]:
    """Where the content of a folder may be, its own place first, without a look at it."""
    return folder, *_beside(folder.resolve())


def _beside(folder: Path) -> tuple[Path, Path]:
    """The names of the new folder while it is filled, and of the old one while it is deleted: newest first."""
    return folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")


def _lock(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _holder(lock: Path) -> str:
    try:
        return lock.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def _clear(folder: Path, whole: Whole) -> None:
    fresh, old = _beside(folder)
    found = standing(folder, whole)
    if found is not None and found != folder:
        found.replace(folder)
    shutil.rmtree(fresh, ignore_errors=True)
    if folder.exists():  # else it is all that there is
        shutil.rmtree(old, ignore_errors=True)


def _swap(fresh: Path, folder: Path, old: Path) -> None:
    """Move a folder into the place of another, which is put back if that fails."""
    if not folder.exists():
        fresh.replace(folder)
        return
    folder.replace(old)
    try:
        fresh.replace(folder)
    except BaseException:
        old.replace(folder)
        raise
