"""A run's folder: what was asked for, where it comes from, and the refusal to mix two runs in one place."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diffpolicy.errors import InputError
from diffpolicy.policy.files import write_json

__all__ = [
    "commit",
    "conditions_in",
    "differences",
    "open_run",
    "provenance",
    "settings",
    "use_threads",
    "versions",
]

_NOT_SETTINGS = {"out", "overwrite", "threads"}  # where and how fast, not what
_VERSIONED = ("torch", "numpy", "mujoco", "gymnasium")


def settings(recipe: Any) -> dict[str, Any]:
    """A recipe's resolved configuration as plain JSON values."""
    if not is_dataclass(recipe) or isinstance(recipe, type):
        raise TypeError(f"expected a recipe, got {type(recipe).__name__}")
    plain = json.loads(json.dumps(asdict(recipe), default=str))
    return {"recipe": type(recipe).__name__.lower(), **plain}


def differences(found: Mapping[str, Any], recipe: Any) -> str:
    """What a run on disk was asked for and this recipe is not, or the reverse, in words; "" where they agree."""
    wanted = settings(recipe)
    names = sorted({*found, *wanted} - _NOT_SETTINGS)
    return "; ".join(
        f"{k}: {found.get(k)!r} there, {wanted.get(k)!r} now" for k in names if found.get(k) != wanted.get(k)
    )


def open_run(recipe: Any, out: Path, overwrite: bool = False) -> bool:
    """Make the folder of a run, or find it again; returns whether it had been begun.

    A folder in which nothing but the record of a run stands (it failed before it made anything) counts as new.

    Raises:
        InputError: the folder holds a run with other settings, or something that is no run.
    """
    record = out / "run.json"
    if out.exists() and not out.is_dir():
        raise InputError(f"expected a folder for --out, got the file {out}; name another")
    if record.is_file() and overwrite:
        shutil.rmtree(out)
    if record.is_file() and len(list(out.iterdir())) > 1:
        shown = differences(json.loads(record.read_text(encoding="utf-8")), recipe)
        if shown:
            raise InputError(
                f"{out} holds another run ({shown}). Name another --out, or add --overwrite to replace that run"
            )
        return True
    if out.exists() and not record.is_file() and any(out.iterdir()):
        raise InputError(f"{out} is not empty and holds no run of ours; name another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_json({k: v for k, v in settings(recipe).items() if k not in _NOT_SETTINGS}, record)
    return False


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


def conditions_in(environment: str, wanted: Sequence[str]) -> tuple[str, ...]:
    """Those of the wanted conditions that an environment knows; ("all",) takes every one.

    Raises:
        InputError: a name that no environment knows, or none that this one does.
    """
    from diffpolicy.rollout.environment import conditions_of
    from diffpolicy_envs import CONDITIONS

    known = conditions_of(environment)
    if tuple(wanted) == ("all",):
        return known
    unknown = [name for name in wanted if name not in CONDITIONS]
    chosen = tuple(name for name in wanted if name in known)
    if unknown or not chosen:
        raise InputError(
            f"{environment} knows the conditions {', '.join(known)}; got {', '.join(unknown or wanted)}: choose among "
            "these"
        )
    left_out = [name for name in wanted if name not in known]
    if left_out:
        print(f"{environment} knows no {', '.join(left_out)}: left out")
    return chosen


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
