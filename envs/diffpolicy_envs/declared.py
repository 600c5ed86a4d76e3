"""What a task declares of itself, as gymnasium spaces, and the errors where it does not hold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from gymnasium import spaces

from diffpolicy_envs.task import Array, Task

__all__ = ["action_space", "observation_space", "require_declared", "require_observed"]

_DECLARED = ("model", "substeps", "max_steps", "observation", "action_size")


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
    """Raises ValueError where a task lacks what every task declares, or its bounds are no bounds."""
    lacking = [name for name in _DECLARED if not hasattr(task, name)]
    if lacking:
        raise ValueError(f"task {task.__name__} must declare {', '.join(lacking)}; see diffpolicy_envs.Task")
    for name, (low, high) in task.observation.items():
        least, most = np.asarray(low, np.float64), np.asarray(high, np.float64)
        if (
            least.ndim != 1
            or least.shape != most.shape
            or not np.all(least < most)
            or not np.isfinite(most - least).all()
        ):
            raise ValueError(
                f"task {task.__name__}: expected finite bounds low < high of equal length for the observation "
                f"{name!r}, got {least} and {most}"
            )


def require_observed(task: type[Task], seen: Mapping[str, Array]) -> None:
    """Raises ValueError where what ``observe`` gives for one simulation is not what the task declares."""
    found = {name: np.shape(value) for name, value in seen.items()}
    said = {name: (1, len(np.asarray(low))) for name, (low, _) in task.observation.items()}
    if found != said:
        raise ValueError(
            f"task {task.__name__}: observe gives {found} for one simulation, but `observation` declares {said}; "
            "make them agree"
        )
