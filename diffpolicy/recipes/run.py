"""A run's folder: what was asked for, where it comes from, and the refusal to mix two runs in one place."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, asdict, fields, is_dataclass
from functools import cache
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

from diffpolicy.errors import InputError, nearest
from diffpolicy.policy import PolicyConfig
from diffpolicy.policy.files import read_json, write_json
from diffpolicy.policy.folders import places
from diffpolicy.recipes.claim import content
from diffpolicy.updates import RegressionConfig

__all__ = [
    "CONDITIONS_BY_DEFAULT",
    "commit",
    "conditions_in",
    "differences",
    "fingerprint",
    "open_run",
    "program",
    "provenance",
    "settings",
    "use_threads",
    "versions",
    "warn_of_endless",
]

CONDITIONS_BY_DEFAULT = ("clean", "shove")  # as far as the environment knows them
_NOT_SETTINGS = {"out", "overwrite", "threads"}  # where and how fast, not what
_OURS = {  # what runs are made of
    "run", "checkpoint", "round", "train", "tensorboard", "evaluation", "video", "videos", "demos", "bc", "correct",
    "results", "report", "policy", "model", "best",
}  # fmt: skip
_CODE = ("diffpolicy", "envs", "assets", "benchmarks/*.py", "pyproject.toml")
_VERSIONED = ("torch", "numpy", "mujoco", "gymnasium")


def settings(recipe: Any) -> dict[str, Any]:
    """A recipe's resolved configuration as plain JSON values."""
    if not is_dataclass(recipe) or isinstance(recipe, type):
        raise TypeError(f"expected a recipe, got {type(recipe).__name__}")
    return {"recipe": type(recipe).__name__.lower(), **_plain(recipe)}


def _plain(settings: Any) -> dict[str, Any]:
    """A settings object as a file would give it back: lists for tuples."""
    return dict(json.loads(json.dumps(asdict(settings), default=str)))


def differences(found: Any, recipe: Any, inputs: Mapping[str, str] | None = None) -> str:
    """What a run on disk was asked for and this recipe is not, or the reverse, in words; "" where they agree.

    Inputs are told apart by what they hold, not by where they lie, so that a tree of runs can be moved.
    """
    wanted = {**settings(recipe), "inputs": dict(inputs or {})}
    if not isinstance(found, dict):
        return "its record is damaged"
    there = {"inputs": {}, **_usual(recipe), **found}  # an earlier version knew fewer settings: it acted by their usual
    with suppress(KeyError, InputError):
        there["policy"] = _plain(PolicyConfig.from_json(there["policy"]))
    with suppress(KeyError, TypeError, InputError):
        there["optimiser"] = _plain(RegressionConfig(**there["optimiser"]))
    if there.get("recipe") != wanted["recipe"]:
        return f"one of {there.get('recipe')}, not of {wanted['recipe']}"
    names = sorted({*there, *wanted} - _NOT_SETTINGS - {k for k, v in (inputs or {}).items() if v} - {"inputs"})
    said = [line for name in names for line in _apart(name, there.get(name), wanted.get(name))]
    said += [f"{k} has changed since" for k in wanted["inputs"] if there["inputs"].get(k) != wanted["inputs"][k]]
    return "; ".join(said)


def _apart(name: str, there: Any, wanted: Any) -> list[str]:
    """What differs between two settings of a name, down to the innermost ones."""
    if there == wanted:
        return []
    if isinstance(there, dict) and isinstance(wanted, dict):
        return [line for k in sorted({*there, *wanted}) for line in _apart(f"{name}.{k}", there.get(k), wanted.get(k))]
    return [f"{name}: {there!r} there, {wanted!r} now"]


def _usual(recipe: Any) -> dict[str, Any]:
    """The defaults of a recipe's plain settings."""
    plain = {f.name: f.default for f in fields(recipe) if f.default is not MISSING}
    return {name: value for name, value in plain.items() if isinstance(value, bool | int | float | str | None)}


def fingerprint(path: Path | str) -> str:
    """SHA-256 of a dataset's or a checkpoint's content; "" for what is not a folder of ours."""
    for place, part in product(places(Path(path)), ("data/main_data.hdf5", "model.safetensors")):
        with suppress(OSError), (place / part).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    return ""


