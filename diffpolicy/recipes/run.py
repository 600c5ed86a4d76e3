"""A run's folder: what was asked for, where it comes from, and the refusal to mix two runs in one place."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diffpolicy.errors import InputError

__all__ = ["checkpoint_of", "commit", "open_run", "provenance", "settings", "use_threads", "versions", "write_json"]

_NOT_SETTINGS = {"out", "overwrite", "threads"}  # where and how fast, not what
_VERSIONED = ("torch", "numpy", "mujoco", "gymnasium")


def settings(recipe: Any) -> dict[str, Any]:
    """A recipe's resolved configuration as plain JSON values."""
    if not is_dataclass(recipe) or isinstance(recipe, type):
        raise TypeError(f"expected a recipe, got {type(recipe).__name__}")
    plain = json.loads(json.dumps(asdict(recipe), default=str))
    return {"recipe": type(recipe).__name__.lower(), **plain}


def open_run(recipe: Any, out: Path, overwrite: bool = False) -> bool:
    """Make the folder of a run, or find it again; returns whether it had been begun.

    Raises:
        InputError: the folder holds a run with other settings, or something that is no run.
    """
    wanted = {k: v for k, v in settings(recipe).items() if k not in _NOT_SETTINGS}
    record = out / "run.json"
    if out.exists() and not out.is_dir():
        raise InputError(f"expected a folder for --out, got the file {out}; name another")
    if record.is_file() and overwrite:
        shutil.rmtree(out)
    if record.is_file():
        found = json.loads(record.read_text(encoding="utf-8"))
        differing = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
        if differing:
            shown = "; ".join(f"{k}: {found.get(k)!r} there, {wanted.get(k)!r} now" for k in differing)
            raise InputError(
                f"{out} holds another run ({shown}). Name another --out, or add --overwrite to replace that run"
            )
        return True
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty and holds no run of ours; name another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_json(record, wanted)
    return False


def write_json(path: Path, content: Any) -> None:
    """Write JSON beside its place, then move it there."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def versions() -> dict[str, str]:
    """Versions of what a number depends on."""
    return {"diffpolicy": version("diffpolicy"), **{name: version(name) for name in _VERSIONED}}


def commit() -> str:
    """The checkout's commit, with ``+dirty`` where files differ; "" for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "--short=12", "HEAD")
    return head + ("+dirty" if head and git("status", "--porcelain", "--untracked-files=no") else "")


def provenance(recipe: Any, **more: Any) -> dict[str, Any]:
    """What a checkpoint or a table says about its origin."""
    return {
        "command": "diffpolicy " + " ".join(sys.argv[1:]) if Path(sys.argv[0]).name == "diffpolicy" else "",
        "commit": commit(),
        "versions": versions(),
        "python": platform.python_version(),
        "machine": f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores",
        "settings": settings(recipe),
        **more,
    }


def checkpoint_of(path: str | Path) -> Path:
    """The checkpoint folder that a path names: itself, or the ``checkpoint`` in a run's folder.

    Raises:
        InputError: neither is there; the message lists checkpoints below the path.
    """
    folder = Path(path)
    for candidate in (folder, folder / "checkpoint"):
        if (candidate / "config.json").is_file():
            return candidate
    below = sorted(str(p.parent) for p in folder.glob("**/config.json")) if folder.is_dir() else []
    hint = f"; found below it: {', '.join(below[:5])}" if below else ""
    raise InputError(
        f"expected a checkpoint folder or a run that holds one, got {str(path)!r}{hint}. "
        "`diffpolicy bc` and `diffpolicy correct` write one"
    )


def use_threads(threads: int) -> int:
    """Let torch use this many threads (0: one); returns the number.

    One thread is the default since the networks here are small: two gain little on idle cores, and on busy
    ones OpenMP's threads wait for each other.
    """
    import torch

    if threads < 0:
        raise InputError(f"threads must be 0 or more, got {threads}")
    torch.set_num_threads(threads or 1)
    return torch.get_num_threads()
