"""Who may write to a folder: one process at a time, and known before the work begins, not after it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from diffpolicy.errors import InputError
from diffpolicy.policy.files import require_writable
from diffpolicy.policy.folders import held

__all__ = ["claimed", "content"]

_LOCK = ".lock"


@contextmanager
def claimed(out: Path, *, beside: bool = False) -> Iterator[None]:
    """Keep an output folder for this process until the block ends; the folder is made, and goes if it stays empty.

    beside: the work replaces the folder as a whole, so the lock lies beside it and the folder is not made. A
    recipe that runs others claims its own folder and they claim theirs, below it. A kill sets it free.

    Raises InputError where another process works there, the folder is a file, or nothing can be written there.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"expected a folder for --out, got the file {out}; name another")
    out = Path(os.path.abspath(out))  # noqa: PTH100  (resolve would follow a link, which is to stay)
    if beside and not out.name:
        raise InputError(f"expected a folder that can be made for --out, got {out}; name one below it")
    lock = out.with_name(f".{out.name}{_LOCK}") if beside else out / _LOCK
    made = not beside and not out.exists()
    require_writable(lock if beside else out / "run.json")
    try:
        with held(lock, str(out)):
            yield
    finally:
        if made:
            with suppress(OSError):  # it is not empty
                out.rmdir()


def content(out: Path) -> list[Path]:
    """What is in a folder, without locks and what a kill left half-written; [] where there is none."""
    left = (_LOCK, ".partial")
    paths = sorted(out.iterdir()) if out.is_dir() else []
    return [path for path in paths if not (path.name.startswith(".") and path.name.endswith(left))]
