"""MuJoCo environments of diffpolicy: importing this package registers them with gymnasium.

Shapes: N simulations, n of them addressed by ``ids``, T control steps, S state, O observation, A action.
"""

from __future__ import annotations

import gymnasium

from diffpolicy_envs.condition import CONDITIONS, Condition, condition_named
from diffpolicy_envs.declared import require_declared
from diffpolicy_envs.paths import assets_folder, model_path
from diffpolicy_envs.simulation import Simulations
from diffpolicy_envs.single import TaskEnv
from diffpolicy_envs.task import Task
from diffpolicy_envs.tasks import TASKS
from diffpolicy_envs.vector import TaskVectorEnv

__all__ = [
    "CONDITIONS",
    "TASKS",
    "Condition",
    "Simulations",
    "Task",
    "TaskEnv",
    "TaskVectorEnv",
    "assets_folder",
    "condition_named",
    "model_path",
    "register",
]


def register(name: str, task: type[Task]) -> None:
    """Make a task known to gymnasium by a name such as ``"mylab/Sweep-v0"``, and so to all of diffpolicy.

    The same task may be registered again. Call it where your module is imported, and name the environment
    ``"mymodule:mylab/Sweep-v0"`` on command lines, so that it is.

    Raises:
        ValueError: no subclass of Task, or one that does not declare or define what a task must; or the name is taken.
    """
    if not isinstance(name, str):
        raise ValueError(f"expected a name such as 'mylab/Sweep-v0', got {name!r}")
    if not (isinstance(task, type) and issubclass(task, Task)):
        raise ValueError(f"expected a subclass of diffpolicy_envs.Task for {name!r}, got {task!r}")
    require_declared(task)
    taken = gymnasium.registry.get(name)
    if taken is not None:
        known = taken.kwargs.get("task")
        if known is None or (known.__module__, known.__qualname__) != (task.__module__, task.__qualname__):
            raise ValueError(f"the name {name!r} is taken by {known or taken.entry_point}; choose another")
        del gymnasium.registry[name]
    gymnasium.register(
        id=name,
        entry_point="diffpolicy_envs.single:TaskEnv",
        vector_entry_point="diffpolicy_envs.vector:TaskVectorEnv",
        kwargs={"task": task},
    )


for _name, _task in TASKS.items():
    register(_name, _task)
