"""Carry committed cells over to the present code where it does, to the bit, what the code that made them did.

``python -m benchmarks.carry COMMIT`` probes COMMIT and the present commit on this machine, in small: demonstrations,
imitation, correction and evaluation of every task, and on one of them every kind of policy, sampled in every way. Where
all digests that vouch for a cell agree, and COMMIT would have called it fresh, it gets the key that the present code
gives it, and notes from where it was carried. Other cells stay as they are.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cells import FOLDER
from benchmarks.tables import ROOT
from diffpolicy.errors import InputError
from diffpolicy.policy.files import read_json, write_json

__all__ = ["carried", "differing", "main", "moved"]

STUDENT = "any student "  # how digests of a route to a student begin
Cells = Mapping[
    str, Mapping[str, Any]
]  # asked, key, stages, routes and vouched by a cell's path, as `probe.cells` gives them


def carried(
    old: Cells, new: Cells, changed: Sequence[str], origin: Mapping[str, Any], folder: Path = FOLDER
) -> list[str]:
    """Give cells that are fresh by the old keys the new ones, where no changed digest concerns them.

    Returns their paths.
    """
    done = []
    for name in sorted(old.keys() & new.keys()):
        path, before, after = folder / f"{name}.json", old[name], new[name]
        if not path.is_file() or before["key"] == after["key"] or _concerned(after, changed):
            continue
        if not _same_question(before, after):
            continue
        about = read_json(path)
        if (about["asked"], about["key"]) == (before["asked"], before["key"]):
            about |= {"asked": after["asked"], "key": after["key"]}
            about["carried"] = [*about.get("carried", []), dict(origin)]
            write_json(about, path)
            done.append(name)
    return done


def moved(old: Cells, new: Cells, changed: Sequence[str], store: Path) -> int:
    """Put the stages of a store where the new code looks for them, those that no changed digest concerns.

    Returns how many.
    """
    count = 0
    for name in sorted(old.keys() & new.keys()):
        before, after = old[name]["stages"], new[name]["stages"]
        if not _same_question(old[name], new[name]) or _concerned(new[name], changed):
            continue
        for (kind, was), (_, now) in zip(before, after, strict=True):
            there, here = (store / f"{kind}-{key[:16]}" for key in (was, now))
            if (there / "done.json").is_file() and not here.exists():
                there.rename(here)
                count += 1
    return count


def _same_question(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether a cell's stages are as many, and have the same settings, but for fields that one of the codes lacks."""
    ours, theirs = before.get("settings", []), after.get("settings", [])
    alike = len(before.get("stages", [])) == len(after.get("stages", [])) and len(ours) == len(theirs)
    return alike and all(_agree(a, b) for a, b in zip(ours, theirs, strict=True))


def _agree(one: Any, other: Any) -> bool:
    """Whether two settings say the same, as far as both speak of it."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return all(_agree(one[name], other[name]) for name in one.keys() & other.keys())
    return bool(one == other)


def _concerned(cell: Mapping[str, Any], changed: Sequence[str]) -> bool:
    """Whether a cell is touched: one that a single digest vouches for, or all of a task but its expert's.

    Routes to students concern only cells that went them.
    """
    vouched, routes = cell["vouched"], cell.get("routes")
    if not vouched.endswith(" "):
        return vouched in changed
    ours = [name for name in changed if name.startswith((vouched, "any "))]
    if routes is not None:
        ours = [name for name in ours if not name.startswith(STUDENT) or name in routes]
    return any(not name.startswith(f"{vouched}expert ") for name in ours)


def differing(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Names of what was probed on both sides and differs, or was probed on one side alone.

    A kind of policy that is new concerns no cell of old code.
    """
    names = {*old, *(name for name in new if not name.startswith("any "))}
    return [name for name in sorted(names) if old.get(name) != new.get(name)]


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"expected git {' '.join(words)} to work, got {done.stderr.strip()[:300]}")
    return done.stdout.strip()


def _probed(tree: Path, out: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Digests and keys of the code in a tree."""
    out.mkdir(parents=True)
    paths = os.pathsep.join(map(str, (tree, tree / "envs")))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    script = (ROOT / "benchmarks" / "probe.py").read_text(encoding="utf-8")  # the same for both
    done = subprocess.run([sys.executable, "-c", script, str(out)], cwd=tree, env=environment, check=False)
    if done.returncode:
        raise InputError(f"the probe of {tree} failed; its own words stand above")
    return read_json(out / "digests.json"), read_json(out / "cells.json")


def main() -> int:
    """Carry; returns the exit status: 0 all carried, 1 something differs, 2 bad input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.carry", description=__doc__)
    parser.add_argument("commits", nargs="+", help="the commits whose code made the cells")
    parser.add_argument("--store", type=Path, default=Path("runs/benchmarks"), help="where stages live")
    asked = parser.parse_args()
    try:
        commits = [_git("rev-parse", "--verify", f"{name}^{{commit}}") for name in asked.commits]
        if _git("status", "--porcelain", "--", "diffpolicy", "envs", "assets", "benchmarks/*.py"):
            raise InputError("expected committed code, got changes beside it; commit them first")
        here = _git("rev-parse", "HEAD")
        with tempfile.TemporaryDirectory() as name:
            new = _probed(ROOT, Path(name) / "new")
            differ = [_from(commit, here, new, Path(name) / commit, asked.store) for commit in commits]
        print("next: python -m benchmarks table all")
        return 1 if any(differ) else 0
    except InputError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2


def _from(commit: str, here: str, new: tuple[dict[str, str], Cells], folder: Path, store: Path) -> bool:
    """Carry what one commit made to the present one, `here`; returns whether something differs."""
    tree = folder / "tree"
    _git("worktree", "add", "--detach", str(tree), commit)
    try:
        old = _probed(tree, folder / "out")
    finally:
        _git("worktree", "remove", "--force", str(tree))
    names = differing(old[0], new[0])
    origin = {"from": commit[:12], "to": here[:12], "machine": platform.machine(), "probed": len(new[0])}
    done, stages = carried(old[1], new[1], names, origin), moved(old[1], new[1], names, store)
    print(
        f"{commit[:12]}: {len(new[0]) - len(names)} of {len(new[0])} digests agree; {', '.join(names) or 'none'} differ"
    )
    print(f"{len(done)} cells and {stages} stages carried")
    return bool(names)


if __name__ == "__main__":
    sys.exit(main())
