"""A dataset's folder as files: complete or not there, even where the disk is full or a process is killed.

A new dataset is written beside its place as `.NAME.xxxxxxxx.new`, brought to the disk, and moved into place once
the old one has been moved to `.NAME.xxxxxxxx.old`. A process that is killed between these two moves leaves the pair
beside an empty place; `restore` moves the new one in if its checksum proves it whole, else the old one. Any other
leftover is of a write that was never reported as done, or of a dataset that was replaced; the next writer clears it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["METADATA", "TABLE", "restore", "sha256", "write_files"]

METADATA, TABLE = Path("data") / "metadata.json", Path("data") / "main_data.hdf5"


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_files(folder: Path, metadata: Mapping[str, Any], table: bytes) -> None:
    """Write a dataset's two files, with the table's checksum in the metadata; replaces the dataset in `folder`.

    Raises OSError, which says what to do, where that fails; what was there before is then there still.
    """
    ours = {**metadata["diffpolicy"], "sha256": hashlib.sha256(table).hexdigest()}
    text = json.dumps({**metadata, "diffpolicy": ours})
    fresh = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.new")
    try:
        for left in _leftovers(folder, "new"):
            shutil.rmtree(left, ignore_errors=True)
        (fresh / "data").mkdir(parents=True)
        _write(fresh / TABLE, table)
        _write(fresh / METADATA, text.encode())
        _sync(fresh / "data")
        _sync(fresh)
        _move_into_place(fresh, folder)
    except OSError as error:
        raise OSError(
            error.errno,
            f"expected to write the dataset {folder} of {len(table) / 1e6:.1f} MB, got {error.strerror or error}; free "
            "some space or name another folder, and try again. Nothing was replaced",
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    for left in _leftovers(folder, "old"):
        shutil.rmtree(left, ignore_errors=True)


def restore(folder: Path) -> bool:
    """Bring back the dataset that a process, killed between two moves, left beside its empty place.

    Returns whether it did; where `folder` exists there is nothing to do.
    """
    folder = folder.resolve()
    for fresh in [] if folder.exists() else _leftovers(folder, "new"):
        old = fresh.with_suffix(".old")
        if not old.is_dir():
            continue
        try:
            (fresh if _is_whole(fresh) else old).replace(folder)
        except OSError:  # another process was quicker, or nothing may be written here
            return folder.exists()
        _sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
        return True
    return False


def _move_into_place(fresh: Path, folder: Path) -> None:
    old = fresh.with_suffix(".old")
    try:
        if folder.exists():
            folder.replace(old)
        fresh.replace(folder)
    except BaseException:
        if fresh.exists() or not _is_whole(folder):  # else a reader that came in between has moved it
            if old.exists() and not folder.exists():
                old.replace(folder)
            raise
    _sync(folder.parent)


def _leftovers(folder: Path, kind: str) -> list[Path]:
    """What a killed process left beside `folder`, the latest first."""
    name = re.compile(rf"\.{re.escape(folder.name)}\.[0-9a-f]{{8}}\.{kind}")
    try:
        found = [path for path in folder.parent.iterdir() if name.fullmatch(path.name) and path.is_dir()]
        found = [path for path in found if {entry.name for entry in path.iterdir()} <= {"data"}]
        return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:  # there is no such place, or it was tidied up meanwhile
        return []


def _is_whole(folder: Path) -> bool:
    """Whether the folder's table has the checksum that its metadata give."""
    try:
        metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        return bool(metadata["diffpolicy"]["sha256"] == sha256(folder / TABLE))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Bring a folder's list of names to the disk, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # folders cannot be opened here
        return
    try:
        os.fsync(handle)
    except OSError:  # nor brought to the disk
        pass
    finally:
        os.close(handle)