def open_run(recipe: Any, out: Path, overwrite: bool = False, inputs: Mapping[str, Path | str] | None = None) -> bool:
    """Make the folder of a run, or find it again; returns whether it had been begun.

    A folder in which nothing but the record of a run stands (it failed before it made anything) counts as new.
    ``inputs`` are what the run starts from, by the name of the setting: a run whose inputs have changed is
    another run. Call this in a `claimed` folder, once everything else is known to be good: with ``overwrite``
    it deletes.

    Raises:
        InputError: the folder holds a run with other settings or inputs, or something that is no run; or
            overwriting it would delete an input or files that are not ours.
    """
    record, leaving = out / "run.json", out / ".run.json.old"
    prints = {name: fingerprint(path) for name, path in (inputs or {}).items()}
    if out.exists() and not out.is_dir():
        raise InputError(f"expected a folder for --out, got the file {out}; name another")
    if (record.is_file() and overwrite) or leaving.is_file():  # the latter: a kill while a run was overwritten
        _empty(out, inputs or {}, record, leaving)
    if record.is_file() and content(out) != [record]:
        shown = differences(read_json(record), recipe, prints)
        if shown:
            raise InputError(
                f"{out} holds another run ({shown}). Name another --out, or add --overwrite to replace that run"
            )
        return True
    if content(out) and not record.is_file():
        raise InputError(f"{out} is not empty and holds no run of ours; name another --out")
    out.mkdir(parents=True, exist_ok=True)
    kept = {k: v for k, v in settings(recipe).items() if k not in _NOT_SETTINGS}
    write_json({**kept, "inputs": prints}, record)
    return False


def _empty(out: Path, inputs: Mapping[str, Path | str], record: Path, leaving: Path) -> None:
    """Delete a run of ours, and nothing else; its record is put aside first, and goes last."""
    for name, path in inputs.items():
        if out.resolve() in (Path(path).resolve(), *Path(path).resolve().parents):
            raise InputError(f"--overwrite would delete {path}, which --{name} needs; name another --out")
    names = [path.name for path in content(out)]
    foreign = [name for name in names if name.split("-")[0].lstrip(".").split(".")[0] not in _OURS]
    if foreign:
        raise InputError(f"{out} holds files that are not ours ({', '.join(foreign[:5])}); name another --out")
    if record.is_file():
        record.replace(leaving)
    for path in content(out):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path != leaving:
            path.unlink()
    leaving.unlink()


def program() -> str:
    """What to type for our command here: its name where the shell finds it, else the path that was typed."""
    typed = sys.argv[0]
    if Path(typed).name != "diffpolicy":
        return "diffpolicy"
    found = shutil.which("diffpolicy")
    return "diffpolicy" if found and Path(found).resolve() == Path(typed).resolve() else typed


def versions() -> dict[str, str]:
    """Versions of what a number depends on."""
    return {"diffpolicy": version("diffpolicy"), **{name: version(name) for name in _VERSIONED}}


def commit() -> str:
    """The checkout's commit, with ``+dirty`` where code or models differ; "" for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""

    def git(*words: str) -> str:
        try:
            done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
        except OSError:  # no git on this machine
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "--short=12", "HEAD")
    return head + ("+dirty" if head and git("status", "--porcelain", "--", *_CODE) else "")


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
    from diffpolicy_envs import CONDITIONS, TASKS

    known = conditions_of(environment)
    if tuple(wanted) == ("all",):
        return known
    wanted = tuple(dict.fromkeys(wanted))
    if not wanted or "all" in wanted:
        raise InputError(
            f'expected conditions of {", ".join(known)}, or "all" alone; got {", ".join(wanted) or "none"}'
        )
    anywhere = {*known, *CONDITIONS, *(name for task in TASKS.values() for name in task.conditions())}
    unknown = [name for name in wanted if name not in anywhere]
    chosen = tuple(name for name in wanted if name in known)
    if unknown or not chosen:
        near = nearest((unknown or wanted)[0], known) or ": choose among these"
        raise InputError(
            f"{environment} knows the conditions {', '.join(known)}; got {', '.join(unknown or wanted)}{near}"
        )
    left_out = [name for name in wanted if name not in known]
    if left_out and wanted != CONDITIONS_BY_DEFAULT:
        _say_once(f"{environment} knows no {', '.join(left_out)}: left out")
    return chosen


def warn_of_endless(environment: str) -> None:
    """Say so where nothing bounds an episode."""
    from diffpolicy.rollout.environment import longest

    if longest(environment, otherwise=0) == 0:
        print(
            f"note: {environment} has no max_episode_steps, so an episode that does not end by itself is played for "
            "ever; register it with a limit, or interrupt"
        )


@cache
def _say_once(text: str) -> None:
    print(text)


def use_threads(threads: int) -> int:
    """Let torch use this many threads, 0 for one, which small networks gain little beyond; returns the number."""
    import torch

    most = 4 * (os.cpu_count() or 1)
    if not 0 <= threads <= most:
        raise InputError(f"expected threads from 0 to {most} on this machine, got {threads}")
    torch.set_num_threads(threads or 1)
    return torch.get_num_threads()
