"""What a task declares of itself, as gymnasium spaces, and the errors where it does not hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mujoco
import mujoco.batch
import numpy as np
from gymnasium import spaces

from diffpolicy_envs.checks import checked_whole, is_real
from diffpolicy_envs.condition import CONDITIONS, Condition
from diffpolicy_envs.planning import PlannerConfig
from diffpolicy_envs.task import Task

__all__ = ["action_space", "observation_space", "require_declared"]

_DECLARED = ("model", "substeps", "max_steps", "observation", "action_size")
_WIDEST = 10_000  # numbers in an action
_NAMES = ("fields", "records", "noiseless", "unfit")


def observation_space(task: type[Task]) -> spaces.Dict:
    """Named 1-D float32 boxes with finite bounds."""
    return spaces.Dict(
        {
            name: spaces.Box(np.asarray(low, np.float32), np.asarray(high, np.float32), dtype=np.float32)
            for name, (low, high) in task.observation.items()
        }
    )


def action_space(task: type[Task]) -> spaces.Box:
    """Normalised commands in [-1, 1]."""
    return spaces.Box(-1.0, 1.0, (task.action_size,), dtype=np.float32)


def require_declared(task: type[Task]) -> None:
    """Raises ValueError where a task is none, lacks what every one declares, or what it declares makes no sense."""
    if not (isinstance(task, type) and issubclass(task, Task)):
        raise ValueError(f"expected a subclass of diffpolicy_envs.Task, got {task!r}")
    says = f"task {task.__name__}"
    lacking = [name for name in _DECLARED if not hasattr(task, name)]
    if lacking:
        raise ValueError(f"{says} must declare {', '.join(lacking)}; see diffpolicy_envs.Task")
    unwritten = sorted(getattr(task, "__abstractmethods__", ()))
    if unwritten:
        raise ValueError(f"{says} must define {', '.join(unwritten)}; see diffpolicy_envs.Task")
    if not isinstance(task.model, str | Path):
        raise ValueError(f"{says}: expected `model` as the pathlib.Path of an MJCF file, got {task.model!r}")
    for name, most in (("substeps", None), ("max_steps", None), ("action_size", _WIDEST)):
        checked_whole(f"{says}: `{name}`", getattr(task, name), 1, most)
    if not is_real(task.bonus) or not np.isfinite(task.bonus):
        raise ValueError(f"{says}: expected a finite `bonus`, got {task.bonus!r}")
    _require_observation(task)
    _require_names(task)
    planning = getattr(task, "planning", None)
    if planning is not None and not isinstance(planning, PlannerConfig):
        raise ValueError(f"{says}: expected `planning` as a PlannerConfig of diffpolicy_envs.planner, got {planning!r}")
    if task.hard is not None and not isinstance(task.hard, Condition):
        raise ValueError(f"{says}: expected `hard` to be a diffpolicy_envs.Condition or None, got {task.hard!r}")
    if task.hard is not None:
        task.condition(task.hard)


def _require_observation(task: type[Task]) -> None:
    says, declared = f"task {task.__name__}", task.observation
    if not isinstance(declared, Mapping) or not declared or not all(isinstance(name, str) for name in declared):
        raise ValueError(f"{says}: expected `observation` as a mapping of names to (low, high), got {declared!r}")
    for name, bounds in declared.items():
        try:
            with np.errstate(over="ignore"):
                least, most = (np.asarray(limits, np.float64).astype(np.float32) for limits in bounds)
        except (TypeError, ValueError):
            raise ValueError(
                f"{says}: expected (low, high), two lists of numbers, for the observation {name!r}, got {bounds!r}"
            ) from None
        if (
            least.ndim != 1
            or not least.size
            or least.shape != most.shape
            or not np.isfinite([least, most]).all()
            or not np.all(least < most)
        ):
            raise ValueError(
                f"{says}: expected finite bounds low < high of equal length for the observation "
                f"{name!r}, in float32, got {least} and {most}"
            )


def _require_names(task: type[Task]) -> None:
    says = f"task {task.__name__}"
    for name in _NAMES:
        value: Any = getattr(task, name)
        if (
            not isinstance(value, tuple)
            or not all(isinstance(each, str) for each in value)
            or len(set(value)) < len(value)
        ):
            raise ValueError(f"{says}: expected `{name}` as a tuple of distinct names, got {value!r}")
    known: dict[str, Any] = {
        "fields": mujoco.batch.MODEL_FIELDS,
        "unfit": [name for name in CONDITIONS if name != "clean"],
    }
    for name, names in known.items():
        odd = [each for each in getattr(task, name) if each not in names]
        if odd:
            which = "mujoco.batch.MODEL_FIELDS" if name == "fields" else ", ".join(names)
            raise ValueError(f"{says}: `{name}` names {', '.join(odd)}; expected names of {which}")
    if task.records and task.record is Task.record:
        raise ValueError(f"{says} has records {', '.join(task.records)}: define record(ids, so_far) -> (n, R)")
    kinds = [kind[len("mjOBJ_") :].lower() for kind in mujoco.mjtObj.__members__ if kind.startswith("mjOBJ_")]
    needs: Any = task.needs
    if not isinstance(needs, Mapping) or not all(
        kind in kinds and isinstance(names, tuple | list) and all(isinstance(name, str) for name in names)
        for kind, names in needs.items()
    ):
        raise ValueError(
            f"{says}: expected `needs` to map kinds of MuJoCo's objects such as 'body', 'joint' or 'sensor' to tuples "
            f"of names, got {needs!r}"
        )
    sizes: Any = task.sensor_sizes
    if not isinstance(sizes, Mapping) or not set(sizes) <= set(needs.get("sensor", ())):
        raise ValueError(f"{says}: expected `sensor_sizes` to map sensors that `needs` names to sizes, got {sizes!r}")
