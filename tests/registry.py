"""The registered tasks as parameters of the contract tests: every task, and the conditions that it knows."""

from __future__ import annotations

import pytest

from diffpolicy_envs import TASKS
from diffpolicy_envs.planner import PlannerConfig

# laws hold for a hasty planner too; that a thorough one solves the task is tested with the task
THOROUGH = {task: task.planning for task in TASKS.values() if not task.scripted()}  # type: ignore[attr-defined]
for _task in THOROUGH:
    _task.planning = PlannerConfig(samples=4, horizon=2, knots=2)  # type: ignore[attr-defined]

__all__ = ["THOROUGH", "every_case", "every_name", "every_scripted", "every_task", "knowing"]

every_task = pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.__name__)
every_scripted = pytest.mark.parametrize(
    "task", [task for task in TASKS.values() if task.scripted()], ids=lambda task: task.__name__
)
every_name = pytest.mark.parametrize("name", TASKS)
every_case = pytest.mark.parametrize(
    ("task", "condition"),
    [
        pytest.param(task, condition, id=f"{task.__name__}-{condition}")
        for task in TASKS.values()
        for condition in task.conditions()
    ],
)


def knowing(condition: str) -> pytest.MarkDecorator:
    """The tasks that know a condition."""
    tasks = [task for task in TASKS.values() if condition in task.conditions()]
    return pytest.mark.parametrize("task", tasks, ids=lambda task: task.__name__)
