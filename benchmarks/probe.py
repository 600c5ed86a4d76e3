"""A little of all that suites do, as digests: two versions of the code that agree on them act alike, to the bit.

``python -m benchmarks.probe FOLDER`` writes FOLDER/digests.json and FOLDER/cells.json. `carry` runs it on two commits,
so that it may use nothing that the older of them lacks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from diffpolicy.data.dataset import read_dataset
from diffpolicy.policy import PolicyConfig
from diffpolicy.recipes.bc import Bc
from diffpolicy.recipes.collect import Collect
from diffpolicy.recipes.correct import Correct
from diffpolicy.recipes.evaluate import Evaluate
from diffpolicy_envs import TASKS

__all__ = ["ANY", "cells", "digests", "kinds", "main"]

ANY = "any"  # in the place of a task: digests that concern policies of every task
PROBED = "diffpolicy/PickPlace-v0"

EPISODES = 6  # of an evaluation; of a planned task two, which take as long
UPDATES = 25
ACTING = (
    ("acting.latency=2",),
    ("acting.ensemble=0.01", "n_action_steps=4"),
    ("acting.real_time=5", "acting.latency=1"),
    ("acting.warm_start=0.5", "n_action_steps=4"),
)  # ways in which chunks follow one another
TIMES = ("latency_us",)  # columns that no two runs agree on


def digests(task: str, folder: Path) -> Iterator[tuple[str, str]]:
    """What collecting, imitation, correction and evaluation of a task come to, by name."""
    planned = not TASKS[task].scripted()
    episodes = 2 if planned else EPISODES
    known = tuple(name for name in TASKS[task].conditions())
    shifts = tuple(name for name in ("clean", "hard") if name in known)
    for condition in ("clean", "shove"):
        if condition in known and not (planned and condition == "shove"):
            Collect(task, episodes=2, condition=condition, out=folder / condition)()
            yield f"{task} collect {condition}", _of_dataset(folder / condition)
    policy = PolicyConfig(n_action_steps=4 if planned else 8)
    bc = Bc(folder / "clean", folder / "bc", policy=policy, steps=UPDATES)()
    yield f"{task} bc", _of_weights(bc)
    correct = Correct(
        bc,
        out=folder / "correct",
        data=folder / "clean",
        rounds=1,
        rollouts=2,
        steps=UPDATES,
        conditions=shifts,
        label_every=32 if planned else 1,
    )
    corrected = correct()
    yield f"{task} correct", _of_weights(corrected)
    for name, who, conditions in (("expert", "expert", known), ("corrected", str(corrected), shifts)):
        for condition in conditions:
            out = folder / f"{name}-{condition}.json"
            Evaluate(who, episodes=episodes, conditions=(condition,), environment=task, out=out)()
            yield f"{task} {name} {condition}", _of_rows(out)


def kinds(folder: Path) -> Iterator[tuple[str, str]]:
    """What every kind of policy comes to, sampled in every way that suites know, and acting in some; on one task."""
    try:
        from benchmarks.sampled import SOLVERS
        from benchmarks.trained import KINDS
    except ImportError:  # there was one kind then, which each task's digests tell of
        return

    def acted(bc: Path, change: tuple[str, ...]) -> str:
        out = folder / "evaluation.json"
        Evaluate(str(bc), episodes=2, conditions=("clean",), environment=PROBED, change=change, out=out)()
        return _of_rows(out)

    Collect(PROBED, episodes=2, out=folder / "clean")()
    made = {}
    for kind, policy in KINDS.items():
        made[kind] = Bc(folder / "clean", folder / kind, policy=policy, steps=UPDATES)()
        yield f"{ANY} kind {kind}", _of_weights(made[kind])
    for name, student in _students(made["flow"], folder).items():
        yield f"{ANY} student {name}", _of_weights(student)
    ways = {f"acting {' '.join(change)}": ("flow", change) for change in ACTING}
    for name, (kind, change) in {**SOLVERS, **ways}.items():
        yield f"{ANY} {name}", acted(made[kind], change)


def _students(teacher: Path, folder: Path) -> dict[str, Path]:
    """Students by every route that suites take, after a few updates."""
    try:
        from diffpolicy.recipes.distil import Distil
        from diffpolicy.recipes.redif import Redif
        from diffpolicy.updates import RewardConfig
    except ImportError:  # there were none then
        return {}
    small: dict[str, Any] = {"teacher_steps": 6, "steps": 6}
    made = {
        method: Distil(teacher, folder / method, method=method, rounds=rounds, rollouts=2, **small)()  # type: ignore[arg-type]
        for method, rounds in (("paired", 1), ("progressive", 0), ("consistency", 0), ("score", 0))
    }
    agreement = {"observations": "data", "reward": RewardConfig(agreement=1.0), **small}
    routes: dict[str, dict[str, Any]] = {
        "played": {"rollouts": 2, "steps": 6},
        "agreement": {"windows": 8, **agreement},
        "path": {"windows": 8, "gradient": "path", **agreement},
    }
    made |= {f"redif {name}": Redif(teacher, folder / name, **route)() for name, route in routes.items()}
    return made


def cells() -> dict[str, dict[str, Any]]:
    """Of every committed cell: what it asks, the key that this code gives it, its stages, and who vouches for it.

    A stage has its settings beside its key, so that a suite that asks something else under an old name is seen to.

    An expert's digest is its own under that condition; a policy's are all of its task but the expert's, and of any,
    of the routes to students its own.
    """
    from benchmarks.suites import SUITES

    found = {}
    for suite in SUITES.values():
        for cell in suite.cells() if suite.committed else ():
            expert = cell.evaluate.recipe.checkpoint == "expert"
            named = f"{cell.task} expert {cell.condition}" if expert else f"{cell.task} "
            chain = list(cell.evaluate.chain())
            found[cell.path] = {
                "asked": cell.evaluate.asked,
                "key": cell.evaluate.key,
                "stages": [(stage.name, stage.key) for stage in chain],
                "settings": [stage.settings for stage in chain],
                "vouched": named,
                "routes": [_route(stage.name, stage.recipe) for stage in chain if stage.name in ("distil", "redif")],
            }
    return found


def _route(name: str, recipe: Any) -> str:
    """The digest of a route to a student."""
    if name == "distil":
        return f"{ANY} student {recipe.method}"
    played = "path" if recipe.gradient == "path" else "played" if recipe.observations == "own" else "agreement"
    return f"{ANY} student redif {played}"


def _of_dataset(folder: Path) -> str:
    parts: list[bytes] = []
    for episode in read_dataset(folder).episodes:
        arrays = [episode.obs[name] for name in sorted(episode.obs)] + [episode.actions, episode.rewards]
        parts += [np.ascontiguousarray(array).tobytes() for array in arrays]
    return _sha(b"".join(parts))


def _of_weights(checkpoint: Path) -> str:
    weights = load_file(checkpoint / "model.safetensors")
    return _sha(b"".join(name.encode() + weights[name].tobytes() for name in sorted(weights)))


def _of_rows(evaluation: Path) -> str:
    rows = json.loads(evaluation.read_text())["episodes"]
    plain = [{key: value for key, value in row.items() if key not in TIMES} for row in rows]
    return _sha(json.dumps(plain, sort_keys=True).encode())


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def main() -> None:
    """Run everything into the folder that the command line names."""
    folder = Path(sys.argv[1])
    found: dict[str, str] = {}
    for task in TASKS:
        if task.startswith("diffpolicy/"):
            print(task, file=sys.stderr)
            with contextlib.redirect_stdout(sys.stderr):
                found |= dict(digests(task, folder / task.rpartition("/")[2]))
    with contextlib.redirect_stdout(sys.stderr):
        found |= dict(kinds(folder / "kinds"))
    (folder / "digests.json").write_text(json.dumps(found, indent=1))
    (folder / "cells.json").write_text(json.dumps(cells()))


if __name__ == "__main__":
    main()
