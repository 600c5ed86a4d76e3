"""A task's MJCF file, compiled."""

from __future__ import annotations

import mujoco

from diffpolicy_envs.paths import assets_folder, model_path
from diffpolicy_envs.task import Task

__all__ = ["compiled"]


def compiled(task: type[Task]) -> mujoco.MjModel:
    """The model of a task, with its home keyframe.

    What the file includes is looked for in its own folder first, then among the models that came with the package.

    Raises:
        ValueError: no such file, or MuJoCo cannot read it, or it has no keyframe.
    """
    try:
        path = model_path(task.model)
    except FileNotFoundError as error:
        raise ValueError(f"task {task.__name__}: {error}; put the file there, or name another in `model`") from error
    packaged = (assets_folder() / "models").glob("*.xml")
    includes = {file.name: file.read_bytes() for file in packaged if not (path.parent / file.name).exists()}
    try:
        model = mujoco.MjModel.from_xml_path(str(path), includes)
    except ValueError as error:
        said = " ".join(str(error).split())
        raise ValueError(f"task {task.__name__}: MuJoCo cannot read {path} ({said}); mend the file") from error
    if not model.nkey:
        raise ValueError(
            f"task {task.__name__} needs a keyframe in its MJCF file {task.model}: the first is the home state"
        )
    return model
