"""A task's MJCF file, compiled."""

from __future__ import annotations

import mujoco
import numpy as np

from diffpolicy_envs.paths import assets_folder, model_path
from diffpolicy_envs.task import Task

__all__ = ["compiled"]


def compiled(task: type[Task]) -> mujoco.MjModel:
    """The model of a task, with its home keyframe.

    What the file includes is looked for in its own folder first, then among the models that came with the package.

    Raises:
        ValueError: no such file, or MuJoCo cannot read it, or it has no actuator, or no keyframe that is whole.
    """
    try:
        path = model_path(task.model)
    except FileNotFoundError as error:
        raise ValueError(f"task {task.__name__}: {error}; put the file there, or name another in `model`") from error
    packaged = (assets_folder() / "models").glob("*.xml")
    includes = {file.name: file.read_bytes() for file in packaged if not (path.parent / file.name).exists()}
    try:
        spec = mujoco.MjSpec.from_file(str(path), includes)
        model = mujoco.MjModel.from_xml_path(str(path), includes)
    except ValueError as error:
        said = " ".join(str(error).split())
        raise ValueError(f"task {task.__name__}: MuJoCo cannot read {path} ({said}); mend the file") from error
    if not model.nkey:
        raise ValueError(
            f"task {task.__name__} needs a keyframe in its MJCF file {task.model}: the first is the home state"
        )
    if not model.nu:
        raise ValueError(
            f"task {task.__name__} needs an actuator in its MJCF file {task.model}: without, nothing moves"
        )
    _require_home(task, spec, model)
    return model


def _require_home(task: type[Task], spec: mujoco.MjSpec, model: mujoco.MjModel) -> None:
    """Raises ValueError where the home keyframe is not finite, or lacks numbers for which MuJoCo would take its own."""
    says = f"task {task.__name__}: the first keyframe in {task.model}"
    for name, size in (("qpos", model.nq), ("qvel", model.nv), ("act", model.na), ("ctrl", model.nu)):
        written = len(getattr(spec.keys[0], name))
        if written not in (0, size):
            raise ValueError(f"{says} gives {written} of the {size} numbers of {name}; write all of them, or none")
    for name in ("qpos", "qvel", "act", "ctrl", "mpos", "mquat"):
        value = getattr(model, f"key_{name}")[0]
        if len(odd := np.flatnonzero(~np.isfinite(value))):
            raise ValueError(f"{says} has {value.flat[odd[0]]} at place {odd[0]} of {name}; write finite numbers")
