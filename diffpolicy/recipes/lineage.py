"""What a checkpoint was trained on, as its provenance notes it: folders by their way from the run's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffpolicy.errors import InputError

__all__ = ["Lineage", "lineage", "relocated", "spent_on", "teacher_of"]


@dataclass(frozen=True)
class Lineage:
    """The data of a policy: demonstrations, and the labelled rollouts of the corrections that it went through."""

    dataset: Path | str  # folder, or the id of a Minari dataset
    demonstrations: int | None = None  # how many of its episodes; None: all
    rollouts: tuple[Path, ...] = ()  # oldest first

    def inputs(self) -> dict[str, Path | str]:
        """The folders by what they are to a run that starts from them."""
        return {"data": self.dataset, **{f"rollouts {i}": path for i, path in enumerate(self.rollouts, start=1)}}

    def noted(self, out: Path) -> dict[str, Any]:
        """What the provenance of a checkpoint in the run `out` says about it."""
        found = Path(self.dataset).is_dir()
        return {
            "dataset": os.path.relpath(self.dataset, out) if found else str(self.dataset),
            "demonstrations": self.demonstrations,
            "rollouts": [os.path.relpath(path, out) for path in self.rollouts],
        }


def lineage(checkpoint: Path, provenance: Mapping[str, Any]) -> Lineage:
    """What a checkpoint folder was trained on.

    Raises InputError where it does not say, or its earlier rollouts are no longer there.
    """
    run, dataset = _run_of(checkpoint, provenance), provenance.get("dataset")
    count, rollouts = provenance.get("demonstrations"), provenance.get("rollouts", [])
    if not isinstance(dataset, str) or not isinstance(count, int | None) or not isinstance(rollouts, list):
        raise InputError(
            f"{checkpoint} does not say which demonstrations it was trained on; name them with --data (earlier "
            "rollouts are then left out)"
        )
    beside = Path(os.path.normpath(run / dataset))
    paths = tuple(Path(os.path.normpath(run / str(path))) for path in rollouts)
    missing = [str(path) for path in paths if not path.is_dir()]
    if missing:
        raise InputError(
            f"expected the labelled rollouts that {checkpoint} was trained on in {', '.join(missing[:3])}, got no such "
            "folder; put them back, or go on without them by naming the demonstrations with --data"
        )
    return Lineage(beside if beside.is_dir() else dataset, count, paths)


def relocated(checkpoint: Path, provenance: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """A checkpoint's provenance for a copy of it in another run, `out`."""
    run, moved = _run_of(checkpoint, provenance), dict(provenance)
    for name in ("dataset", "parent", "teacher"):
        if isinstance(moved.get(name), str) and (run / moved[name]).is_dir():
            moved[name] = os.path.relpath(run / moved[name], out)
    if isinstance(moved.get("rollouts"), list):
        moved["rollouts"] = [os.path.relpath(run / str(path), out) for path in moved["rollouts"]]
    return moved


def teacher_of(checkpoint: Path, provenance: Mapping[str, Any]) -> Path:
    """The checkpoint folder of a student's teacher; raises InputError where it does not say, or none is there."""
    said = provenance.get("teacher")
    if not isinstance(said, str):
        raise InputError(f"{checkpoint} does not say who its teacher is; name it with --teacher")
    path = Path(os.path.normpath(_run_of(checkpoint, provenance) / said))
    if not path.is_dir():
        raise InputError(f"expected the teacher of {checkpoint} in {path}, got no folder; name it with --teacher")
    return path


def spent_on(checkpoint: Path, provenance: Mapping[str, Any]) -> tuple[dict[str, int], float]:
    """What a checkpoint has cost, its predecessors included: expert queries and environment steps; seconds of training.

    Raises InputError where the provenance holds no numbers there.
    """
    try:
        counts = {name: int(provenance.get(name, 0)) for name in ("expert_queries", "env_steps")}
        return counts, sum(float(provenance.get(name, 0.0)) for name in ("train_s", "parent_train_s"))
    except (TypeError, ValueError) as error:
        raise InputError(f"expected the costs in the provenance of {checkpoint} to be numbers, got {error}") from error


def _run_of(checkpoint: Path, provenance: Mapping[str, Any]) -> Path:
    """The folder of the run that wrote a checkpoint: a round's lies one deeper."""
    inner = checkpoint.parent.name == f"round-{provenance.get('round')}"
    return checkpoint.parent.parent if inner else checkpoint.parent
