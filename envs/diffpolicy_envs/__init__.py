"""MuJoCo environments of diffpolicy: importing this package registers them with gymnasium.

Shapes: N simulations, n of them addressed by ``ids``, T control steps, S state, O observation, A action.
"""

from __future__ import annotations

import gymnasium

from diffpolicy_envs.condition import CONDITIONS, Condition, condition_named
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
]


def _register() -> None:
    for name, task in TASKS.items():
        if name not in gymnasium.registry:
            gymnasium.register(
                id=name,
                entry_point="diffpolicy_envs.single:TaskEnv",
                vector_entry_point="diffpolicy_envs.vector:TaskVectorEnv",
                kwargs={"task": task},
            )


_register()
